"""Running the derived stage: stored rows in, aligned rows out."""

from __future__ import annotations

import threading
import time

from pipeline.align import align_row, readable
from pipeline.experiment import Experiment
from pipeline.generations import create_generation, open_generation
from pipeline.plan import plan_aligned
from pipeline.run_report import Reporter, StageReport, stage_report
from pipeline.work import row_failure
from stores.base import FeatureStore, Row, Store

__all__ = ["run_aligned"]


def run_aligned(
    experiment: Experiment, store: Store, reporter: Reporter, stop: threading.Event
) -> StageReport:
    """Make every aligned row that is missing and whose upstream rows are stored."""
    aligned = experiment.aligned
    opened = {stage.name: open_generation(store, stage) for stage in aligned.upstream}
    readers = {name: reader for name, reader in opened.items() if reader is not None}
    if len(readers) < len(opened):
        wanted = len(aligned.rows(experiment.table))
        return StageReport(aligned.name, aligned.key, wanted, present=0, skipped=wanted)
    plan = plan_aligned(experiment, store, {name: r.specs for name, r in readers.items()})
    report = stage_report(plan)
    rows = plan.todo.take(readable(plan.todo, readers))
    report.skipped = len(plan.todo) - len(rows)
    if not rows:
        return report
    generation = create_generation(experiment, store, aligned, plan.specs)
    reporter.start(aligned.name, len(rows))
    started = time.monotonic()
    pending: list[Row] = []
    for row in rows:
        began = time.perf_counter()
        try:
            pending.append(align_row(aligned, row, readers, plan.specs))
        except (ValueError, ArithmeticError) as error:
            failure = row_failure(row, error)
            generation.commit([], [failure])
            report.failures.append(failure)
        report.timings.transform_seconds += time.perf_counter() - began
        reporter.advance(aligned.name, 1)
        if len(pending) == generation.rows_per_shard:
            _append(generation, pending, report)
        if stop.is_set():
            break
    _append(generation, pending, report)
    report.seconds = time.monotonic() - started
    return report


def _append(generation: FeatureStore, rows: list[Row], report: StageReport) -> None:
    if rows:
        began = time.perf_counter()
        report.nbytes += sum(receipt.nbytes for receipt in generation.append(rows))
        report.made += len(rows)
        report.timings.write_seconds += time.perf_counter() - began
        rows.clear()
