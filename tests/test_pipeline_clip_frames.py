"""Clip times meet the frame times of real files: which frames a clip is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from extractors.frames_reader import FramesReader
from extractors.video import VideoReader
from pipeline.clips import clip_times_us, grid_times_us
from pipeline.videos import epic_rate_fps


class Times(VideoReader):
    """A video that has frame times and no frames."""

    reader_name = "times"

    def __init__(self, timestamps_seconds: Sequence[float], duration_seconds: float) -> None:
        super().__init__(
            path=Path("times"),
            width_px=4,
            height_px=2,
            timestamps_seconds=np.array(timestamps_seconds),
            duration_seconds=duration_seconds,
            time_tolerance_seconds=1e-3,
        )

    def _decode(self, wanted: list[int]):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def constant(rate_fps: float, num_frames: int) -> Times:
    return Times([i / rate_fps for i in range(num_frames)], num_frames / rate_fps)


def frames_at(video: VideoReader, times_us: np.ndarray) -> tuple[list[int], list[bool]]:
    indices, outside = video.index_at(times_us / 1e6)
    return indices.tolist(), outside.tolist()


@pytest.mark.parametrize(
    ("rate_fps", "indices"),
    [
        # 8 frames 1/30 s apart round 2 s: 1.866…, 1.9, 1.933…, 1.966…, 2, 2.033…, 2.066…, 2.1 s
        (60, [112, 114, 116, 118, 120, 122, 124, 126]),
        (50, [93, 95, 96, 98, 100, 101, 103, 105]),
        # At 25 fps some frames come twice: 1.866 · 25 = 46.7, 47.5, 48.3, 49.2, 50, 50.8, …
        (25, [46, 47, 48, 49, 50, 50, 51, 52]),
        # At 29.97: 55.94, 56.94, 57.94, 58.94, 59.94, 60.94, 61.94, 62.94
        (30_000 / 1001, [55, 56, 57, 58, 59, 60, 61, 62]),
    ],
)
def test_a_clip_in_files_of_constant_rate(rate_fps: float, indices: list[int]) -> None:
    times = clip_times_us(2_000_000, frames=8, stride=2, rate_fps=60.0)
    got, outside = frames_at(constant(rate_fps, 300), times)
    assert got == indices
    assert not any(outside)


def test_the_papers_clip_in_a_file_of_60_frames_a_second() -> None:
    times = clip_times_us(5_000_000, frames=64, stride=2, rate_fps=60.0)
    got, _ = frames_at(constant(60, 600), times)
    assert got == list(range(236, 364, 2))  # 300 - 64 to 300 + 62


def test_a_file_of_variable_rate() -> None:
    # Frames on screen from 0, 0.1, 0.2, 1.0, 1.05, 2.0 s until 2.2 s.
    video = Times([0.0, 0.1, 0.2, 1.0, 1.05, 2.0], 2.2)
    times = clip_times_us(1_000_000, frames=6, stride=2, rate_fps=5.0)
    assert times.tolist() == [-200_000, 200_000, 600_000, 1_000_000, 1_400_000, 1_800_000]
    assert frames_at(video, times) == ([0, 2, 2, 3, 4, 4], [True] + [False] * 5)


def test_times_beyond_the_end_take_the_last_frame() -> None:
    times = grid_times_us(1_000_000, window_seconds=4.0, rate_fps=2.0)  # -1.0 to 2.5 s
    got, outside = frames_at(constant(10, 20), times)  # 2 s, frames 0 to 19
    assert got == [0, 0, 0, 5, 10, 15, 19, 19]
    assert outside == [True, True, False, False, False, False, True, True]


def epic_folder(folder: Path, video_id: str, num_frames: int) -> FramesReader:
    from PIL import Image

    for number in range(1, num_frames + 1):
        Image.new("RGB", (8, 4)).save(folder / f"frame_{number:010d}.jpg")
    return FramesReader(folder, frame_rate_fps=epic_rate_fps(video_id))


@pytest.mark.parametrize(
    ("video_id", "numbers"),
    [
        # floor(seconds · 60) of 0.3667, 0.4, 0.4333, 0.4667, 0.5, 0.5333, 0.5667, 0.6 s
        ("P01_01", [22, 24, 26, 28, 30, 32, 34, 36]),
        # floor(seconds · 50) of the same
        ("P01_101", [18, 20, 21, 23, 25, 26, 28, 30]),
    ],
)
def test_a_clip_in_epics_folders_of_frames(
    tmp_path: Path, video_id: str, numbers: list[int]
) -> None:
    video = epic_folder(tmp_path, video_id, 60)
    times = clip_times_us(500_000, frames=8, stride=2, rate_fps=60.0)
    assert times[0] == 366_667
    indices, _ = frames_at(video, times)
    assert [index + 1 for index in indices] == numbers  # files are numbered from 1


def test_open_door_of_the_official_labels() -> None:
    # 0.14 to 3.37 s are frames 8 to 202 of the official folder.
    frame_times = np.arange(1, 301) / epic_rate_fps("P01_01")
    frame_times[0] = 0.0
    video = Times(frame_times.tolist(), 301 / 60)
    indices, _ = video.index_at([0.14, 3.37])
    assert (indices + 1).tolist() == [8, 202]
