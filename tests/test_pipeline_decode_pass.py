from __future__ import annotations

import gc
import weakref
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extractors import transforms
from extractors.geometry import square
from extractors.video import FrameDecodeError, VideoReader
from extractors.video_reader import Outcome
from pipeline.decode_pass import DecodedRow, FrameRequest, SpoiltRow, decode_all, decode_pass
from pipeline.rows import VideoRow

WIDTH_PX, HEIGHT_PX = 6, 4


class FakeVideo(VideoReader):
    """Ten frames a second, each filled with its own number; says what it was asked for."""

    reader_name = "fake"

    def __init__(self, num_frames: int, broken: Sequence[int] = ()) -> None:
        super().__init__(
            path=Path("fake.mp4"),
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
            timestamps_seconds=np.arange(num_frames) / 10,
            duration_seconds=num_frames / 10,
            time_tolerance_seconds=1e-3,
        )
        self.broken = broken
        self.decoded: list[int] = []
        self.num_alive = 0
        self.most_alive = 0

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        for index in wanted:
            if index in self.broken:
                yield index, FrameDecodeError(f"frame {index} is broken", index)
                continue
            self.decoded.append(index)
            frame = np.zeros((HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
            frame[...] = (index % 256, index // 256, 0)
            self.num_alive += 1
            self.most_alive = max(self.most_alive, self.num_alive)
            weakref.finalize(frame, self._forget)
            yield index, frame
            del frame

    def _forget(self) -> None:
        self.num_alive -= 1


def request(
    name: str, frames: Sequence[float], *, stage: str = "verb", size_px: int | None = None
) -> FrameRequest:
    """A row that looks at the middles of frames; fractions, negatives and beyond are allowed."""
    times = np.array([round((frame + 0.5) * 100_000) for frame in frames], dtype=np.int64)
    row = VideoRow(name, "v", "s", 0, f"v/{name}", times, 0.0, 1.0)
    return FrameRequest(stage, row, None if size_px is None else square(size_px))


def numbers(row: DecodedRow) -> list[int]:
    return [int(frame[0, 0, 0]) + 256 * int(frame[0, 0, 1]) for frame in row.frames]


def test_frames_come_by_index_and_rows_as_soon_as_they_are_whole() -> None:
    video = FakeVideo(30)
    requests = [
        request("late", [20, 22, 24]),
        request("early", [2, 4, 6, 8]),
        request("within", [4, 5]),
    ]
    rows = []
    for row in decode_pass(video, requests):
        rows.append((row.row.key, numbers(row), video.decoded[-1], row.clamped))
    assert rows == [
        ("within", [4, 5], 5, False),
        ("early", [2, 4, 6, 8], 8, False),
        ("late", [20, 22, 24], 24, False),
    ]
    assert video.decoded == [2, 4, 5, 6, 8, 20, 22, 24]  # each needed frame once, no other


def test_all_stages_share_one_pass() -> None:
    video = FakeVideo(30)
    requests = [
        request("a", [1, 3, 5, 7], stage="verb", size_px=2),
        request("a", [1, 3, 5, 7], stage="noun", size_px=3),
        request("b", [5], stage="objects"),
        request("c", [7], stage="objects"),
    ]
    got = {(r.stage, r.row.key): r for r in decode_pass(video, requests)}
    assert video.decoded == [1, 3, 5, 7]
    assert numbers(got["verb", "a"]) == numbers(got["noun", "a"]) == [1, 3, 5, 7]
    assert {f.shape for f in got["verb", "a"].frames} == {(2, 2, 3)}
    assert {f.shape for f in got["noun", "a"].frames} == {(3, 3, 3)}
    assert got["objects", "b"].frames[0].shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert numbers(got["objects", "c"]) == [7]


def test_a_frame_is_resized_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[tuple[int, int]] = []
    resize_frame = transforms.resize_frame

    def counting(frame: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        resized.append((int(frame[0, 0, 0]), size_px[0]))
        return resize_frame(frame, size_px[0])

    monkeypatch.setattr(transforms, "resize_frame", counting)
    requests = [
        request("a", [1, 2], stage="verb", size_px=2),
        request("a", [1, 2], stage="noun", size_px=2),
        request("b", [2, 2, 3], stage="verb", size_px=2),
        request("c", [2], stage="other", size_px=5),
        request("d", [2], stage="objects"),
    ]
    list(decode_pass(FakeVideo(10), requests))
    assert sorted(resized) == [(1, 2), (2, 2), (2, 5), (3, 2)]


def test_pixels_are_those_of_resizing_each_frame_alone() -> None:
    class Textured(FakeVideo):
        def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
            for index in wanted:
                yield index, picture(index)

    def picture(index: int) -> NDArray[np.uint8]:
        shape = (HEIGHT_PX, WIDTH_PX, 3)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)

    (row,) = decode_pass(Textured(10), [request("a", [3, 5], size_px=3)])
    for frame, index in zip(row.frames, (3, 5), strict=True):
        np.testing.assert_array_equal(frame, transforms.resize_frame(picture(index), 3))


def test_times_outside_the_video_take_its_nearest_frame() -> None:
    requests = [
        request("before", [-3, -1, 0, 1]),
        request("after", [8, 9, 10, 11]),
        request("inside", [0, 9]),
        request("nowhere", [50]),
    ]
    rows = {row.row.key: row for row in decode_pass(FakeVideo(10), requests)}
    assert numbers(rows["before"]) == [0, 0, 0, 1]
    assert numbers(rows["after"]) == [8, 9, 9, 9]
    assert numbers(rows["nowhere"]) == [9]
    assert {key: row.clamped for key, row in rows.items()} == {
        "before": True,
        "after": True,
        "inside": False,
        "nowhere": True,
    }


def test_times_in_any_order_and_several_times() -> None:
    (row,) = decode_pass(FakeVideo(10), [request("a", [5, 2, 5, 5, 1])])
    assert numbers(row) == [5, 2, 5, 5, 1]


def test_no_rows_decode_nothing() -> None:
    video = FakeVideo(10)
    assert list(decode_pass(video, [])) == []
    assert video.decoded == []


def test_a_broken_frame_costs_the_rows_that_want_it() -> None:
    video = FakeVideo(30, broken=(7, 9))
    requests = [
        request("a", [1, 5]),
        request("b", [5, 7, 8, 9]),
        request("c", [6]),
        request("d", [8, 9, 20]),
        request("e", [7], stage="objects"),
        request("f", [8, 20]),
    ]
    got = [
        (row.row.key, row.error.frame if isinstance(row, SpoiltRow) else None)
        for row in decode_pass(video, requests)
    ]
    assert got == [("a", None), ("c", None), ("e", 7), ("b", 7), ("d", 9), ("f", None)]


def test_who_needs_every_row_is_told_of_a_broken_frame() -> None:
    rows = decode_all(FakeVideo(30, broken=[7]), [request("a", [1]), request("b", [7])])
    assert next(rows).row.key == "a"
    with pytest.raises(FrameDecodeError, match="frame 7 is broken"):
        next(rows)


def test_memory_depends_on_overlap_and_not_on_length() -> None:
    video = FakeVideo(10_000)
    # 1,250 clips of 8 frames, a clip every 8 frames: two stages share each, none overlaps another.
    requests = [
        request(f"{stage}{start}", range(start, start + 8), stage=stage)
        for start in range(0, 10_000, 8)
        for stage in ("verb", "noun")
    ]
    count = 0
    for row in decode_pass(video, requests):
        count += 1
        del row
    assert count == 2_500
    assert len(video.decoded) == 10_000
    # The eight of a clip, and one that the reader is about to hand over.
    assert video.most_alive <= 9
    gc.collect()
    assert video.num_alive == 0


def test_frames_of_long_and_short_rows_go_one_by_one() -> None:
    video = FakeVideo(2_000)
    long = request("long", range(0, 2_000, 100))  # 20 frames over the whole video
    short = [request(f"s{i}", [i]) for i in range(2_000)]
    for row in decode_pass(video, [long, *short]):
        del row
    assert video.most_alive <= 20 + 2


def test_rows_in_no_hurry_may_be_kept_by_the_reader() -> None:
    rows = list(decode_pass(FakeVideo(50), [request(str(i), [i, i + 1]) for i in range(49)]))
    assert [numbers(row) for row in rows] == [[i, i + 1] for i in range(49)]


def test_stopping_early_releases_the_decoder() -> None:
    closed = []

    class Watched(FakeVideo):
        def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
            try:
                yield from super()._decode(wanted)
            finally:
                closed.append(True)

    rows = decode_pass(Watched(50), [request(str(i), [i]) for i in range(50)])
    next(rows)
    assert closed == []
    rows.close()  # type: ignore[attr-defined]
    assert closed == [True]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    clips=st.lists(
        st.tuples(
            st.lists(st.integers(-4, 25), min_size=1, max_size=6),
            st.sampled_from([None, 2, 3]),
        ),
        max_size=8,
    )
)
def test_every_row_gets_exactly_its_frames(
    clips: list[tuple[list[int], int | None]],
) -> None:
    video = FakeVideo(20)
    requests = [request(str(i), frames, size_px=size) for i, (frames, size) in enumerate(clips)]
    rows = {row.row.key: row for row in decode_pass(video, requests)}
    assert len(rows) == len(clips)
    for i, (frames, size) in enumerate(clips):
        row = rows[str(i)]
        assert numbers(row) == [min(max(frame, 0), 19) for frame in frames]
        assert row.clamped == (min(frames) < 0 or max(frames) > 19)
        height, width = (size, size) if size else (HEIGHT_PX, WIDTH_PX)
        assert {frame.shape for frame in row.frames} == {(height, width, 3)}
    assert len(video.decoded) == len(set(video.decoded))
