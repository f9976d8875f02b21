"""A video that is replaced, written to or gone is noticed; one that is only touched up is not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from video_files import write_video

from extractors.video import (
    VideoChanged,
    VideoError,
    VideoVanished,
    check_unchanged,
    file_stamp,
    open_video,
)


def replace_by_a_copy(path: Path) -> None:
    """Same bytes and same time under another inode."""
    stat = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    copy.replace(path)


def overwrite(path: Path) -> None:
    """As many bytes, in the same file, at another time."""
    modified_ns = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(modified_ns + 1, modified_ns + 1))


def lengthen(path: Path) -> None:
    """More bytes, and a clock that says nothing of it."""
    stat = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [replace_by_a_copy, overwrite, lengthen])
def test_a_file_that_changed_is_not_opened(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5)
    stamp = file_stamp(path)
    with open_video(path, expected_stamp=stamp) as reader:
        assert reader.num_frames == 5
    change(path)
    with pytest.raises(VideoChanged, match=r"a\.mp4: got another size.* --retry-failed") as caught:
        open_video(path, expected_stamp=stamp)
    assert isinstance(caught.value, VideoError)


def test_what_leaves_the_content_alone_is_no_change(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5)
    stamp = file_stamp(path)
    os.link(path, tmp_path / "b.mp4")
    path.chmod(0o600)
    assert file_stamp(path) != stamp  # the change time, which identities do look at
    check_unchanged(path, stamp)


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5)
    stamp = file_stamp(path)
    path.unlink()
    with pytest.raises(VideoVanished, match=r"was there before.* --retry-failed"):
        open_video(path, expected_stamp=stamp)
    with pytest.raises(FileNotFoundError):
        file_stamp(path)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_folder_is_known_by_a_few_of_its_frames(tmp_path: Path, number: int) -> None:
    for index in range(1, 6):
        Image.new("RGB", (8, 6)).save(tmp_path / f"frame_{index:03d}.png")
    stamp = file_stamp(tmp_path)
    assert len(stamp) == 4
    open_video(tmp_path, kind="frames", frame_rate_fps=60, expected_stamp=stamp)
    Image.new("RGB", (8, 6), "red").save(tmp_path / f"frame_{number:03d}.png")
    with pytest.raises(VideoChanged):
        open_video(tmp_path, kind="frames", frame_rate_fps=60, expected_stamp=stamp)


def test_an_empty_folder_has_a_stamp(tmp_path: Path) -> None:
    assert len(file_stamp(tmp_path)) == 1
