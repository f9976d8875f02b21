"""The work of one unit: videos in, shard files and receipts out.

    videos ─► Decoder ─► rows of frames ─► StageWork ─► rows of features ─► ShardThread ─► receipts

This is the function that every way of running calls; it writes shard files of its own and never
touches the manifest. What it yields is to be committed by whoever called it. Decoding, the networks
and writing overlap; batches mix the clips of neighbouring videos.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from extractors.heap import Heap
from pipeline.decode_pass import DecodedRow
from pipeline.decoder import Decoder
from pipeline.patience import Patience
from pipeline.shard_thread import ShardThread
from pipeline.stage_work import StageWork
from pipeline.work import Progress, UnitSummary, VideoWork

__all__ = ["run_unit"]


def run_unit(
    videos: Iterable[VideoWork],
    stages: Mapping[str, StageWork],
    *,
    decoder: Decoder,
    stop: threading.Event,
    patience: Patience,
) -> Iterator[Progress | None]:
    """Decode, extract and write; yield receipts and failures as they come.

    None is a sign of life: it comes again and again, also where nothing has been done.

    Args:
        videos: what to do.
        stages: networks and writers, by stage name.
        decoder: turns videos into rows of frames.
        stop: when set, rows that are finished are written and the unit ends early.
        patience: with storage that is gone.

    Raises:
        OSError: a shard cannot be written.
    """
    on_cpu = all(work.extractor.device.type == "cpu" for work in stages.values())
    heap = Heap() if on_cpu else None
    shards = ShardThread({name: work.timings for name, work in stages.items()}, patience)
    geometries = {name: work.stage.decoded_geometry for name, work in stages.items()}
    try:
        with closing(decoder.decode(videos, geometries)) as decoded:
            waiting_since = time.perf_counter()
            for item in decoded:
                if item is not None:
                    for progress in _take(item, stages, waiting_since):
                        yield progress
                        if heap is not None and progress.computed:
                            heap.after_batch()
                for work in stages.values():
                    work.write(shards)
                yield from shards.progress()
                yield None
                if stop.is_set():
                    break
                if item is not None:
                    waiting_since = time.perf_counter()
        for work in stages.values():
            if not stop.is_set():
                yield from work.flush()
            work.write(shards, everything=True)
        yield from shards.progress(finish=True)
        for name, work in stages.items():
            yield Progress(name, summary=UnitSummary(work.timings, work.batch_size))
    finally:
        shards.close()


def _take(
    item: DecodedRow | Progress, stages: Mapping[str, StageWork], waiting_since: float
) -> Iterator[Progress]:
    if isinstance(item, Progress):
        yield item
        return
    work = stages[item.stage]
    work.timings.waiting_seconds += time.perf_counter() - waiting_since
    yield from work.add(item)
