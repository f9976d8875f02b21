"""The footer of a shard file: JSON that says what the file is, and which rows the shard holds.

    footer                                JSON
    u64 footer bytes, u32 footer crc32c, 8 bytes magic        the trailer
    index                                 of the format

The footer names stage, key, part and shard. That of the first part also lists the rows, from
which a lost manifest is rebuilt; other parts carry only the sha256 of that list, so that small
outputs stay small.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from crc32c import crc32c

from stores.layout import FORMAT_VERSION, GenerationLayout
from stores.names import check_key
from stores.records import RowInfo
from stores.shard_format import (
    CRC_NBYTES,
    MAX_FOOTER_NBYTES,
    DamagedShardError,
    ShardTail,
)
from stores.untrusted import parse_json

_MAGIC = b"symbio\x00\x01"
_TRAILER = struct.Struct("<QI8s")  # footer bytes, footer crc32c, magic

RowList = list[tuple[str, RowInfo]]


def encode_footer(
    layout: GenerationLayout, part: str, shard: int, rows: RowList, *, lists_rows: bool
) -> bytes:
    """Return the text of a footer."""
    listing = [[key, *info.to_json()] for key, info in rows]
    digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    footer = {**_identity(layout, part, shard), "rows_sha256": digest}
    if lists_rows:
        footer["rows"] = listing
    return json.dumps(footer).encode()


def encode_tail(footer: bytes, index: bytes) -> bytes:
    """Return footer, trailer, index and its checksum: the end of a file."""
    trailer = _TRAILER.pack(len(footer), crc32c(footer), _MAGIC)
    return footer + trailer + index + crc32c(index).to_bytes(CRC_NBYTES, "little")


def read_index(path: Path, descriptor: int, index_nbytes: int) -> tuple[bytes, int, int, int]:
    """Read the end of an open shard file.

    Returns:
        The index of `index_nbytes` bytes, where the footer starts, its size, its crc32c.

    Raises:
        DamagedShardError: the file is too short, or not all of it is there.
    """
    tail_nbytes = _TRAILER.size + index_nbytes + CRC_NBYTES
    start = os.fstat(descriptor).st_size - tail_nbytes
    tail = os.pread(descriptor, tail_nbytes, start) if start > 0 else b""
    if len(tail) != tail_nbytes:
        raise DamagedShardError(path, "the file is too short")
    index = tail[_TRAILER.size : -CRC_NBYTES]
    if crc32c(index) != int.from_bytes(tail[-CRC_NBYTES:], "little"):
        raise DamagedShardError(path, "the checksum of the index does not match")
    footer_nbytes, footer_crc, magic = _TRAILER.unpack_from(tail)
    if magic != _MAGIC or footer_nbytes > min(start, MAX_FOOTER_NBYTES):
        raise DamagedShardError(path, "the footer is not where it should be")
    return index, start - footer_nbytes, footer_nbytes, footer_crc


def read_footer(
    layout: GenerationLayout, part: str, shard: int, path: Path, descriptor: int, tail: ShardTail
) -> dict[str, Any]:
    """Read the footer and check that the file is this part of this shard.

    Raises:
        DamagedShardError: it is damaged, or the file was exchanged for another one.
    """
    text = os.pread(descriptor, tail.footer_nbytes, tail.footer_start)
    if len(text) != tail.footer_nbytes or crc32c(text) != tail.footer_crc:
        raise DamagedShardError(path, "the checksum of the footer does not match")
    expected = _identity(layout, part, shard)
    slots = len(next(iter(tail.chunks.values())))
    try:
        footer: dict[str, Any] = parse_json(text)
        got = {name: footer.get(name) for name in expected}
        strange = "rows" in footer and len(decode_rows(footer)) != slots
        strange = strange or not isinstance(footer["rows_sha256"], str)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedShardError(path, f"the footer is none of ours: {error!r}") from error
    if got != expected:
        raise DamagedShardError(path, f"the file says it is {got}, expected {expected}")
    if strange:
        raise DamagedShardError(path, f"the footer does not list the {slots} rows of the file")
    return footer


def decode_rows(footer: dict[str, Any]) -> RowList:
    """Return the row keys and infos by slot; none where the footer lists no rows."""
    listing = footer.get("rows", ())
    return [(check_key("row key", key), RowInfo.from_json(info)) for key, *info in listing]


def _identity(layout: GenerationLayout, part: str, shard: int) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "stage": layout.stage,
        "key": layout.key,
        "output": part,
        "shard": shard,
        "rows_per_shard": layout.rows_per_shard,
    }
