"""Numbered frames: times by the annotators' rule, nothing missing, nothing guessed."""

import csv
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from extractors import frames_images, frames_numbered
from extractors.frames_reader import FramesReader, epic_frame_number
from extractors.video import (
    FrameDecodeError,
    UnreadableVideo,
    VideoChanged,
    check_complete,
    open_video,
)


def write_frames(
    folder: Path, numbers: list[int], pattern: str = "frame_{number:010d}.jpg"
) -> dict[int, NDArray[np.uint8]]:
    """Flat pictures, each of its own grey, which JPEG keeps to within a level."""
    folder.mkdir(exist_ok=True)
    pictures = {}
    for number in numbers:
        pictures[number] = np.full((6, 8, 3), 10 * number, np.uint8)
        Image.fromarray(pictures[number]).save(folder / pattern.format(number=number))
    return pictures


@pytest.mark.parametrize(
    ("seconds", "rate_fps", "number"),
    [
        (0.0, 60, 1),
        (0.016, 60, 1),
        (0.14, 60, 8),
        (3.37, 60, 202),
        (2.86, 50, 143),
        (16.40, 60, 983),  # 16.4 × 60 is a hair under 984 in floating point
    ],
)
def test_frame_numbers_of_the_annotations(seconds: float, rate_fps: float, number: int) -> None:
    assert epic_frame_number(seconds, rate_fps) == number


def test_times_of_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2, 3, 4])
    with FramesReader(tmp_path, frame_rate_fps=50) as folder:
        assert folder.timestamps_seconds.tolist() == [0.0, 2 / 50, 3 / 50, 4 / 50]
        assert folder.duration_seconds == 5 / 50
        assert (folder.width_px, folder.height_px, folder.num_frames) == (8, 6, 4)
        assert folder.declared_duration_seconds is None
        check_complete(folder)


def test_index_at_is_the_frame_number_less_one(tmp_path: Path) -> None:
    write_frames(tmp_path, list(range(1, 21)))
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        times = np.linspace(0, 0.34, 997)
        expected = [epic_frame_number(time, 60) - 1 for time in times]
        assert folder.index_at(times)[0].tolist() == expected
        rounded_us = np.round(folder.timestamps_seconds * 1e6) / 1e6
        assert folder.index_at(rounded_us)[0].tolist() == list(range(20))
        assert folder.index_at([21 / 60])[1].tolist() == [True]
        assert folder.index_at([20.9 / 60])[1].tolist() == [False]


@pytest.mark.parametrize("pattern", ["frame_{number:010d}.jpg", "P01_01_frame_{number:010d}.jpg"])
def test_frames_by_index(tmp_path: Path, pattern: str) -> None:
    pictures = write_frames(tmp_path, list(range(1, 13)), pattern)
    (tmp_path / "notes.txt").touch()
    with open_video(tmp_path, kind="frames", frame_rate_fps=60) as folder:
        given = dict(folder.frames([0, 4, 11]))
        assert list(given) == [0, 4, 11]
        for index, frame in given.items():
            assert np.abs(frame.astype(int) - pictures[index + 1]).max() <= 2
            assert frame.flags.writeable


def test_one_numbering_out_of_two(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2], "u_{number:04d}.jpg")
    write_frames(tmp_path, [1, 2, 3], "v_{number:04d}.jpg")
    with pytest.raises(UnreadableVideo, match=r"more than one numbering \(u_.*, v_"):
        FramesReader(tmp_path, frame_rate_fps=60)
    with FramesReader(tmp_path, frame_rate_fps=60, frame_pattern="v_{number:04d}.jpg") as folder:
        assert folder.num_frames == 3
    with pytest.raises(UnreadableVideo, match=r"no file named like w_0001\.jpg"):
        FramesReader(tmp_path, frame_rate_fps=60, frame_pattern="w_{number:04d}.jpg")


def test_braces_in_names_are_letters(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2], "{{a}}_{number:03d}.jpg")
    assert FramesReader(tmp_path, frame_rate_fps=60).num_frames == 2


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([1, 2, 4, 5, 7], "0000000003"),
        ([1, *range(3, 20)], "0000000002"),  # one in nineteen
        (list(range(2, 25)), "0000000001"),
        ([1, 10**9], "0000000002"),
    ],
)
def test_a_folder_that_misses_much_or_its_first_frame_is_refused(
    tmp_path: Path, numbers: list[int], missing: str
) -> None:
    for number in numbers:
        Image.new("RGB", (8, 6)).save(tmp_path / f"frame_{number:010d}.jpg")
    with pytest.raises(
        UnreadableVideo,
        match=rf"frame_{missing}\.jpg is missing, expected the first and at least 95%",
    ):
        FramesReader(tmp_path, frame_rate_fps=60)


