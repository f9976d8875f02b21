"""What every reader has in common: times, checked indices, no silent losses."""

import pickle
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from video_files import write_video

from extractors.video import FrameDecodeError, VideoError, VideoReader, open_video


class ScriptedReader(VideoReader):
    """Gives what it is told to."""

    path = Path("scripted")
    reader_name = "scripted"

    def __init__(
        self, times: list[float], duration: float, gives: list[NDArray[np.uint8]] | None = None
    ) -> None:
        super().__init__(
            path=Path("scripted"),
            width_px=4,
            height_px=2,
            timestamps_seconds=np.array(times),
            duration_seconds=duration,
            time_tolerance_seconds=1e-3,
        )
        self.gives = gives or []
        self.is_released = False

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
        try:
            yield from zip(wanted, self.gives, strict=False)
        finally:
            self.is_released = True


def frame(height: int = 2, width: int = 4) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


def test_index_at_gives_the_frame_on_screen() -> None:
    reader = ScriptedReader([0.0, 0.1, 0.3], 0.5)
    times = [-0.2, -0.0005, 0.0, 0.0989, 0.0991, 0.1, 0.2, 0.3, 0.4985, 0.5, 9.0]
    indices, outside = reader.index_at(times)
    assert indices.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert outside.tolist() == [True] + [False] * 8 + [True] * 2
    assert indices.dtype == np.int64
    assert outside.dtype == np.bool_


def test_index_at_keeps_the_shape_of_the_times() -> None:
    reader = ScriptedReader([0.0, 0.1], 0.2)
    indices, outside = reader.index_at(np.full((2, 3), 0.15))
    assert indices.shape == outside.shape == (2, 3)
    assert indices.min() == 1


def test_index_at_finds_every_frame_by_its_own_time(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        with open_video(write_video(tmp_path / name, num_frames=40)) as reader:
            exact, outside = reader.index_at(np.arange(40) / 30)
            assert exact.tolist() == list(range(40))
            assert not outside.any()
            rounded = np.round(reader.timestamps_seconds * 1e6) / 1e6
            assert reader.index_at(rounded)[0].tolist() == list(range(40))


@pytest.mark.parametrize("time", [np.nan, np.inf])
def test_index_at_refuses_times_that_are_none(time: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        ScriptedReader([0.0], 0.1).index_at([time])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 0], "unsorted or repeat"),
        ([1, 1], "unsorted or repeat"),
        ([0, 3], "expected 0 to 2"),
        ([-1], "expected 0 to 2"),
        ([0.5], "whole numbers"),
        ([[0, 1]], "whole numbers"),
    ],
)
def test_frames_refuses_wrong_indices_at_once(indices: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScriptedReader([0.0, 0.1, 0.2], 0.3).frames(indices)


def test_frames_never_gives_fewer_or_other_frames_silently() -> None:
    short = ScriptedReader([0.0, 0.1, 0.2], 0.3, [frame()])
    with pytest.raises(FrameDecodeError, match="before frame 2 of 3") as caught:
        list(short.frames([0, 2]))
    assert caught.value.frame == 2
    uneven = ScriptedReader([0.0, 0.1], 0.2, [frame(), frame(width=6)])
    with pytest.raises(FrameDecodeError, match=r"frame 1 of shape \(2, 6, 3\)"):
        list(uneven.frames([0, 1]))


def test_frames_releases_the_decoder_on_an_early_end() -> None:
    reader = ScriptedReader([0.0, 0.1], 0.2, [frame(), frame()])
    frames = reader.frames([0, 1])
    next(frames)
    assert not reader.is_released
    del frames
    assert reader.is_released


def test_no_indices_no_frames() -> None:
    assert list(ScriptedReader([0.0], 0.1).frames([])) == []


def test_errors_survive_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(FrameDecodeError("lost", 7)))
    assert (str(error), error.frame) == ("lost", 7)
    assert isinstance(error, VideoError)
