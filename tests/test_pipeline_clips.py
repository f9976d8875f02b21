from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clips import (
    clip_times_us,
    grid_times_us,
    make_clips,
    spread_clip,
    training_clip,
    window_times_us,
)
from pipeline.segments import Segment


def segment(name: str, split: str = "train", start: float = 1.0, stop: float = 3.0) -> Segment:
    return Segment(name, "P01_01", "P01", start, stop, 0, 0, split)


def test_eight_frames_every_other_frame_of_60_a_second() -> None:
    # Two frames of 60 a second are 33,333.3 µs; the centre is frame 4 of 0 to 7.
    times = clip_times_us(1_000_000, frames=8, stride=2, rate_fps=60.0)
    assert times.tolist() == [
        866_667,
        900_000,
        933_333,
        966_667,
        1_000_000,
        1_033_333,
        1_066_667,
        1_100_000,
    ]
    assert times.dtype == np.int64


def test_the_papers_clip_of_64_frames() -> None:
    times = clip_times_us(10_000_000, frames=64, stride=2, rate_fps=60.0)
    assert len(times) == 64
    assert times[0] == 8_933_333  # 32 steps of 1/30 s before the centre
    assert times[32] == 10_000_000
    assert times[63] == 11_033_333  # 31 steps after it
    assert set(np.diff(times)) == {33_333, 33_334}


def test_an_odd_number_of_frames_lies_evenly_round_the_centre() -> None:
    times = clip_times_us(500_000, frames=3, stride=4, rate_fps=50.0)
    assert times.tolist() == [420_000, 500_000, 580_000]


def test_a_clip_of_one_frame_is_its_centre() -> None:
    assert clip_times_us(7, frames=1, stride=9, rate_fps=1.0).tolist() == [7]


def test_clips_may_begin_before_the_video() -> None:
    assert clip_times_us(0, frames=4, stride=1, rate_fps=10.0).tolist() == [
        -200_000,
        -100_000,
        0,
        100_000,
    ]


def test_window_times_lie_evenly_round_the_centre() -> None:
    # 12 frames half a second apart: 5.5 steps before the centre to 5.5 steps after it.
    times = window_times_us(10_100_000, window_seconds=6.0, rate_fps=2.0)
    assert times.tolist() == [7_350_000 + 500_000 * i for i in range(12)]
    narrow = window_times_us(10_100_000, window_seconds=4.0, rate_fps=2.0)
    assert narrow.tolist() == times.tolist()[2:10]


@pytest.mark.parametrize(
    ("centre_us", "first_us"),
    [
        (10_000_000, 7_000_000),  # on the grid: [7, 13) holds 7.0 to 12.5
        (10_000_001, 7_500_000),  # [7.000001, 13.000001) holds 7.5 to 13.0
        (10_250_000, 7_500_000),
        (10_499_999, 7_500_000),
        (10_500_000, 7_500_000),
        (10_500_001, 8_000_000),
        (9_999_999, 7_000_000),
        (0, -3_000_000),
        (250_000, -2_500_000),
    ],
)
def test_grid_times(centre_us: int, first_us: int) -> None:
    times = grid_times_us(centre_us, window_seconds=6.0, rate_fps=2.0)
    assert times.tolist() == [first_us + 500_000 * i for i in range(12)]
    assert times.dtype == np.int64


@pytest.mark.parametrize("rate_fps", [0.25, 0.5, 1.0, 1.25])
def test_a_microsecond_counts_on_coarse_grids_too(rate_fps: float) -> None:
    step_us = round(1e6 / rate_fps)
    for centre_us in (1_600_000_000, 1_600_000_001):  # on each of these grids, and just behind
        times = grid_times_us(centre_us, window_seconds=8.0, rate_fps=rate_fps)
        late = centre_us % 2
        assert times[0] == 1_600_000_000 - 4_000_000 + late * step_us


def test_a_grid_that_microseconds_cannot_hold_is_rounded_the_same_everywhere() -> None:
    # Thirds of a second: 1,666,667 stands for 5/3 in both windows.
    times = grid_times_us(2_000_000, window_seconds=2.0, rate_fps=3.0)
    assert times.tolist() == [1_000_000, 1_333_333, 1_666_667, 2_000_000, 2_333_333, 2_666_667]
    later = grid_times_us(3_000_000, window_seconds=2.0, rate_fps=3.0)
    assert later.tolist()[:3] == times.tolist()[3:]


@settings(max_examples=200, derandomize=True)
@given(centre_us=st.integers(0, 20_000_000_000))
def test_the_local_window_is_the_middle_of_the_global_one(centre_us: int) -> None:
    wide = grid_times_us(centre_us, window_seconds=6.0, rate_fps=2.0)
    narrow = grid_times_us(centre_us, window_seconds=4.0, rate_fps=2.0)
    assert narrow.tolist() == wide[2:10].tolist()
    assert (wide % 500_000 == 0).all()
    assert wide[0] >= centre_us - 3_000_000
    assert wide[-1] < centre_us + 3_000_000
    assert len(wide) == 12


