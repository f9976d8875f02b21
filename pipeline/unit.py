"""The work of units: videos in, shard files and receipts out.

    videos ─► Decoder ─► rows of frames ─► StageWork ─► rows of features ─► ShardThread ─► receipts

Every way of running ends here; it writes shard files of its own and never touches the manifest.
What it yields is to be committed by whoever called it. Decoding, the networks and writing overlap.
Batches mix the clips of neighbouring videos of a unit. While the last videos of a unit are decoded,
those of the next one are begun: no process waits for the longest of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from threading import Event

from extractors.heap import Heap
from pipeline.decode_pass import DecodedRow
from pipeline.decode_videos import Geometries
from pipeline.decoder import Decoder
from pipeline.patience import Patience
from pipeline.shard_thread import ShardThread
from pipeline.stage_work import StageWork
from pipeline.work import Finished, Progress, Unit, UnitSummary, VideoWork

__all__ = ["UnitWork", "run_units"]


class UnitWork:
    """A unit that is worked on.

    Args:
        unit: what there is to do.
        stages: networks and writers, by stage name.
        patience: with storage that is gone.
    """

    def __init__(self, unit: Unit, stages: Mapping[str, StageWork], patience: Patience) -> None:
        self.unit = unit
        self._stages = stages
        self._shards = ShardThread({name: work.timings for name, work in stages.items()}, patience)
        self._coming: set[tuple[str, str]] = set()  # rows of videos that are being decoded
        self._has_begun_all = False
        self._is_flushed = False

    def videos(self) -> Iterator[VideoWork]:
        """Its videos, for a decoder; each has begun when it is asked for."""
        for work in self.unit.videos:
            self._coming.update((name, row.key) for name, rows in work.rows.items() for row in rows)
            yield work
        self._has_begun_all = True

    def owns(self, item: DecodedRow | Progress) -> bool:
        """Whether a row, or the first failure of many, is of one of its videos."""
        return not self._coming.isdisjoint(_keys(item))

    def take(self, item: DecodedRow | Progress, waited_seconds: float) -> Iterator[Progress]:
        """What becomes of a row that is its own, and what had to wait for that."""
        self._coming.difference_update(_keys(item))
        if isinstance(item, Progress):
            yield self._mine(item)
            return
        work = self._stages[item.stage]
        work.timings.waiting_seconds += waited_seconds
        yield from map(self._mine, work.add(item))

    def write(self) -> Iterator[Progress | None]:
        """Hand finished rows to the disk, and tell of those that are there by now."""
        for work in self._stages.values():
            work.write(self._shards)
        yield from map(self._mine_or_none, self._shards.progress())

    def advance_to_end(self) -> Iterator[Progress | Finished | None]:
        """Once all its videos are decoded, compute and write what is left; its end comes last."""
        if not self._has_begun_all or self._coming:
            return
        if not self._is_flushed:
            self._is_flushed = True
            for work in self._stages.values():
                yield from map(self._mine, work.flush())
                work.write(self._shards, everything=True)
        if self._shards.is_idle:
            yield from self._last_words()

    def end(self, *, early: bool) -> Iterator[Progress | Finished | None]:
        """The same whatever is still to come; ``early`` leaves out what is not computed."""
        for work in self._stages.values():
            if not early:
                yield from map(self._mine, work.flush())
            work.write(self._shards, everything=True)
        yield from map(self._mine_or_none, self._shards.progress(finish=True))
        yield from self._last_words()

    def close(self) -> None:
        """Wait for what is being written, and forget what has not begun."""
        self._shards.close()

    def _last_words(self) -> Iterator[Progress | Finished]:
        for name, work in self._stages.items():
            yield self._mine(Progress(name, summary=UnitSummary(work.timings, work.batch_size)))
        yield Finished(self.unit.number)

    def _mine(self, progress: Progress) -> Progress:
        return replace(progress, unit=self.unit.number)

    def _mine_or_none(self, progress: Progress | None) -> Progress | None:
        return None if progress is None else self._mine(progress)


def run_units(
    units: Iterable[Unit | None],
    begin: Callable[[Unit], UnitWork],
    *,
    decoder: Decoder,
    geometries: Geometries,
    heap: Heap | None,
    stop: Event,
) -> Iterator[Progress | Finished | None]:
    """Decode, extract and write; yield receipts and failures as they come, and the ends of units.

    None is a sign of life: it comes again and again, also where nothing has been done.

    Args:
        units: what to do; None where there is nothing yet. The next one is asked for when all
            videos of those before have begun.
        begin: a unit's networks and writers.
        decoder: turns videos into rows of frames.
        geometries: of each stage's frames.
        heap: of networks on a CPU.
        stop: when set, rows that are finished are written and all units end early.

    Raises:
        OSError: a shard cannot be written.
    """
    under_way: list[UnitWork] = []

    def videos() -> Iterator[VideoWork | None]:
        for unit in units:
            if unit is None:
                yield None
                continue
            work = begin(unit)
            under_way.append(work)
            yield from work.videos()

    try:
        with closing(decoder.decode(videos(), geometries)) as decoded:
            waiting_since = time.perf_counter()
            for item in decoded:
                if item is not None:
                    waited_seconds = time.perf_counter() - waiting_since
                    for progress in _owner(under_way, item).take(item, waited_seconds):
                        yield progress
                        if heap is not None and progress.computed:
                            heap.after_batch()
                for work in list(under_way):
                    yield from work.write()
                    for said in work.advance_to_end():
                        yield said
                        if isinstance(said, Finished):
                            under_way.remove(work)
                            work.close()
                yield None
                if stop.is_set():
                    break
                if item is not None or not under_way:
                    waiting_since = time.perf_counter()
        for work in under_way:
            yield from work.end(early=stop.is_set())
    finally:
        for work in under_way:
            work.close()


def _owner(under_way: Iterable[UnitWork], item: DecodedRow | Progress) -> UnitWork:
    for work in under_way:
        if work.owns(item):
            return work
    raise RuntimeError(f"got a row of {item.stage} that no unit under way waits for")


def _keys(item: DecodedRow | Progress) -> list[tuple[str, str]]:
    if isinstance(item, Progress):
        return [(item.stage, failure.row_key) for failure in item.failures]
    return [(item.stage, item.row.key)]
