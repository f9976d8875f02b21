"""One pass over a video serves every row of every stage that misses it.

Frames come in order, each at most once. A frame is resized once per size asked for and kept only
until the last row that needs it is complete, so memory depends on how far clips overlap and not on
how long the video is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extractors.transforms import resize_frame
from extractors.video import VideoReader
from pipeline.rows import VideoRow

__all__ = ["DecodedRow", "FrameRequest", "decode_pass"]

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """A row of a stage, and the size its frames are wanted in (None: native)."""

    stage: str
    row: VideoRow
    size_px: int | None


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """The frames of a row: a list of (H, W, 3) uint8, one per time of the row.

    ``clamped``: some times lie outside the video and the nearest frame stands in.
    """

    request: FrameRequest
    frames: list[Frame]
    clamped: bool


@dataclass(frozen=True, slots=True)
class _Pending:
    request: FrameRequest
    indices: npt.NDArray[np.int64]
    clamped: bool

    @property
    def last(self) -> int:
        return int(self.indices.max())

    def uses(self) -> list[tuple[int | None, int]]:
        return [(self.request.size_px, int(index)) for index in np.unique(self.indices)]


def decode_pass(reader: VideoReader, requests: Sequence[FrameRequest]) -> Iterator[DecodedRow]:
    """Yield each row as soon as its last frame is decoded.

    Raises:
        VideoError: a frame cannot be decoded; rows yielded before are good.
    """
    pending = sorted((_resolve(reader, request) for request in requests), key=lambda p: p.last)
    uses = Counter(use for item in pending for use in item.uses())
    sizes: dict[int, set[int | None]] = {}
    for size_px, index in uses:
        sizes.setdefault(index, set()).add(size_px)
    kept: dict[tuple[int | None, int], Frame] = {}
    position = 0
    for index, frame in reader.frames(np.array(sorted(sizes), dtype=np.int64)):
        for size_px in sizes[index]:
            kept[size_px, index] = frame if size_px is None else resize_frame(frame, size_px)
        while position < len(pending) and pending[position].last <= index:
            yield _complete(pending[position], kept, uses)
            position += 1


def _resolve(reader: VideoReader, request: FrameRequest) -> _Pending:
    indices, outside = reader.index_at(request.row.times_us / 1e6)
    return _Pending(request, indices, bool(outside.any()))


def _complete(
    item: _Pending,
    kept: dict[tuple[int | None, int], Frame],
    uses: Counter[tuple[int | None, int]],
) -> DecodedRow:
    frames = [kept[item.request.size_px, int(index)] for index in item.indices]
    for use in item.uses():
        uses[use] -= 1
        if uses[use] == 0:
            del kept[use]
    return DecodedRow(item.request, frames, item.clamped)
