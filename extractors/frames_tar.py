"""Tar files of frames: where each member lies, so that it can be read without unpacking.

A tar says nowhere how many members it has, and the standard library takes a broken header in the
middle for the end. So an archive is only believed if it ends as it should: with a block of zeros
where the next header would be, and nothing behind but zeros.

Refused, though `tar` would unpack them: links, devices, pipes and sparse files (no frames, and a
way to have other files read), absolute names and names with "..", two members of one name, and
compressed archives, in which nothing can be found without reading all that stands before it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from extractors import heartbeat
from extractors.limits import MAX_IMAGE_NBYTES, MAX_TAR_HEADER_NBYTES, MAX_TAR_MEMBERS
from extractors.regular_file import open_regular
from extractors.video_reader import UnreadableVideo

__all__ = ["Member", "index_tar"]

Member = tuple[int, int]  # offset of the content and its length, in bytes

_BLOCK_NBYTES = 512
_MAX_NAME_CHARACTERS = 4096
_MAX_PADDING_NBYTES = 64 * 2**20
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


def index_tar(path: Path) -> dict[str, Member]:
    """Place of each file in a tar, by its name without a leading "./".

    Raises:
        UnreadableVideo: if it is no tar, is cut off or damaged, or holds what is refused here.
    """
    descriptor = open_regular(path)
    try:
        _refuse_compressed(path, os.pread(descriptor, 8, 0))
        return _index(path, descriptor)
    finally:
        os.close(descriptor)


def _index(path: Path, descriptor: int) -> dict[str, Member]:
    end = os.fstat(descriptor).st_size
    members: dict[str, Member] = {}
    with _errors_named(path):
        archive = tarfile.open(  # noqa: SIM115 (holds nothing to close: the descriptor is ours)
            fileobj=cast("IO[bytes]", _Headers(path, descriptor)), mode="r:"
        )
        for count, member in enumerate(_members(archive), 1):
            heartbeat.beat()
            if count > MAX_TAR_MEMBERS:
                raise UnreadableVideo(
                    f"{path}: got more than {MAX_TAR_MEMBERS:,} members; split the archive"
                )
            name = _checked_name(path, member)
            if member.isdir():
                continue
            _check_file(path, member, end)
            if name in members:
                raise UnreadableVideo(
                    f"{path}: got two members {name!r}, expected each once; pack the frames again"
                )
            members[name] = member.offset_data, member.size
    _check_end(path, descriptor, archive.offset, end)
    return members


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in turn; the archive does not keep them, which would cost a kilobyte each."""
    while (member := archive.next()) is not None:
        vars(archive)["members"] = []
        yield member


class _Headers:
    """What `tarfile` reads headers from: never more at once than a header may need."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._position = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_HEADER_NBYTES:
            raise UnreadableVideo(
                f"{self._path}: got a header of {size:,} bytes, expected at most "
                f"{MAX_TAR_HEADER_NBYTES:,}; pack the frames again"
            )
        data = os.pread(self._descriptor, size, self._position)
        self._position += len(data)
        return data

    def seek(self, position: int) -> None:
        self._position = position

    def tell(self) -> int:
        return self._position


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except UnreadableVideo:
        raise
    # A hostile header may also make negative positions, numbers too large and endless nesting.
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise UnreadableVideo(
            f"{path}: got a file that does not read as a tar ({error}), expected an uncompressed "
            "tar of frames; get it again, it may be incomplete"
        ) from error


def _refuse_compressed(path: Path, start: bytes) -> None:
    for magic, command in _COMPRESSED.items():
        if start.startswith(magic):
            raise UnreadableVideo(
                f"{path}: got a compressed archive, expected a plain tar, in which frames can be "
                f"found without unpacking it; run {command} on it"
            )


def _checked_name(path: Path, member: tarfile.TarInfo) -> str:
    """The name without "." parts, refused if it could lead out of a folder."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts or len(member.name) > _MAX_NAME_CHARACTERS:
        raise UnreadableVideo(
            f"{path}: got a member named {member.name[:200]!r}, expected a relative name without "
            '".."; pack the frames again'
        )
    return "/".join(parts)


def _check_file(path: Path, member: tarfile.TarInfo, end: int) -> None:
    if not member.isreg() or member.issparse():
        raise UnreadableVideo(
            f"{path}: got {_kind(member)} {member.name!r}, expected plain files and folders; pack "
            "the frames again, following links (tar --dereference)"
        )
    if not 0 <= member.size <= MAX_IMAGE_NBYTES:
        raise UnreadableVideo(
            f"{path}: got a member {member.name!r} of {member.size:,} bytes, expected an image of "
            f"at most {MAX_IMAGE_NBYTES:,}; pack the frames alone"
        )
    if member.offset_data + member.size > end:
        raise UnreadableVideo(
            f"{path}: got {end:,} bytes, which end within {member.name!r}; the archive is cut "
            "off, get it again"
        )


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r} in"
    if member.isdev():
        return "a device or pipe"
    return "a sparse file" if member.issparse() else f"an entry of type {member.type!r}"


def _check_end(path: Path, descriptor: int, position: int, end: int) -> None:
    """Refuse an archive that stops without its mark, or goes on after it."""
    mark = os.pread(descriptor, _BLOCK_NBYTES, position)
    if len(mark) < _BLOCK_NBYTES:
        raise UnreadableVideo(
            f"{path}: got {end:,} bytes without the mark that ends a tar; it is cut off, get it "
            "again"
        )
    if any(mark):
        raise UnreadableVideo(
            f"{path}: got a damaged header at byte {position:,}; get the archive again"
        )
    while position < end:
        padding = os.pread(descriptor, 2**20, position)
        if any(padding) or end - position > _MAX_PADDING_NBYTES:
            raise UnreadableVideo(
                f"{path}: got more after the end of the archive, at byte {position:,}, expected "
                "one archive per file; pack the frames again"
            )
        position += len(padding)
