"""Who a file is: digests of content, remembered by what the file system says of the file.

Hashing tens of thousands of videos again on each run would cost hours, so a digest is kept beside
path, size, modification and change time and inode, and taken anew when any of them differs or when
the file was touched in the two seconds before it was hashed. A video that is gone keeps the
identity it had, so its rows stay usable after the videos are deleted.

A folder of frames is hashed as a whole (names and contents, also of the folders in it, such as
those of flow) and remembered by the folder's own times and those of its first, middle and last
entry; ``rehash`` looks again at everything.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from blake3 import blake3

from extractors.file_stamp import FileStamp, file_stamp
from stores.durable import replace_file

__all__ = ["MEMO_NAME", "IdentityMemo", "has_sha256"]

MEMO_NAME = "identities.json"
RACY_NANOSECONDS = 2_000_000_000
FOLDER_DEPTH = 2  # a folder of frames, or of the two folders of flow


class _Entry(TypedDict):
    stamp: list[list[int]]
    digest: str


class IdentityMemo:
    """Digests of files and folders, kept in one small JSON file.

    Args:
        path: the JSON file; absent or unreadable means nothing is remembered yet.
        rehash: do not trust what is remembered; hash everything that is asked for.
    """

    def __init__(self, path: Path, *, rehash: bool = False) -> None:
        self._path = path
        self._rehash = rehash
        self._entries = _load(path)
        self._fresh: set[str] = set()
        self._stamps: dict[Path, FileStamp] = {}
        self._changed = False

    def digest(self, path: Path) -> str:
        """blake3 hex digest of the content of a file or of a folder of files.

        Raises:
            FileNotFoundError: the path is absent and nothing is remembered of it.
            OSError: it cannot be read.
        """
        return self._recall(os.path.abspath(path), path, _blake3_of)

    def sha256(self, path: Path) -> str:
        """sha256 hex digest of a file: what publishers of checkpoints print beside them.

        Raises:
            FileNotFoundError, OSError: as `digest`.
        """
        return self._recall(f"sha256 {os.path.abspath(path)}", path, _sha256_of)

    def stamp(self, path: Path) -> FileStamp | None:
        """What the file system said of a path whose digest was asked for; None if it was gone."""
        return self._stamps.get(path)

    def _recall(self, name: str, path: Path, digest_of: Callable[[Path], str]) -> str:
        entry = self._entries.get(name)
        now = time.time_ns()
        try:
            self._stamps[path] = file_stamp(path)
        except FileNotFoundError:
            if entry is None:
                raise
            return entry["digest"]
        stamp = [list(entry) for entry in self._stamps[path]]  # as JSON gives it back
        trusted = not self._rehash or name in self._fresh
        if entry is not None and entry["stamp"] == stamp and trusted:
            return entry["digest"]
        digest = digest_of(path)
        self._fresh.add(name)
        newest = max(max(modified, changed) for _, modified, changed, _ in stamp)
        if now - newest > RACY_NANOSECONDS:
            self._entries[name] = {"stamp": stamp, "digest": digest}
            self._changed = True
        return digest

    def save(self) -> None:
        """Write what was learnt, atomically; nothing to do if nothing was."""
        if not self._changed:
            return
        replace_file(self._path, json.dumps(self._entries).encode(), durable=False)
        self._changed = False

    def save_if_possible(self) -> None:
        """`save` for those who must not fail on a folder they only look at."""
        with suppress(OSError):
            self.save()


def has_sha256(path: Path, expected: str) -> bool:
    """Whether a file is there and its content has this sha256; reads all of it."""
    try:
        return _sha256_of(path) == expected
    except OSError:
        return False


def _load(path: Path) -> dict[str, _Entry]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("stamp"), list)
        and isinstance(entry.get("digest"), str)
    )


def _blake3_of(path: Path) -> str:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return _hash_folder(path)
    if not stat.S_ISREG(mode):  # a pipe would keep the hash waiting
        raise OSError(errno.EINVAL, "it is neither a file nor a folder")
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_folder(path: Path) -> str:
    total = blake3()
    for name in sorted(_files_of(path, FOLDER_DEPTH)):
        total.update(f"{len(name)}:".encode() + os.fsencode(name) + b":")
        total.update(blake3((path / name).read_bytes()).digest())
    return total.hexdigest()


def _files_of(path: Path, depth: int) -> Iterator[str]:
    for entry in os.scandir(path):
        if entry.is_file():
            yield entry.name
        elif depth > 1 and entry.is_dir():
            for name in _files_of(Path(entry), depth - 1):
                yield f"{entry.name}/{name}"
