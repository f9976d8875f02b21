"""What the file system says of a video: enough to notice that it is not the file it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from extractors.video_reader import UnreadableVideo, VideoChanged

__all__ = ["EntryStamp", "FileStamp", "check_unchanged", "file_stamp"]


class EntryStamp(NamedTuple):
    """One entry; times in nanoseconds since the epoch."""

    size_nbytes: int
    modified_ns: int
    changed_ns: int
    inode: int


FileStamp = tuple[EntryStamp, ...]


def file_stamp(path: Path) -> FileStamp:
    """Stamp of a file; of a folder, its own and those of its first, middle and last entry.

    Entries that are folders themselves, as of flow, give those of three of their entries, too.

    Raises:
        FileNotFoundError: if the path is absent.
        OSError: if it cannot be looked at.
    """
    stats = [p.stat() for p in _telling_paths(path, depth=2)]
    return tuple(EntryStamp(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in stats)


def _telling_paths(path: Path, *, depth: int) -> Iterator[Path]:
    yield path
    if depth and path.is_dir():
        names = sorted(os.listdir(path))
        for position in sorted({0, len(names) // 2, len(names) - 1}) if names else ():
            yield from _telling_paths(path / names[position], depth=depth - 1)


def check_unchanged(path: Path, expected: FileStamp) -> None:
    """Refuse a video that was replaced or written to since its stamp was taken.

    Size, modification time and inode count. The change time does not: a hard link or another
    owner changes it, and not a single byte of the content.

    Raises:
        VideoChanged: if another file, or other content, is there now.
        UnreadableVideo: if nothing is there now.
    """
    try:
        stamp = file_stamp(path)
    except OSError as error:
        raise UnreadableVideo(
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