@settings(max_examples=100, derandomize=True)
@given(centre_us=st.integers(0, 20_000_000_000), rate_fps=st.sampled_from([0.5, 1.0, 4.0, 5.0]))
def test_a_window_holds_every_grid_time_in_it(centre_us: int, rate_fps: float) -> None:
    step_us = round(1e6 / rate_fps)
    times = grid_times_us(centre_us, window_seconds=8.0, rate_fps=rate_fps)
    first = -(-(centre_us - 4_000_000) // step_us) * step_us
    assert times.tolist() == [first + step_us * i for i in range(round(8 * rate_fps))]


@settings(max_examples=100, derandomize=True)
@given(name=st.text(max_size=8), view=st.integers(0, 50), seed=st.integers(0, 10**9))
def test_training_centres_lie_in_the_segment(name: str, view: int, seed: int) -> None:
    clip = training_clip(segment(name, start=1.25, stop=1.5), view, seed=seed)
    assert 1_250_000 <= clip.centre_us <= 1_500_000
    assert clip.view == view


def test_centres_depend_on_seed_segment_and_view_alone() -> None:
    few = make_clips([segment("a"), segment("b")], train_views=2, seed=3)
    many = make_clips([segment("x"), segment("b"), segment("a")], train_views=5, seed=3)
    by_id = {clip.clip_id: clip.centre_us for clip in many}
    assert [clip.clip_id for clip in few] == [
        "P01_01/a/0",
        "P01_01/a/1",
        "P01_01/b/0",
        "P01_01/b/1",
    ]
    assert all(by_id[clip.clip_id] == clip.centre_us for clip in few)
    assert len(set(by_id.values())) == 15
    other_seed = make_clips([segment("a")], train_views=2, seed=4)
    assert {clip.centre_us for clip in other_seed}.isdisjoint(by_id.values())


def test_a_centre_never_changes() -> None:
    # Seed, video, segment, view: the first 56 bits of their sha256 choose a point of the 2 s.
    fraction = int(hashlib.sha256(b"3/P01_01/a/0").hexdigest()[:14], 16) / 2**56
    (clip,) = make_clips([segment("a")], train_views=1, seed=3)
    assert clip.centre_us == round(1_000_000 + 2_000_000 * fraction)


def test_training_centres_spread_over_the_segment() -> None:
    centres = [c.centre_us for c in make_clips([segment("a")], train_views=4000, seed=0)]
    counts, _ = np.histogram(centres, bins=10, range=(1_000_000, 3_000_000))
    # 400 expected in each tenth; 60 is more than three standard deviations (19) away.
    assert (abs(counts - 400) < 60).all()
    assert counts.sum() == 4000


@pytest.mark.parametrize("split", ["val", "test"])
def test_others_get_one_clip_in_the_middle(split: str) -> None:
    (clip,) = make_clips([segment("a", split, 0.14, 3.37)], train_views=7, seed=1)
    assert (clip.view, clip.centre_us) == (0, 1_755_000)


def test_test_clips_lie_in_the_middles_of_equal_parts() -> None:
    clips = make_clips(
        [segment("a", "val", 1.0, 3.0), segment("b", "train")], train_views=1, test_views=4, seed=0
    )
    assert [(c.clip_id, c.centre_us) for c in clips[:4]] == [
        ("P01_01/a/0", 1_250_000),
        ("P01_01/a/1", 1_750_000),
        ("P01_01/a/2", 2_250_000),
        ("P01_01/a/3", 2_750_000),
    ]
    assert len(clips) == 5


@given(
    start=st.floats(0, 40_000), length=st.floats(0.01, 100), parts=st.integers(0, 10), i=st.data()
)
def test_test_clips_are_where_the_formula_says(
    start: float, length: float, parts: int, i: st.DataObject
) -> None:
    views = 2 * parts + 1
    view = i.draw(st.integers(0, views - 1))
    long = segment("a", "val", start, start + length)
    expected = start + (view + 0.5) / views * (long.stop_seconds - start)
    assert spread_clip(long, view, views=views).centre_us == pytest.approx(expected * 1e6, abs=1)
    # An odd number finds the rows of one view, whatever rounding does.
    (middle,) = make_clips([long], train_views=1, seed=0)
    assert spread_clip(long, parts, views=views).centre_us == middle.centre_us
    assert middle.centre_us == round((start + long.stop_seconds) / 2 * 1e6)


def test_a_moved_segment_moves_its_clips_with_it() -> None:
    early = training_clip(segment("a", start=1, stop=3), 0, seed=0)
    late = training_clip(segment("a", start=11, stop=13), 0, seed=0)
    assert late.centre_us == early.centre_us + 10_000_000
