"""Numbered frames: times by the annotators' rule, nothing missing, nothing guessed."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from extractors.frames_reader import FramesReader, epic_frame_number
from extractors.video import FrameDecodeError, UnreadableVideo, check_complete, open_video


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
    ("numbers", "missing"), [([1, 2, 4, 5, 7], "0000000003"), ([2, 3], "0000000001")]
)
def test_a_missing_frame_is_named(tmp_path: Path, numbers: list[int], missing: str) -> None:
    write_frames(tmp_path, numbers)
    with pytest.raises(UnreadableVideo, match=f"frame_{missing}.jpg is missing"):
        FramesReader(tmp_path, frame_rate_fps=60)


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
        for broken in (b"", b"text", whole[: len(whole) // 2]):
            (tmp_path / "frame_0000000002.jpg").write_bytes(broken)
            with pytest.raises(FrameDecodeError, match=r"frame_0000000002\.jpg") as caught:
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
