"""What is handed out and what comes back: videos with the rows they miss, and how far it got."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.rows import DerivedRow, VideoRow
from pipeline.timings import Timings
from pipeline.videos import Video
from stores.base import Failure, Receipt, Row

__all__ = ["Finished", "Progress", "Unit", "UnitSummary", "VideoWork", "row_failure"]


@dataclass(frozen=True)
class VideoWork:
    """A video and the rows it misses, by stage."""

    video: Video
    rows: Mapping[str, Sequence[VideoRow]]


@dataclass(frozen=True)
class Unit:
    """What a worker does without asking anybody.

    Attributes:
        number: no other unit of the run has it; what is tried again is a new unit.
        videos: in the order they are decoded.
        shards: by stage, numbers of shards that nobody else writes, in order.
        early_shards: of each stage, how many shards may be closed before they are full; None is
            as many as it takes.
    """

    number: int
    videos: Collection[VideoWork]
    shards: Mapping[str, Iterable[int]]
    early_shards: int | None = None


@dataclass(frozen=True)
class UnitSummary:
    """What a unit cost one stage; comes last.

    ``batch_size``: rows per forward pass that were left of those wanted.
    """

    timings: Timings
    batch_size: int


@dataclass(frozen=True)
class Progress:
    """What has been done since it was last said, for one stage.

    ``computed``: rows that went through the network and wait for their shard to be full;
    ``receipt``: names rows that are on disk now; ``failures``: rows that cannot be made;
    ``unit``: number of the unit they are of, once that is known.
    """

    stage: str
    computed: int = 0
    receipt: Receipt | None = None
    failures: Sequence[Failure] = ()
    summary: UnitSummary | None = None
    unit: int = 0


@dataclass(frozen=True)
class Finished:
    """A unit is done, or ended early as told."""

    unit: int


def row_failure(row: VideoRow | DerivedRow | Row, error: BaseException) -> Failure:
    """The record of a row that cannot be made, or cannot be stored."""
    named = row if isinstance(row, VideoRow) else row.info
    return Failure(
        row_key=row.key,
        clip_id=named.clip_id,
        video_id=named.video_id,
        error_class=type(error).__name__,
        message=str(error),
        frame=getattr(error, "frame", None),
    )