def test_a_missing_frame_keeps_its_number_and_is_named(tmp_path: Path) -> None:
    pictures = write_frames(tmp_path, [*range(1, 8), *range(9, 21)])  # one in twenty
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        assert folder.num_frames == 20
        assert folder.duration_seconds == 21 / 60
        for index, frame in folder.frames([6, 8, 19]):
            assert np.abs(frame.astype(int) - pictures[index + 1]).max() <= 2
        folder.check_present([0, 6, 8, 19])
        for refused in (lambda: folder.check_present([6, 7]), lambda: list(folder.frames([7, 8]))):
            with pytest.raises(FrameDecodeError, match=r"0000000008\.jpg: is missing") as caught:
                refused()
            assert caught.value.frame == 7


def test_a_folder_that_changes_while_it_is_read_gives_no_more_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2, 3])
    os.utime(tmp_path, ns=(0, 0))  # the clock may be coarse
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        frames = folder.frames([0, 1, 2])
        next(frames)
        (tmp_path / "frame_0000000002.jpg").rename(tmp_path / "frame_0000000003.jpg")
        for rest in (frames, folder.frames([2])):
            with pytest.raises(VideoChanged, match="got another size"):
                next(rest)


def test_what_is_no_folder_of_frames(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="no such folder"):
        FramesReader(tmp_path / "missing", frame_rate_fps=60)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="no numbered image"):
        FramesReader(tmp_path / "empty", frame_rate_fps=60)
    (tmp_path / "file.mp4").touch()
    with pytest.raises(UnreadableVideo, match='kind="file"'):
        FramesReader(tmp_path / "file.mp4", frame_rate_fps=60)


def test_a_broken_frame_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2, 3])
    whole = (tmp_path / "frame_0000000002.jpg").read_bytes()
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        for broken, reason in (
            (b"", "0 bytes that are no image"),
            (b"text", "4 bytes that are no image"),
            (whole[: len(whole) // 2], "Truncated File Read"),
        ):
            (tmp_path / "frame_0000000002.jpg").write_bytes(broken)
            place = rf"frame_0000000002\.jpg: got a frame that does not decode \({reason}"
            with pytest.raises(FrameDecodeError, match=place) as caught:
                list(folder.frames([0, 1, 2]))
            assert caught.value.frame == 1
    (tmp_path / "frame_0000000001.jpg").write_bytes(b"text")
    with pytest.raises(FrameDecodeError, match=r"frame_0000000001\.jpg"):
        FramesReader(tmp_path, frame_rate_fps=60)


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2])
    Image.new("RGB", (9, 6)).save(tmp_path / "frame_0000000002.jpg")
    with (
        FramesReader(tmp_path, frame_rate_fps=60) as folder,
        pytest.raises(FrameDecodeError, match=r"frame 1 of shape \(6, 9, 3\)"),
    ):
        list(folder.frames([0, 1]))


def test_grey_pictures_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 77).save(tmp_path / "flow_1.png")
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        ((_, frame),) = folder.frames([0])
        assert (frame == 77).all()
        assert frame.shape == (6, 8, 3)


@pytest.mark.parametrize("rate", [0, -60, math.nan, math.inf])
def test_a_rate_must_be_one(tmp_path: Path, rate: float) -> None:
    with pytest.raises(ValueError, match="frame_rate_fps"):
        FramesReader(tmp_path, frame_rate_fps=rate)


@pytest.mark.parametrize(
    "pattern", ["frame.jpg", "{other}.jpg", "{number}{number}.jpg", "{number:q}", "{", "{}.jpg"]
)
def test_a_pattern_must_have_a_number(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="got frame_pattern"):
        FramesReader(tmp_path, frame_rate_fps=60, frame_pattern=pattern)


def annotated(file: Path) -> list[tuple[float, float, int]]:
    """(seconds, rate, frame number) of every start and stop in an annotation file."""
    marks = []
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            rate = 60 if len(row["video_id"].split("_")[1]) == 2 else 50
            for end in ("start", "stop"):
                hours, minutes, seconds = row[f"{end}_timestamp"].split(":")
                time = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
                marks.append((time, rate, int(row[f"{end}_frame"])))
    return marks


@pytest.mark.parametrize(
    ("name", "num_marks", "num_hairs"),
    [
        ("epic55/EPIC_train_action_labels.csv", 56944, 237),
        ("epic100/EPIC_100_validation.csv", 19336, 76),
    ],
)
def test_shared_annotations_follow_the_rule(
    test_data: Path, name: str, num_marks: int, num_hairs: int
) -> None:
    marks = annotated(test_data / "annotations" / name)
    assert len(marks) == num_marks
    assert all(epic_frame_number(time, rate) == number for time, rate, number in marks)
    # `index_at` forgives a microsecond, so where the product is a hair under a whole number
    # it is one frame further on.
    ahead = [epic_frame_number(time + 1e-6, rate) - number for time, rate, number in marks]
    assert (min(ahead), max(ahead), sum(ahead)) == (0, 1, num_hairs)


