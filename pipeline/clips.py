"""Segments → clips → frame times. Pure arithmetic; nothing here opens a video.

Times are int64 microseconds from the first frame, so that they hash and compare exactly. Seconds
are the truth; a reader turns them into frame indices of its own file or folder.

A clip of ``frames`` frames with ``stride`` at a nominal rate R has its frame i at

    centre + (i - frames // 2) * stride / R          0 <= i < frames

    frames = 8, stride = 2:   f . f . f . f . C . f . f . f      C = the centre, a frame itself

A segment from ``start`` to ``stop`` that is tested on V clips is cut into V equal parts; view i is
centred in the middle of part i:

    start + (i + 0.5) / V * (stop - start)           0 <= i < V

    V = 1:  |---------C---------|     V = 3:  |---C------C------C---|

Guesses where the papers are silent: the centre is frame ``frames // 2``; the grid of object frames
starts at time 0 and a window holds the grid times in [centre - W/2, centre + W/2); the clips of
multi-clip testing ("uniformly sampled") are centred as above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.segments import Segment

__all__ = [
    "Clip",
    "clip_times_us",
    "grid_times_us",
    "make_clips",
    "spread_clip",
    "training_clip",
    "window_times_us",
]

MICROSECONDS = 1_000_000
Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clip:
    """One view of a segment: a moment to look at. ``centre_us``: microseconds."""

    segment: Segment
    view: int
    centre_us: int

    @property
    def clip_id(self) -> str:
        """``video_id/segment_id/view``: how people name it; never a path, never a key."""
        return f"{self.segment.video_id}/{self.segment.segment_id}/{self.view}"


def make_clips(
    segments: Iterable[Segment], *, train_views: int, seed: int, test_views: int = 1
) -> list[Clip]:
    """The clips of segments: random centres to train on, evenly spread ones to test on.

    A training centre depends on the seed, the segment's id and the view alone: adding a segment or
    a view moves no other.
    """
    clips = []
    for segment in segments:
        if segment.split == "train":
            clips += [training_clip(segment, view, seed=seed) for view in range(train_views)]
        else:
            clips += [spread_clip(segment, view, views=test_views) for view in range(test_views)]
    return clips


def training_clip(segment: Segment, view: int, *, seed: int) -> Clip:
    """A clip whose centre is uniform in the segment, a function of seed, segment and view alone."""
    fraction = _uniform(f"{seed}/{segment.video_id}/{segment.segment_id}/{view}")
    length = segment.stop_seconds - segment.start_seconds
    return Clip(segment, view, round((segment.start_seconds + fraction * length) * MICROSECONDS))


def spread_clip(segment: Segment, view: int, *, views: int) -> Clip:
    """A clip in the middle of part ``view`` of ``views`` equal parts of the segment.

    The middle view of an odd number is to the microsecond that of one view, and finds its rows.
    """
    middle = (segment.start_seconds + segment.stop_seconds) / 2
    length = segment.stop_seconds - segment.start_seconds
    from_middle = ((2 * view + 1) / views - 1) * length / 2
    return Clip(segment, view, round((middle + from_middle) * MICROSECONDS))


def clip_times_us(
    centre_us: int | Times,
    *,
    frames: int,
    stride: int,
    rate_fps: float,
    before: int = 0,
    after: int = 0,
) -> Times:
    """Times of a clip's frames: (..., frames) int64 microseconds; may lie outside the video.

    ``centre_us``: of one clip, or (n,) of many. ``before`` and ``after``: so many more frames on
    either side.
    """
    steps = np.arange(-before, frames + after, dtype=np.int64) - frames // 2
    return _column(centre_us) + _round(steps * (stride * MICROSECONDS / rate_fps))


def window_times_us(centre_us: int | Times, *, window_seconds: float, rate_fps: float) -> Times:
    """Times spread evenly round a centre, or (n,) centres: (..., window · rate) int64 µs."""
    count = round(window_seconds * rate_fps)
    steps = np.arange(count) - (count - 1) / 2
    return _column(centre_us) + _round(steps * (MICROSECONDS / rate_fps))


def grid_times_us(centre_us: int | Times, *, window_seconds: float, rate_fps: float) -> Times:
    """Times of the video's own grid in a window, or (n,): (..., window · rate) int64 microseconds.

    Neighbouring clips get the very same times, so each frame is detected once. A narrower window
    is the middle part of a wider one whenever half their difference is a whole number of steps.
    """
    count = round(window_seconds * rate_fps)
    slack_steps = min(1e-6, 0.5 / MICROSECONDS * rate_fps)  # half a microsecond at most
    first = np.ceil(
        (_column(centre_us) / MICROSECONDS - window_seconds / 2) * rate_fps - slack_steps
    )
    return _round((first + np.arange(count)) * (MICROSECONDS / rate_fps))


def _column(centre_us: int | Times) -> Times:
    """(..., 1) int64."""
    return np.asarray(centre_us, dtype=np.int64)[..., None]


def _round(microseconds: npt.NDArray[np.floating[Any]]) -> Times:
    rounded: Times = np.rint(microseconds).astype(np.int64)
    return rounded


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
