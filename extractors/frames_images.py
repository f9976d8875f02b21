"""Where the images of a video lie: as files of a folder, or as members of a tar, read in place."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.file_stamp import (
    EntryStamp,
    FileStamp,
    check_entry,
    check_unchanged,
    entry_stamp,
    file_stamp,
)
from extractors.frames_numbered import Numbering, number_frames
from extractors.frames_tar import index_tar
from extractors.limits import MAX_FRAMES, MAX_IMAGE_NBYTES
from extractors.regular_file import check_regular, kind_of_entry, open_regular
from extractors.video_reader import UnreadableVideo

__all__ = ["FolderImages", "Images", "ReadImage", "TarImages"]

REMEMBERED_TARS = 512  # 16 bytes a frame: 3.5 MB for an hour of video

ReadImage = Callable[[int, int], bytes]  # of a component and a number


class Images(ABC):
    """The numbered images of a video; `numbering` has their names."""

    path: Path
    numbering: Numbering

    @abstractmethod
    def opened(self) -> AbstractContextManager[ReadImage]:
        """A function from component and number to the bytes of that image.

        It raises OSError where they cannot be had. Entering raises VideoError if the place is not
        what it was.
        """

    def label(self, component: int, number: int) -> str:
        """An image's path, for messages."""
        return f"{self.path}/{self.numbering.name(component, number)}"


class FolderImages(Images):
    """Images that are files of a folder; of flow, also of its sub-folders.

    A folder that gets or loses entries after it was listed is refused when an image is read.
    Images that are overwritten in place are not noticed: a listing would have to look at each.
    """

    def __init__(self, path: Path, *, pattern: str | None, is_flow: bool) -> None:
        self.path = path
        names, self._stamps = _list_folder(path, depth=2 if is_flow else 1)
        self.numbering = number_frames(path, names, pattern=pattern, is_flow=is_flow)

    @contextmanager
    def opened(self) -> Iterator[ReadImage]:
        yield self._read

    def _read(self, component: int, number: int) -> bytes:
        file = self.path / self.numbering.name(component, number)
        try:
            return _read_file(file)
        finally:
            check_entry(file.parent, self._stamps[file.parent])


class TarImages(Images):
    """Images that are members of a tar, which is indexed once per process."""

    def __init__(self, path: Path, *, pattern: str | None, is_flow: bool) -> None:
        check_regular(path, hint='open a folder with kind="frames"')
        self.path = path
        self._stamp = file_stamp(path)
        self.numbering, self._places = _index(path, self._stamp, pattern, is_flow)

    @contextmanager
    def opened(self) -> Iterator[ReadImage]:
        check_unchanged(self.path, self._stamp)
        descriptor = open_regular(self.path)
        try:
            yield lambda component, number: self._read(descriptor, component, number)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, component: int, number: int) -> bytes:
        offset, size = (int(n) for n in self._places[component, number - 1])
        data = os.pread(descriptor, size, offset)
        check_entry(self.path, self._stamp[0])
        return data


@lru_cache(maxsize=REMEMBERED_TARS)
def _index(
    path: Path, stamp: FileStamp, pattern: str | None, is_flow: bool
) -> tuple[Numbering, NDArray[np.int64]]:
    """Names, and each image's offset and size, (components, frames, 2); of missing ones, zeros.

    `stamp` is there for the cache to tell one content of the path from another.
    """
    members = index_tar(path)
    numbering = number_frames(path, members.keys(), pattern=pattern, is_flow=is_flow)
    names = (
        numbering.name(component, number)
        for component in range(len(numbering.patterns))
        for number in range(1, numbering.num_frames + 1)
    )
    places = np.array([members.get(name, (0, 0)) for name in names], dtype=np.int64)
    return numbering, places.reshape(len(numbering.patterns), numbering.num_frames, 2)


def _list_folder(path: Path, *, depth: int) -> tuple[set[str], dict[Path, EntryStamp]]:
    """Names of what lies in a folder, and the stamp of the folder itself before it was listed.

    At depth 2 also those of its folders.
    """
    names: set[str] = set()
    try:
        stamps = {path: entry_stamp(path)}
        with os.scandir(path) as entries:
            for entry in entries:
                names.add(entry.name)
                if depth > 1 and entry.is_dir():
                    stamps[path / entry.name] = entry_stamp(path / entry.name)
                    names |= {f"{entry.name}/{name}" for name in os.listdir(entry)}
                if len(names) > 2 * MAX_FRAMES:
                    raise UnreadableVideo(
                        f"{path}: got more than {2 * MAX_FRAMES:,} entries; keep frames alone in it"
                    )
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: no such folder; check the path of the frames") from error
    except NotADirectoryError as error:
        raise UnreadableVideo(
            f"{path}: got {_kind_of(path)}, expected a folder of frames; open a video with "
            'kind="file" and a tar with kind="tar"'
        ) from error
    except OSError as error:
        raise UnreadableVideo(
            f"{path}: cannot be listed ({error.strerror}), expected a folder that may be read; "
            "check its permissions"
        ) from error
    return names, stamps


def _kind_of(path: Path) -> str:
    mode = path.stat().st_mode
    return "a file" if stat.S_ISREG(mode) else kind_of_entry(mode)


def _read_file(path: Path) -> bytes:
    # A pipe would otherwise wait for somebody to write into it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"it is {kind_of_entry(status.st_mode)}")
        if status.st_size > MAX_IMAGE_NBYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_IMAGE_NBYTES:,} bytes")
        return file.read(MAX_IMAGE_NBYTES)