def test_shared_frames(test_data: Path) -> None:
    path = test_data / "frames" / "P01_01_rgb"
    with open_video(path, kind="frames", frame_rate_fps=60) as folder:
        assert (folder.num_frames, folder.width_px, folder.height_px) == (100, 456, 256)
        assert folder.index_at([0.14])[0].tolist() == [7]
        ((_, frame),) = folder.frames([7])
        with Image.open(path / "P01_01_frame_0000000008.jpg") as image:
            assert np.array_equal(frame, np.asarray(image))
    with pytest.raises(UnreadableVideo, match="more than one numbering"):
        open_video(test_data / "frames" / "P01_01_flow", kind="frames", frame_rate_fps=60)


def png_of_size(width_px: int, height_px: int) -> bytes:
    """A PNG that says it is this large, and holds no pixels."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg_of_size(width_px: int, height_px: int) -> bytes:
    """A small JPEG whose frame header is changed to say that it is this large."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height_px, width_px)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_of_size(8193, 8192),
        png_of_size(2**31 - 1, 2**31 - 1),
        png_of_size(20000, 20000),  # where Pillow refuses, too
        png_of_size(10000, 10000),  # where Pillow warns
        jpeg_of_size(8193, 8192),
        jpeg_of_size(65535, 65535),
    ],
    ids=["png", "png-huge", "png-bomb", "png-large", "jpeg", "jpeg-bomb"],
)
def test_an_image_that_says_it_is_huge_is_not_decoded(tmp_path: Path, data: bytes) -> None:
    write_frames(tmp_path, [1, 2])
    (tmp_path / "frame_0000000002.jpg").write_bytes(data)
    with (
        FramesReader(tmp_path, frame_rate_fps=60) as folder,
        pytest.raises(FrameDecodeError, match=r"0000000002\.jpg: got .*pixels") as caught,
    ):
        list(folder.frames([0, 1]))
    assert caught.value.frame == 1
    (tmp_path / "frame_0000000001.jpg").write_bytes(data)
    with pytest.raises(FrameDecodeError, match=r"0000000001\.jpg: got .*pixels"):
        FramesReader(tmp_path, frame_rate_fps=60)


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 3])
    os.mkfifo(tmp_path / "frame_0000000002.jpg")
    (tmp_path / "frame_0000000004.jpg").mkdir()
    (tmp_path / "frame_0000000005.jpg").symlink_to("missing.jpg")
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        for index, reason in (
            (1, "it is a named pipe"),
            (3, "Is a directory"),
            (4, "No such file"),
        ):
            with pytest.raises(FrameDecodeError, match=rf"cannot be read \({reason}"):
                list(folder.frames([index]))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableVideo, match="got a named pipe, expected a folder"):
        FramesReader(tmp_path / "pipe", frame_rate_fps=60)


def test_other_formats_and_depths_are_no_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, [1, 2, 3])
    Image.new("RGB", (8, 6)).save(tmp_path / "frame_0000000002.jpg", "GIF")
    deep = Image.fromarray(np.full((6, 8), 4000, np.uint16))
    deep.save(tmp_path / "frame_0000000003.jpg", "PNG")
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        with pytest.raises(FrameDecodeError, match="expected a whole JPEG or PNG image"):
            list(folder.frames([1]))
        with pytest.raises(FrameDecodeError, match=r"mode I;16, expected 8 bits"):
            list(folder.frames([2]))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path, [1, 2, 3])
    with pytest.raises(UnreadableVideo, match=r"3 frames, or 40\.0 hours at 2\.77\S* fps"):
        FramesReader(tmp_path, frame_rate_fps=4 / 144_000)
    monkeypatch.setattr(frames_numbered, "MAX_FRAMES", 2)
    with pytest.raises(UnreadableVideo, match="got 3 frames, expected at most 2"):
        FramesReader(tmp_path, frame_rate_fps=60)
    monkeypatch.setattr(frames_images, "MAX_FRAMES", 1)
    with pytest.raises(UnreadableVideo, match="more than 2 entries"):
        FramesReader(tmp_path, frame_rate_fps=60)
    monkeypatch.undo()
    with FramesReader(tmp_path, frame_rate_fps=60) as folder:
        monkeypatch.setattr(frames_images, "MAX_IMAGE_NBYTES", 20)
        with pytest.raises(FrameDecodeError, match="more than 20 bytes"):
            list(folder.frames([0]))
