"""One pass over a video serves every row of every stage that misses it.

Frames come in order, each at most once. A frame is resized once per geometry asked for and kept
only until the last row that needs it is complete, so memory depends on how far clips overlap and
not on how long the video is. A frame that cannot be decoded costs the rows that want it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extractors.geometry import Geometry
from extractors.video import FrameDecodeError, VideoReader
from pipeline.rows import VideoRow
from pipeline.timings import Timings

__all__ = ["DecodedRow", "FrameRequest", "SpoiltRow", "decode_all", "decode_pass"]

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """A row of a stage, and how its frames are wanted (None: native)."""

    stage: str
    row: VideoRow
    geometry: Geometry | None


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """The frames of a row: one (H, W, C) uint8 per time of the row.

    ``clamped``: some times lie outside the video and the nearest frame stands in. ``timings``: what
    the row's stage cost in this pass since its last row.
    """

    stage: str
    row: VideoRow
    frames: Sequence[Frame]
    clamped: bool
    timings: Timings


@dataclass(frozen=True, slots=True)
class SpoiltRow:
    """A row that wants a frame that cannot be decoded: the first such frame, as `error` names."""

    stage: str
    row: VideoRow
    error: FrameDecodeError


def decode_pass(
    reader: VideoReader,
    requests: Sequence[FrameRequest],
    *,
    opening_seconds: float = 0.0,
) -> Iterator[DecodedRow | SpoiltRow]:
    """Yield each row as soon as its last frame is decoded, or one cannot be.

    Args:
        reader: the video.
        requests: the rows.
        opening_seconds: what opening the video took; counted as decoding.

    Raises:
        VideoError: the video changed; rows yielded before are good.
    """
    rows = [_OpenRow(reader, request) for request in requests]
    if not rows:
        return
    waiting: defaultdict[int, list[_OpenRow]] = defaultdict(list)  # by the next frame they want
    for row in rows:
        waiting[row.next_index].append(row)
    wanted = np.unique(np.concatenate([row.indices for row in rows]))
    rows.clear()
    costs: defaultdict[str, Timings] = defaultdict(Timings)
    started = time.perf_counter() - opening_seconds
    for index, frame in reader.outcomes(wanted):
        takers = waiting.pop(index, [])
        if isinstance(frame, FrameDecodeError):
            for row in takers:
                yield row.spoilt(frame)
            continue
        if not takers:  # those that wanted it are spoilt
            continue
        _share(costs, {row.stage for row in takers}, "decode_seconds", started)
        _hand_out(frame, takers, costs)
        for row in takers:
            if row.is_complete:
                yield row.decoded(costs.pop(row.stage, Timings()))
            else:
                waiting[row.next_index].append(row)
        started = time.perf_counter()


def decode_all(reader: VideoReader, requests: Sequence[FrameRequest]) -> Iterator[DecodedRow]:
    """As `decode_pass`, for those who need every row.

    Raises:
        VideoError: as `decode_pass`, or a frame cannot be decoded.
    """
    for row in decode_pass(reader, requests):
        if isinstance(row, SpoiltRow):
            raise row.error
        yield row


class _OpenRow:
    """A row and the frames it has so far; what several rows want, they hold in common."""

    def __init__(self, reader: VideoReader, request: FrameRequest) -> None:
        at, outside = reader.index_at(request.row.times_us / 1e6)
        self.stage = request.stage
        self.geometry = request.geometry
        self.indices, self._places = np.unique(at, return_inverse=True)
        self._row = request.row
        self._clamped = bool(outside.any())
        self._frames: list[Frame] = []

    @property
    def is_complete(self) -> bool:
        return len(self._frames) == len(self.indices)

    @property
    def next_index(self) -> int:
        return int(self.indices[len(self._frames)])

    def take(self, frame: Frame) -> None:
        self._frames.append(frame)

    def decoded(self, timings: Timings) -> DecodedRow:
        frames = [self._frames[place] for place in self._places]
        return DecodedRow(self.stage, self._row, frames, self._clamped, timings)

    def spoilt(self, error: FrameDecodeError) -> SpoiltRow:
        return SpoiltRow(self.stage, self._row, error)


def _hand_out(frame: Frame, takers: Sequence[_OpenRow], costs: dict[str, Timings]) -> None:
    """Give a frame to the rows that want it, in each geometry once."""
    by_geometry: dict[Geometry | None, list[_OpenRow]] = {}
    for row in takers:
        by_geometry.setdefault(row.geometry, []).append(row)
    for geometry, rows in by_geometry.items():
        started = time.perf_counter()
        seen = frame if geometry is None else geometry.apply(frame)
        _share(costs, {row.stage for row in rows}, "transform_seconds", started)
        for row in rows:
            row.take(seen)


def _share(costs: dict[str, Timings], stages: set[str], what: str, started: float) -> None:
    """Stages that share work share its time."""
    seconds = (time.perf_counter() - started) / len(stages)
    for stage in stages:
        setattr(costs[stage], what, getattr(costs[stage], what) + seconds)
