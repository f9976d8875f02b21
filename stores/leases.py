"""Leases: shards that jobs on other machines write while nobody holds the store.

<root>/.leases/<name>.json says which. As long as it is there, whoever opens the store for writing
leaves those shards and their temporary files alone, whole or not. A lease whose file is damaged
may be about anything, so everything is left alone until it is released.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crc32c import crc32c

from stores.durable import make_folder, open_folder, replace_file, sweep_temps
from stores.infos import Lease, ShardRange
from stores.manifest_records import MAX_SHARDS
from stores.names import check_key, check_name
from stores.untrusted import MAX_DOCUMENT_NBYTES, NoPlainFileError, read_document

LEASES_FOLDER = ".leases"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUFFIX = ".json"


def write_lease(root: Path, name: str, shards: Iterable[ShardRange]) -> Lease:
    """Write a lease, on disk when this returns.

    Raises:
        ValueError: a bad name, no shards, or more ranges than fit.
        FileExistsError: there is a lease of that name.
    """
    lease = Lease(_check_name(name), datetime.now(UTC).isoformat(), tuple(shards))
    ranges = [_check_range(shard_range) for shard_range in lease.shards]
    if not ranges:
        raise ValueError(f"got no shards for lease {name!r}, expected some")
    content = {"name": name, "created": lease.created, "shards": ranges}
    text = json.dumps({**content, "crc32c": _seal(content)}).encode()
    if len(text) > MAX_DOCUMENT_NBYTES:
        raise ValueError(
            f"got a lease of {len(lease.shards):,} ranges and {len(text):,} bytes, expected at "
            f"most {MAX_DOCUMENT_NBYTES:,} bytes; take several leases"
        )
    path = _path(root, name)
    if path.exists():
        raise FileExistsError(f"got lease {name!r}, which {path} is about already; name another")
    make_folder(path.parent)
    replace_file(path, text, durable=True)
    return lease


def remove_lease(root: Path, name: str) -> None:
    """Remove a lease durably; nothing happens where there is none of that name."""
    path = _path(root, _check_name(name))
    with suppress(FileNotFoundError), open_folder(path.parent) as folder:
        os.unlink(path.name, dir_fd=folder)
        os.fsync(folder)


def read_leases(root: Path) -> list[Lease]:
    """Return the leases, by name; of a damaged one its damage."""
    try:
        with open_folder(root / LEASES_FOLDER) as folder:
            names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    found = (_read(root, n.removesuffix(_SUFFIX)) for n in names if n.endswith(_SUFFIX))
    return [lease for lease in found if lease is not None]


def sweep_leases(root: Path) -> None:
    """Remove what a crash left of leases that were being written."""
    with suppress(FileNotFoundError):
        sweep_temps(root / LEASES_FOLDER)


def _read(root: Path, name: str) -> Lease | None:
    path = _path(root, name)
    try:
        document = read_document(path)
        content = {field: value for field, value in document.items() if field != "crc32c"}
        if document["crc32c"] != _seal(content):
            raise ValueError("its checksum does not match")
        if content["name"] != name:
            raise ValueError(f"it is the lease {content['name']!r}")
        ranges = tuple(ShardRange(**fields) for fields in content["shards"])
        for shard_range in ranges:
            _check_range(shard_range)
        return Lease(name, str(content["created"]), ranges)
    except FileNotFoundError:  # released meanwhile
        return None
    except (NoPlainFileError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Lease(
            name,
            "",
            (),
            f"got {path} that is no lease ({error}), so any shard may be under it; where no job "
            "writes to this store, delete that file",
        )


def _path(root: Path, name: str) -> Path:
    return root / LEASES_FOLDER / f"{name}{_SUFFIX}"


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"got lease name {name!r}, expected at most 100 letters, digits, '.', '_' and '-'"
        )
    return name


def _check_range(shards: ShardRange) -> dict[str, Any]:
    """Return the range as JSON values."""
    check_name("stage", shards.stage)
    check_key("stage key", shards.key)
    numbers = (shards.first, shards.count)
    if any(type(number) is not int or not 0 <= number <= MAX_SHARDS for number in numbers):
        raise ValueError(f"got {shards}, expected shard numbers from 0 on")
    return vars(shards)


def _seal(content: dict[str, Any]) -> int:
    return crc32c(json.dumps(content, sort_keys=True).encode())
