"""A row that a stage is asked for: what to look at, and how people will know it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from extractors.base import GivenBoxes
from stores.base import RowInfo

__all__ = ["CLAMPED", "DerivedRow", "VideoRow"]

# Flag of rows some of whose times lie outside the video: the nearest frame stands in.
CLAMPED = "clamped"


@dataclass(frozen=True, slots=True)
class VideoRow:
    """A row made from a video.

    Attributes:
        key: content key of the row.
        clip_id: how people name it.
        times_us: (n,) int64, microseconds from the first frame.
        needed_from_seconds, needed_to_seconds: the labelled stretch that asks for the row; a video
            that does not hold it is not what the annotations promise.
        boxes: given boxes of the frame, for stages that take them.
        source: which of the experiment's sources the frames are from; "" is the video.
    """

    key: str
    video_id: str
    segment_id: str
    view: int
    clip_id: str
    times_us: npt.NDArray[np.int64]
    needed_from_seconds: float
    needed_to_seconds: float
    boxes: GivenBoxes | None = None
    source: str = ""

    @property
    def source_id(self) -> str:
        """What the frames are decoded from."""
        return self.source or self.video_id

    def info(self, *, clamped: bool) -> RowInfo:
        """What the store keeps for people beside the row."""
        return RowInfo(
            clip_id=self.clip_id,
            video_id=self.video_id,
            segment_id=self.segment_id,
            view=self.view,
            first_seconds=int(self.times_us[0]) / 1e6,
            last_seconds=int(self.times_us[-1]) / 1e6,
            flags=CLAMPED if clamped else "",
        )


@dataclass(frozen=True, slots=True)
class DerivedRow:
    """A row made from other rows.

    Attributes:
        upstream: row keys by stage, in the order the stage reads them.
        times_us: int64 by stage: (F,) times of a clip's frames, (M,) of the object frames.
    """

    key: str
    info: RowInfo
    upstream: dict[str, tuple[str, ...]]
    times_us: dict[str, npt.NDArray[np.int64]] = field(repr=False)
