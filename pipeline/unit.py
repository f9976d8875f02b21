"""The work of one unit: videos in, shard files and receipts out.

This is the function that every way of running calls; it writes shard files of its own and never
touches the manifest. What it yields is to be committed by whoever called it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from extractors.base import ClipExtractor, FrameExtractor
from extractors.video import TruncatedVideo, VideoError, VideoReader
from pipeline.decode_pass import DecodedRow, FrameRequest, decode_pass
from pipeline.prefetch import prefetch
from pipeline.promises import check_length, check_segment
from pipeline.rows import VideoRow
from pipeline.stages import VideoStage
from pipeline.videos import Video
from stores.base import Failure, Receipt, RefusedRowError, Row, ShardWriter

__all__ = ["Progress", "StageWork", "Unit", "VideoWork", "run_unit"]


@dataclass(frozen=True)
class VideoWork:
    """A video and the rows it misses, by stage."""

    video: Video
    rows: Mapping[str, Sequence[VideoRow]]


@dataclass(frozen=True)
class Unit:
    """Videos to go through, and the first of the shard numbers set aside for each stage."""

    videos: Sequence[VideoWork]
    first_shard: Mapping[str, int]


@dataclass(frozen=True)
class Progress:
    """What a unit has done since it last said so, for one stage.

    ``computed``: rows that went through the network and wait for their shard to be full;
    ``receipt``: names rows that are on disk now; ``failures``: rows that cannot be made.
    """

    stage: str
    computed: int = 0
    receipt: Receipt | None = None
    failures: Sequence[Failure] = ()


@dataclass
class StageWork:
    """What a worker holds of one stage: its network, its writer and rows not yet on disk."""

    stage: VideoStage
    extractor: ClipExtractor | FrameExtractor
    writer: ShardWriter
    rows_per_shard: int
    next_shard: int = 0
    waiting: list[DecodedRow] = field(default_factory=list)
    done: list[Row] = field(default_factory=list)


def run_unit(
    unit: Unit, stages: Mapping[str, StageWork], *, stop: threading.Event
) -> Iterator[Progress]:
    """Decode, extract and write; yield receipts and failures as they come.

    Args:
        unit: what to do.
        stages: networks and writers, by stage name; kept between units.
        stop: when set, rows that are finished are written and the unit ends early.
    """
    for name, first in unit.first_shard.items():
        stages[name].next_shard = first
    sizes = {name: work.stage.size_px for name, work in stages.items()}
    decoded = _decode_videos(unit.videos, sizes)
    depth = 2 * max(work.stage.batch_size for work in stages.values())
    for item in prefetch(decoded, depth=depth):
        if stop.is_set():
            break
        if isinstance(item, Progress):
            yield item
            continue
        work = stages[item.request.stage]
        work.waiting.append(item)
        if len(work.waiting) >= work.stage.batch_size:
            yield from _extract(work)
    for work in stages.values():
        if not stop.is_set():
            yield from _extract(work)
        work.waiting.clear()
        yield from _write(work, only_full=False)


def _decode_videos(
    videos: Sequence[VideoWork],
    sizes: Mapping[str, int | None],
) -> Iterator[DecodedRow | Progress]:
    """Rows of all videos in turn; a video that fails turns its remaining rows into failures."""
    for work in videos:
        left = {(name, row.key): row for name, rows in work.rows.items() for row in rows}
        try:
            for item in _decode_video(work, sizes):
                if isinstance(item, Progress):
                    for failure in item.failures:
                        del left[item.stage, failure.row_key]
                else:
                    del left[item.request.stage, item.request.row.key]
                yield item
        except (VideoError, OSError) as error:
            for name in work.rows:
                rows = [row for (stage, _), row in left.items() if stage == name]
                yield Progress(name, failures=[_failure(row, error) for row in rows])


def _decode_video(
    work: VideoWork, sizes: Mapping[str, int | None]
) -> Iterator[DecodedRow | Progress]:
    video = work.video
    with video.open() as opened:
        check_length(video, opened)
        requests = []
        for name, rows in work.rows.items():
            broken = {row.key: _outside(row, opened, video) for row in rows}
            failures = [_failure(row, e) for row in rows if (e := broken[row.key])]
            if failures:
                yield Progress(name, failures=failures)
            requests += [
                FrameRequest(name, row, sizes[name]) for row in rows if not broken[row.key]
            ]
        yield from decode_pass(opened, requests)


def _outside(row: VideoRow, opened: VideoReader, video: Video) -> TruncatedVideo | None:
    """Why a row's labelled stretch is not in the video, or None."""
    try:
        check_segment(video, opened, row.needed_from_seconds, row.needed_to_seconds)
    except TruncatedVideo as error:
        return error
    return None


def _extract(work: StageWork) -> Iterator[Progress]:
    """Run the waiting rows through the network; write shards that are full."""
    batch, work.waiting = work.waiting, []
    if not batch:
        return
    try:
        rows = _forward(work, batch)
    except (ValueError, OverflowError) as error:
        if len(batch) == 1:
            failure = _failure(batch[0].request.row, error)
            yield Progress(work.stage.name, failures=[failure])
            return
        # One row spoils the batch: find it by running each alone.
        for item in batch:
            work.waiting = [item]
            yield from _extract(work)
        return
    work.done += rows
    yield Progress(work.stage.name, computed=len(rows))
    yield from _write(work, only_full=True)


def _forward(work: StageWork, batch: Sequence[DecodedRow]) -> list[Row]:
    if isinstance(work.extractor, ClipExtractor):
        clips = torch.from_numpy(np.stack([np.stack(item.frames) for item in batch]))
        arrays = work.extractor(clips)
    else:
        boxes = [item.request.row.boxes for item in batch]
        given = [b for b in boxes if b is not None]
        arrays = work.extractor([item.frames[0] for item in batch], given or None)
    return [_row(item, arrays, position) for position, item in enumerate(batch)]


def _row(item: DecodedRow, arrays: Mapping[str, Any], position: int) -> Row:
    row = item.request.row
    # A copy of its own: a view would keep the whole batch alive.
    values = {name: array[position].copy() for name, array in arrays.items()}
    return Row(row.key, values, row.info(clamped=item.clamped))


def _write(work: StageWork, *, only_full: bool) -> Iterator[Progress]:
    while len(work.done) >= (work.rows_per_shard if only_full else 1):
        rows = work.done[: work.rows_per_shard]
        try:
            receipt = work.writer.write_shard(work.next_shard, rows)
        except RefusedRowError as error:
            (row,) = (row for row in rows if row.key == error.row_key)
            work.done = [other for other in work.done if other is not row]
            # It was counted as computed before.
            yield Progress(work.stage.name, computed=-1, failures=[_refusal(row, error)])
            continue
        del work.done[: len(rows)]
        work.next_shard += 1
        yield Progress(work.stage.name, receipt=receipt)


def _refusal(row: Row, error: RefusedRowError) -> Failure:
    """The failure of a row that was computed and cannot be stored."""
    info = row.info
    return Failure(row.key, info.clip_id, info.video_id, type(error).__name__, str(error))


def _failure(row: VideoRow, error: Exception) -> Failure:
    return Failure(
        row_key=row.key,
        clip_id=row.clip_id,
        video_id=row.video_id,
        error_class=type(error).__name__,
        message=str(error),
        frame=getattr(error, "frame", None),
    )
