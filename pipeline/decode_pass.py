"""One pass over a video serves every row of every stage that misses it.

Frames come in order, each at most once. A frame is resized once per geometry asked for and kept
only until the last row that needs it is complete, so memory depends on how far clips overlap and
not on how long the video is.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extractors.geometry import Geometry
from extractors.video import VideoReader
from pipeline.rows import VideoRow
from pipeline.timings import Timings

__all__ = ["DecodedRow", "FrameRequest", "decode_pass"]

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
class _Pending:
    request: FrameRequest
    indices: npt.NDArray[np.int64]
    clamped: bool

    @property
    def last(self) -> int:
        return int(self.indices.max())

    def uses(self) -> list[_Use]:
        return [(self.request.geometry, int(index)) for index in np.unique(self.indices)]


_Use = tuple[Geometry | None, int]


class _Kept:
    """Frames that rows still wait for, in each geometry, and what making them cost each stage."""

    def __init__(self, pending: Sequence[_Pending]) -> None:
        self._uses = Counter(use for item in pending for use in item.uses())
        self._stages: defaultdict[int, set[str]] = defaultdict(set)
        self._geometries: defaultdict[int, dict[Geometry | None, set[str]]] = defaultdict(dict)
        for item in pending:
            for geometry, index in item.uses():
                stages = self._geometries[index].setdefault(geometry, set())
                stages.add(item.request.stage)
                self._stages[index].add(item.request.stage)
        self._frames: dict[_Use, Frame] = {}
        self._timings: defaultdict[str, Timings] = defaultdict(Timings)

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Every frame that is wanted, in order."""
        return np.array(sorted(self._stages), dtype=np.int64)

    def add(self, index: int, frame: Frame, decode_seconds: float) -> None:
        """Keep a frame as it is wanted; stages that share it share its cost."""
        stages = self._stages.pop(index)
        for stage in stages:
            self._timings[stage].decode_seconds += decode_seconds / len(stages)
        for geometry, sharing in self._geometries.pop(index).items():
            started = time.perf_counter()
            self._frames[geometry, index] = frame if geometry is None else geometry.apply(frame)
            seconds = (time.perf_counter() - started) / len(sharing)
            for stage in sharing:
                self._timings[stage].transform_seconds += seconds

    def take(self, item: _Pending) -> DecodedRow:
        """A row that is complete; frames nobody else waits for are forgotten."""
        request = item.request
        frames = [self._frames[request.geometry, int(index)] for index in item.indices]
        for use in item.uses():
            self._uses[use] -= 1
            if self._uses[use] == 0:
                del self._frames[use]
        timings = self._timings.pop(request.stage, Timings())
        return DecodedRow(request.stage, request.row, frames, item.clamped, timings)


def decode_pass(
    reader: VideoReader,
    requests: Sequence[FrameRequest],
    *,
    opening_seconds: float = 0.0,
    on_frame: Callable[[], None] | None = None,
) -> Iterator[DecodedRow]:
    """Yield each row as soon as its last frame is decoded.

    Args:
        reader: the video.
        requests: the rows.
        opening_seconds: what opening the video took; counted as decoding.
        on_frame: called after each frame that some row wants, as a sign of life.

    Raises:
        VideoError: a frame cannot be decoded; rows yielded before are good.
    """
    pending = sorted((_resolve(reader, request) for request in requests), key=lambda p: p.last)
    kept = _Kept(pending)
    position = 0
    started = time.perf_counter() - opening_seconds
    for index, frame in reader.frames(kept.indices):
        kept.add(index, frame, time.perf_counter() - started)
        if on_frame is not None:
            on_frame()
        while position < len(pending) and pending[position].last <= index:
            yield kept.take(pending[position])
            position += 1
        started = time.perf_counter()


def _resolve(reader: VideoReader, request: FrameRequest) -> _Pending:
    indices, outside = reader.index_at(request.row.times_us / 1e6)
    return _Pending(request, indices, bool(outside.any()))
