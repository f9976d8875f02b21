"""Running the derived stage: stored rows in, aligned rows out."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.aligner import Aligner
from pipeline.error_classes import Retry
from pipeline.experiment import Experiment
from pipeline.generations import create_generation, open_generation
from pipeline.keys import Keys
from pipeline.patience import Patience
from pipeline.plan import plan_aligned
from pipeline.record import Recorder
from pipeline.rows import CLAMPED, DerivedRow
from pipeline.run_log import RunLog
from pipeline.run_report import Reporter, StageReport, stage_report
from pipeline.run_setup import stage_shards
from pipeline.shard_thread import ShardThread
from pipeline.stage_rows import StageRows, readable
from pipeline.work import Progress, row_failure
from stores.base import CorruptRowError, Failure, FeatureStore, Row, Store
from stores.checks import allocate
from stores.row_keys import packed_array

__all__ = ["run_aligned"]

ROWS_AT_ONCE = 128  # a second or two of work; what is asked to stop does so after them

Readers = Mapping[str, FeatureStore]


def run_aligned(
    experiment: Experiment,
    store: Store,
    retry_failed: Retry,
    coming: Mapping[str, Keys],
    reporter: Reporter,
    log: RunLog,
    stop: threading.Event,
) -> StageReport:
    """Make every aligned row that is missing and whose upstream rows are stored.

    Args:
        coming: by stage, keys of rows that were to be made; what is made from those of them that
            were neither made nor failed is left, not skipped.
    """
    aligned = experiment.aligned
    opened = {stage.name: open_generation(store, stage) for stage in aligned.upstream}
    readers = {name: reader for name, reader in opened.items() if reader is not None}
    if len(readers) < len(opened):
        wanted = len(aligned.rows(experiment.table))
        return StageReport(aligned.name, aligned.key, wanted, present=0, skipped=wanted)
    specs = {name: reader.specs for name, reader in readers.items()}
    plan = plan_aligned(experiment, store, specs, retry_failed=retry_failed)
    report = stage_report(plan)
    ready = readable(plan.todo, readers)
    rows = plan.todo.take(ready)
    if waiting := plan.todo.take(~ready):
        report.left = int(_will_be_readable(waiting, readers, coming).sum())
        report.skipped = len(waiting) - report.left
    if not rows:
        return report
    generation = create_generation(experiment, store, aligned, plan.specs)
    reporter.start(aligned.name, len(rows))
    log.start(aligned.name, len(rows))
    started = time.monotonic()
    recorder = Recorder({aligned.name: report}, {aligned.name: generation}, reporter, log)
    with (
        closing(Aligner(aligned, readers, plan.specs)) as aligner,
        closing(_make(rows, aligner, readers, generation, report, stop, log.patience)) as made,
    ):
        for progress in made:
            recorder.take(progress)
        recorder.commit()
    report.count_retried(plan, generation)
    report.left += len(rows) - report.made - len(report.failures)
    report.seconds = time.monotonic() - started
    return report


def _will_be_readable(
    rows: StageRows[DerivedRow], readers: Readers, coming: Mapping[str, Keys]
) -> NDArray[np.bool_]:
    """(n,) whether all upstream rows of a row are stored, or still to be made."""
    found = np.ones(len(rows), dtype=np.bool_)
    for name, reader in readers.items():
        keys, numbers = rows.upstream(name)
        failed = np.isin(keys, packed_array(failure.row_key for failure in reader.failures()))
        to_come = np.isin(keys, coming.get(name, packed_array(()))) & ~failed
        found &= (reader.holds(keys) | to_come)[numbers].all(axis=1)
    return found


def _make(
    rows: Sequence[DerivedRow],
    aligner: Aligner,
    readers: Readers,
    generation: FeatureStore,
    report: StageReport,
    stop: threading.Event,
    patience: Patience,
) -> Generator[Progress | None, None, None]:
    """Align by pieces and write shards beside it; failures are told with the shard that follows."""
    name = generation.stage
    shards = ShardThread({name: report.timings}, patience)
    numbers = map(stage_shards(generation, patience).reserve, repeat(1))
    shard = _Shard(aligner, readers, generation)
    done = 0
    try:
        while done < len(rows) and not stop.is_set():
            began = time.perf_counter()
            piece = list(rows[done : done + min(ROWS_AT_ONCE, shard.room)])
            computed = shard.add(piece)
            report.timings.transform_seconds += time.perf_counter() - began
            yield Progress(name, computed=computed)
            done += len(piece)
            if not shard.room or done == len(rows) or stop.is_set():
                if shard.failures:
                    yield Progress(name, failures=shard.failures)
                if shard.rows:
                    shards.write(name, generation.shard_writer(), numbers, shard.rows)
                shard = _Shard(aligner, readers, generation)
            yield from shards.progress()
            yield None
        yield from shards.progress(finish=True)
    finally:
        shards.close()


class _Shard:
    """The rows of a shard to be, in one piece of memory for each output."""

    def __init__(self, aligner: Aligner, readers: Readers, generation: FeatureStore) -> None:
        self.rows: list[Row] = []
        self.failures: list[Failure] = []
        self._aligner = aligner
        self._readers = readers
        self._memory: dict[str, NDArray[Any]] = allocate(
            generation.specs, generation.rows_per_shard, list(generation.specs), None
        )
        self._size = generation.rows_per_shard

    @property
    def room(self) -> int:
        """For so many rows."""
        return self._size - len(self.rows)

    def add(self, rows: Sequence[DerivedRow]) -> int:
        """Make rows, and say how many; of those that fail, the culprits are found by halves."""
        start = len(self.rows)
        arrays = {name: values[start : start + len(rows)] for name, values in self._memory.items()}
        try:
            flags = self._flags(rows)
            self._aligner.fill(rows, arrays)
        except (ValueError, ArithmeticError, CorruptRowError) as error:
            if len(rows) == 1:
                self.failures.append(row_failure(rows[0], error))
                return 0
            middle = len(rows) // 2
            return self.add(rows[:middle]) + self.add(rows[middle:])
        for i, row in enumerate(rows):
            values = {name: array[i, ...] for name, array in arrays.items()}
            self.rows.append(Row(row.key, values, replace(row.info, flags=flags[i])))
        return len(rows)

    def _flags(self, rows: Sequence[DerivedRow]) -> list[str]:
        """Of each row: clamped if it looks beyond the video, or a row that it is made from does."""
        clamped: set[tuple[str, str]] = set()
        for name, reader in self._readers.items():
            keys = list(dict.fromkeys(key for row in rows for key in row.upstream[name]))
            infos = zip(keys, reader.infos(keys), strict=True)
            clamped.update((name, key) for key, info in infos if CLAMPED in info.flags)
        return [
            CLAMPED
            if CLAMPED in row.info.flags
            or any((name, key) in clamped for name, keys in row.upstream.items() for key in keys)
            else ""
            for row in rows
        ]
