"""Frames within a tar: the same as in a folder, and nothing hostile, broken or ambiguous."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from extractors import frames_images, frames_tar
from extractors.frames_tar import index_tar
from extractors.video import (
    FrameDecodeError,
    UnreadableVideo,
    VideoChanged,
    VideoReader,
    file_stamp,
    open_video,
)

NUM_FRAMES = 5


def image_bytes(value: int, size_px: tuple[int, int] = (8, 6)) -> bytes:
    """A flat picture as PNG, which keeps every value."""
    file = io.BytesIO()
    Image.new("RGB", size_px, (value, 2 * value, 255 - value)).save(file, "PNG")
    return file.getvalue()


FRAMES = {f"frame_{n:010d}.png": image_bytes(20 * n) for n in range(1, NUM_FRAMES + 1)}


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(
    path: Path,
    files: dict[str, bytes] | Iterable[tuple[str, bytes]] = FRAMES,
    *,
    others: Iterable[tarfile.TarInfo] = (),
    tar_format: int = tarfile.GNU_FORMAT,
) -> Path:
    """A tar with `others` between the first and the second half of the files."""
    items = list(files.items() if isinstance(files, dict) else files)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for position, (name, data) in enumerate(items):
            if position == len(items) // 2:
                for info in others:
                    archive.addfile(info)
            archive.addfile(member(name, size=len(data)), io.BytesIO(data))
    return path


def open_tar(path: Path) -> VideoReader:
    return open_video(path, kind="tar", frame_rate_fps=60)


def frames_of(reader: VideoReader, indices: Iterable[int]) -> list[NDArray[np.uint8]]:
    return [frame for _, frame in reader.frames(list(indices))]


@pytest.mark.parametrize("prefix", ["", "./", "P01_01/", "./rgb/P01_01/", "a" * 120 + "/", "é/"])
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_gives_the_frames_of_the_folder(tmp_path: Path, prefix: str, tar_format: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in FRAMES.items():
        (folder / name).write_bytes(data)
    files = [(prefix + name, data) for name, data in reversed(FRAMES.items())]
    directory = member(prefix or ".", type=tarfile.DIRTYPE)
    path = write_tar(tmp_path / "a.tar", files, others=[directory], tar_format=tar_format)
    with open_tar(path) as packed, open_video(folder, kind="frames", frame_rate_fps=60) as loose:
        assert packed.timestamps_seconds.tolist() == loose.timestamps_seconds.tolist()
        assert packed.duration_seconds == loose.duration_seconds == 6 / 60
        assert (packed.width_px, packed.height_px, packed.reader_name) == (8, 6, "frames")
        for wanted in ([0, 1, 2, 3, 4], [1, 4], [3]):
            expected = frames_of(loose, wanted)
            assert [f[0, 0, 0] for f in expected] == [20 * (i + 1) for i in wanted]
            for frame, other in zip(frames_of(packed, wanted), expected, strict=True):
                assert np.array_equal(frame, other)


def test_names_need_no_pattern_unless_there_are_two(tmp_path: Path) -> None:
    files = {f"{side}/{name}": data for side in "lr" for name, data in FRAMES.items()}
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(UnreadableVideo, match="more than one numbering"):
        open_tar(path)
    pattern = "r/frame_{number:010d}.png"
    with open_video(path, kind="tar", frame_rate_fps=60, frame_pattern=pattern) as reader:
        assert reader.num_frames == NUM_FRAMES


def test_a_tar_is_indexed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed = []

    def watched(path: Path) -> dict[str, frames_tar.Member]:
        indexed.append(path)
        return index_tar(path)

    monkeypatch.setattr(frames_images, "index_tar", watched)
    path = write_tar(tmp_path / "a.tar")
    readers = [open_tar(path) for _ in range(3)]
    assert len(indexed) == 1
    fewer = dict(list(FRAMES.items())[:3])
    write_tar(tmp_path / "b.tar", fewer).replace(path)
    with pytest.raises(VideoChanged, match=r"a\.tar"):
        frames_of(readers[0], [0])
    assert open_tar(path).num_frames == 3
    assert len(indexed) == 2


def test_nothing_is_unpacked_and_nothing_stays_open(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar")
    before = len(os.listdir("/proc/self/fd"))
    with open_tar(path) as reader:
        frames = reader.frames(range(NUM_FRAMES))
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    with pytest.raises(UnreadableVideo):
        open_tar(write_tar(tmp_path / "b.tar", {}))
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar", "b.tar"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("x.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link to '/etc/passwd'"),
        (member("x.jpg", type=tarfile.LNKTYPE, linkname="frame_0000000001.png"), "a link to"),
        (member("x", type=tarfile.CHRTYPE), "a device or pipe 'x'"),
        (member("x", type=tarfile.BLKTYPE), "a device or pipe 'x'"),
        (member("x", type=tarfile.FIFOTYPE), "a device or pipe 'x'"),
        (member("x", type=b"V"), "an entry of type b'V' 'x'"),
        (member("/x.jpg"), "named '/x.jpg', expected a relative name"),
        (member("a/../../x.jpg"), "expected a relative name"),
        (member("a/" * 3000 + "x"), "expected a relative name"),
        (member("./frame_0000000002.png"), "got two members 'frame_0000000002.png'"),
        (member("x" * 2**20), "got a header of"),
        (member("x", pax_headers={"size": "-512"}), "bytes, expected an image|does not read"),
    ],
)
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_no_plain_file_is_refused_by_name(
    tmp_path: Path, info: tarfile.TarInfo, message: str, tar_format: int
) -> None:
    if info.pax_headers and tar_format == tarfile.GNU_FORMAT:
        pytest.skip("GNU headers have no extras")
    path = write_tar(tmp_path / "a.tar", others=[info], tar_format=tar_format)
    with pytest.raises(UnreadableVideo, match=message):
        open_tar(path)


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    header = bytearray(member("s.jpg", size=512).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"00000000000\0" + b"00000001000\0"
    header[483:495] = b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(512) + write_tar(tmp_path / "b.tar").read_bytes())
    with pytest.raises(UnreadableVideo, match=r"a sparse file 's\.jpg'"):
        open_tar(path)


def test_headers_nested_without_end_are_refused(tmp_path: Path) -> None:
    header = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=1).tobuf()
    (tmp_path / "a.tar").write_bytes((header + bytes(512)) * 5000 + bytes(1024))
    with pytest.raises(UnreadableVideo, match="does not read as a tar"):
        open_tar(tmp_path / "a.tar")


def cut_in_padding(data: bytes) -> bytes:
    """After the last member and its padding, before the zeros of the end."""
    return data[: data.rindex(b"frame_0000000005") + 1024]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:1550], "end within 'frame_0000000002.png'"),
        (lambda data: data[:1200], "without the mark that ends a tar"),
        (cut_in_padding, "without the mark that ends a tar"),
        (lambda data: data[:1024] + b"#" * 512 + data[1536:], "damaged header at byte 1,024"),
        (lambda data: data + data, "more after the end"),
        (lambda data: b"", "an empty file"),
        (lambda data: b"no tar" * 1000, "does not read as a tar"),
        (gzip.compress, "compressed archive.*run gunzip"),
    ],
)
def test_a_damaged_tar_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = write_tar(tmp_path / "a.tar")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UnreadableVideo, match=message):
        open_tar(path)


def test_a_frame_missing_from_a_tar_is_named(tmp_path: Path) -> None:
    files = {name: data for name, data in FRAMES.items() if "3" not in name}
    with pytest.raises(UnreadableVideo, match=r"frame_0000000003\.png is missing"):
        open_tar(write_tar(tmp_path / "a.tar", files))
    files |= {f"frame_{n:010d}.png": image_bytes(n) for n in range(6, 21)}
    with open_tar(write_tar(tmp_path / "b.tar", files)) as reader:
        assert [frame[0, 0, 0] for frame in frames_of(reader, [1, 3, 19])] == [40, 80, 20]
        with pytest.raises(FrameDecodeError, match=r"b\.tar/frame_0000000003\.png: is missing"):
            frames_of(reader, [1, 2])


@pytest.mark.parametrize("broken", [b"", b"text", FRAMES["frame_0000000003.png"][:50]])
def test_a_broken_frame_of_a_tar_is_named(tmp_path: Path, broken: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", FRAMES | {"frame_0000000003.png": broken})
    with open_tar(path) as reader:
        assert len(frames_of(reader, [0, 1, 3])) == 3
        with pytest.raises(FrameDecodeError, match=r"a\.tar/frame_0000000003\.png") as caught:
            frames_of(reader, [0, 2])
        assert caught.value.frame == 2


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar")
    monkeypatch.setattr(frames_tar, "MAX_TAR_MEMBERS", NUM_FRAMES)
    assert len(index_tar(path)) == NUM_FRAMES
    monkeypatch.setattr(frames_tar, "MAX_TAR_MEMBERS", NUM_FRAMES - 1)
    with pytest.raises(UnreadableVideo, match="more than 4 members"):
        index_tar(path)
    monkeypatch.undo()
    monkeypatch.setattr(frames_tar, "MAX_IMAGE_NBYTES", 40)
    with pytest.raises(UnreadableVideo, match=r"'frame_0000000001.png' of .* at most 40"):
        index_tar(path)


def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UnreadableVideo, match="got a named pipe"):
        open_tar(tmp_path / "pipe.tar")
    with pytest.raises(UnreadableVideo, match=r'got a folder.*kind="frames"'):
        open_tar(tmp_path)
    with pytest.raises(UnreadableVideo, match="no such file"):
        open_tar(tmp_path / "missing.tar")


def exchange_contents(path: Path) -> None:
    """Another picture for each name, at the same place in the same file."""
    stat = path.stat()
    others = dict(zip(FRAMES, reversed(FRAMES.values()), strict=True))
    data = write_tar(path.with_name("other.tar"), others).read_bytes()
    assert len(data) == stat.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # the clock may be coarse


@pytest.mark.parametrize("change", [exchange_contents, lambda path: os.truncate(path, 3000)])
def test_an_archive_that_changes_while_it_is_read_gives_no_more_frames(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = write_tar(tmp_path / "a.tar")
    with open_tar(path) as reader:
        frames = reader.frames(range(NUM_FRAMES))
        next(frames)
        change(path)
        with pytest.raises(VideoChanged, match=r"a\.tar: got another size"):
            next(frames)


def test_a_tar_has_one_stamp(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar")
    assert len(file_stamp(path)) == 1


def test_shared_frames_in_a_tar(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "frames" / "P01_01_rgb"
    path = tmp_path / "P01_01.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    with open_tar(path) as packed, open_video(folder, kind="frames", frame_rate_fps=60) as loose:
        assert packed.num_frames == 100
        for frame, other in zip(
            frames_of(packed, range(0, 100, 9)), frames_of(loose, range(0, 100, 9)), strict=True
        ):
            assert np.array_equal(frame, other)
