"""Opening plain files only: a pipe would wait for ever, a device might never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from extractors.video_reader import UnreadableVideo

__all__ = ["check_regular", "kind_of_entry", "open_regular"]


def check_regular(path: Path, *, hint: str = "") -> os.stat_result:
    """Refuse what is no plain file with something in it, without opening it.

    Args:
        path: where the file should be; symbolic links are followed.
        hint: what to do where a folder was found.

    Raises:
        UnreadableVideo: if nothing is there, or no plain file, or an empty one.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: no such file; check the path of the videos") from error
    except OSError as error:
        raise _not_opened(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = kind_of_entry(status.st_mode)
        raise UnreadableVideo(f"{path}: got {kind}, expected a plain file{hint and '; '}{hint}")
    if status.st_size == 0:
        raise UnreadableVideo(f"{path}: got an empty file, expected a video; get it again")
    return status


def open_regular(path: Path, *, hint: str = "") -> int:
    """Descriptor of a plain file, open for reading; the caller closes it.

    Args:
        path, hint: as of `check_regular`.

    Raises:
        UnreadableVideo: as `check_regular`, or if the file may not be read.
    """
    check_regular(path, hint=hint)
    try:
        # A pipe that took the file's place meanwhile does not keep this waiting either.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_opened(path, error) from error


def kind_of_entry(mode: int) -> str:
    """What an entry of a file system is, by its mode, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _not_opened(path: Path, error: OSError) -> UnreadableVideo:
    return UnreadableVideo(
        f"{path}: cannot be opened ({error.strerror}), expected a file that may be read; check "
        "its permissions and its path"
    )
