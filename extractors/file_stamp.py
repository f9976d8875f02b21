"""What the file system says of a video: enough to notice that it is not the file it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from extractors.video_reader import VideoChanged, VideoVanished

__all__ = ["EntryStamp", "FileStamp", "check_entry", "check_unchanged", "entry_stamp", "file_stamp"]


class EntryStamp(NamedTuple):
    """One entry; times in nanoseconds since the epoch."""

    size_nbytes: int
    modified_ns: int
    changed_ns: int
    inode: int


FileStamp = tuple[EntryStamp, ...]


def entry_stamp(path: Path) -> EntryStamp:
    """Stamp of a file or folder itself, whatever a folder holds: one look at the file system.

    Raises:
        FileNotFoundError: if the path is absent.
        OSError: if it cannot be looked at.
    """
    stat = path.stat()
    return EntryStamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def file_stamp(path: Path) -> FileStamp:
    """Stamp of a file; of a folder, its own and those of its first, middle and last entry.

    Entries that are folders themselves, as of flow, give those of three of their entries, too.

    Raises:
        FileNotFoundError: if the path is absent.
        OSError: if it cannot be looked at.
    """
    return tuple(entry_stamp(telling) for telling in _telling_paths(path, depth=2))


def _telling_paths(path: Path, *, depth: int) -> Iterator[Path]:
    yield path
    if depth and path.is_dir():
        names = sorted(os.listdir(path))
        for position in sorted({0, len(names) // 2, len(names) - 1}) if names else ():
            yield from _telling_paths(path / names[position], depth=depth - 1)


def check_unchanged(path: Path, expected: FileStamp) -> None:
    """Refuse a video that was replaced or written to since its `file_stamp` was taken.

    Size, modification time and inode count. The change time does not: a hard link or another
    owner changes it, and not a single byte of the content.

    Raises:
        VideoChanged: if another file, or other content, is there now.
        VideoVanished: if nothing is there now.
    """
    _check(path, file_stamp, expected)


def check_entry(path: Path, expected: EntryStamp) -> None:
    """As `check_unchanged`, by a file or folder itself: cheap enough for every row or frame.

    A folder changes when entries are added, removed, renamed or replaced by renaming. An entry
    that is written to in place is not noticed, and nothing within the folders in it.

    Raises:
        VideoChanged, VideoVanished: as `check_unchanged`.
    """
    _check(path, lambda entry: (entry_stamp(entry),), (expected,))


def _check(path: Path, look: Callable[[Path], FileStamp], expected: FileStamp) -> None:
    try:
        stamp = look(path)
    except OSError as error:
        raise VideoVanished(
            f"{path}: was there before and is not now ({error.strerror}); bring it back and run "
            "with --retry-failed"
        ) from error
    if _content_facts(stamp) != _content_facts(expected):
        raise VideoChanged(
            f"{path}: got another size, modification time or inode than before, expected a video "
            "that stays as it is while it is read; wait until it is written and run with "
            "--retry-failed"
        )


def _content_facts(stamp: FileStamp) -> list[tuple[int, int, int]]:
    return [(entry.size_nbytes, entry.modified_ns, entry.inode) for entry in stamp]
