"""The coordinator: plans, hands out units, and is the only one that commits.

    plan ─► videos ─► run_unit ─► receipts ─► commit          stages verb, noun, objects
                                                 then         stage aligned, from stored rows

A run that is killed loses what was not yet committed; the next run makes exactly that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from pipeline.align import align_row, readable_rows
from pipeline.config_file import dump_config
from pipeline.decoder import Decoder, create_decoder, default_processes
from pipeline.experiment import Experiment, MissingVideo
from pipeline.plan import (
    StagePlan,
    create,
    group_by_video,
    open_generation,
    plan_aligned,
    plan_videos,
    row_specs,
    without_absent,
)
from pipeline.rows import DerivedRow, VideoRow
from pipeline.stage_work import StageWork
from pipeline.stages import Stage
from pipeline.timings import Timings
from pipeline.unit import run_unit
from stores.base import ArraySpec, Failure, FeatureStore, Row, Store
from stores.registry import open_store

__all__ = ["Reporter", "RunReport", "StageReport", "run_experiment"]


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins, with so many rows to make."""

    def advance(self, stage: str, rows: int) -> None:
        """So many more rows are computed, or failed."""


@dataclass
class StageReport:
    """What became of one stage in a run.

    ``skipped``: derived rows that wait for upstream rows that are not there. ``batch_size``: what
    remained of it, of stages with a network that ran.
    """

    stage: str
    key: str
    wanted: int
    present: int
    made: int = 0
    nbytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed_before: int = 0
    skipped: int = 0
    seconds: float = 0.0
    timings: Timings = field(default_factory=Timings)
    batch_size: int | None = None


@dataclass
class RunReport:
    """What a run did. ``complete`` means every wanted row of the stages asked for is stored."""

    stages: list[StageReport]
    missing_videos: Sequence[MissingVideo]
    interrupted: bool

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do or to mend."""
        troubled = any(s.failures or s.failed_before or s.skipped for s in self.stages)
        return not (self.interrupted or self.missing_videos or troubled)


def run_experiment(
    experiment: Experiment,
    *,
    stages: Collection[str],
    retry_failed: bool,
    reporter: Reporter,
    stop: threading.Event,
) -> RunReport:
    """Make every row of the given stages that is missing.

    Args:
        experiment: what is wanted.
        stages: names of stages to bring up to date.
        retry_failed: try rows again that failed before.
        reporter: told about progress.
        stop: set it to end early; finished rows are kept.

    Raises:
        ValueError, OSError: weights do not fit, or the store cannot be written.
    """
    config = experiment.config
    with open_store(config.store.path, mode="a", format=config.store.format) as store:
        experiment.memo.save()
        planned = plan_videos(experiment, store, stages, retry_failed=retry_failed)
        plans, gone = without_absent(experiment, planned)
        reports = _run_videos(experiment, store, plans, reporter, stop)
        if experiment.aligned.name in stages:
            reports.append(_run_aligned(experiment, store, reporter, stop))
    return RunReport(reports, [*experiment.missing_videos, *gone], stop.is_set())


def _run_videos(
    experiment: Experiment,
    store: Store,
    plans: Mapping[str, StagePlan[VideoRow]],
    reporter: Reporter,
    stop: threading.Event,
) -> list[StageReport]:
    reports = {name: _report(plan) for name, plan in plans.items()}
    busy = {name: plan for name, plan in plans.items() if plan.todo}
    if not busy:
        return list(reports.values())
    prepared = {name: _prepare(experiment, store, name) for name in busy}
    works = {name: work for name, (_, work) in prepared.items()}
    for name, plan in busy.items():
        prepared[name][0].clear_failures([row.key for row in plan.todo])
        reporter.start(name, len(plan.todo))
    started = time.monotonic()
    videos = list(group_by_video(experiment, busy).values())
    for progress in run_unit(videos, works, decoder=_decoder(experiment, busy), stop=stop):
        report = reports[progress.stage]
        if progress.receipt or progress.failures:
            receipts = [progress.receipt] if progress.receipt else []
            prepared[progress.stage][0].commit(receipts, progress.failures)
            report.made += sum(len(receipt.slots) for receipt in receipts)
            report.nbytes += sum(receipt.nbytes for receipt in receipts)
            report.failures += progress.failures
        reporter.advance(progress.stage, progress.computed + len(progress.failures))
    for name, work in works.items():
        reports[name].seconds = time.monotonic() - started
        reports[name].timings = work.timings
        reports[name].batch_size = work.batch_size
    return list(reports.values())


def _decoder(experiment: Experiment, busy: Mapping[str, StagePlan[VideoRow]]) -> Decoder:
    config = experiment.config
    processes = config.engine.decode_processes
    return create_decoder(
        default_processes(config.device) if processes is None else processes,
        {name: experiment.video_stages[name].batch_nbytes for name in busy},
        stall_seconds=config.engine.stall_seconds,
    )


def _report(plan: StagePlan[Any]) -> StageReport:
    return StageReport(
        stage=plan.stage.name,
        key=plan.stage.key,
        wanted=plan.wanted,
        present=plan.present,
        failed_before=plan.failed,
    )


def _prepare(experiment: Experiment, store: Store, name: str) -> tuple[FeatureStore, StageWork]:
    """Build the network first: weights that do not fit must leave no generation behind."""
    stage = experiment.video_stages[name]
    extractor = create(stage, experiment.config.device)
    generation = _create_generation(experiment, store, stage, row_specs(extractor.outputs))
    work = StageWork(
        stage,
        extractor,
        generation.shard_writer(),
        rows_per_shard=generation.rows_per_shard,
        reserve_shard=lambda: generation.reserve_shards(1),
        commit_seconds=experiment.config.engine.commit_seconds,
    )
    return generation, work


def _create_generation(
    experiment: Experiment,
    store: Store,
    stage: Stage,
    specs: Mapping[str, ArraySpec],
) -> FeatureStore:
    provenance = _provenance(experiment, stage)
    shard_mib, compression = experiment.config.store.of_stage(stage.name)
    return store.generation(stage.name, stage.key, specs, provenance, shard_mib, compression)


def _provenance(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """Where rows come from, in plain words: first what is in the key, then what is not."""
    return {
        "settings": stage.settings,
        "not_in_key": {
            "experiment": experiment.config.name,
            "device": experiment.config.device,
            "versions": {name: version(name) for name in ("symbio", "torch", "torchvision")},
            "config": dump_config(experiment.config),
        },
    }


def _run_aligned(
    experiment: Experiment, store: Store, reporter: Reporter, stop: threading.Event
) -> StageReport:
    aligned = experiment.aligned
    opened = {stage.name: open_generation(store, stage) for stage in aligned.upstream}
    readers = {name: reader for name, reader in opened.items() if reader is not None}
    if len(readers) < len(opened):
        wanted = len(aligned.rows(experiment.clips, experiment.identities))
        return StageReport(aligned.name, aligned.key, wanted, present=0, skipped=wanted)
    plan = plan_aligned(experiment, store, {name: r.specs for name, r in readers.items()})
    report = _report(plan)
    rows = readable_rows(plan.todo, readers)
    report.skipped = len(plan.todo) - len(rows)
    if not rows:
        return report
    generation = _create_generation(experiment, store, aligned, plan.specs)
    reporter.start(aligned.name, len(rows))
    started = time.monotonic()
    pending: list[Row] = []
    for row in rows:
        try:
            pending.append(align_row(aligned, row, readers, plan.specs))
        except (ValueError, ArithmeticError) as error:
            failure = _failure(row, error)
            generation.commit([], [failure])
            report.failures.append(failure)
        reporter.advance(aligned.name, 1)
        if len(pending) == generation.rows_per_shard:
            _append(generation, pending, report)
        if stop.is_set():
            break
    _append(generation, pending, report)
    report.seconds = time.monotonic() - started
    return report


def _failure(row: DerivedRow, error: Exception) -> Failure:
    return Failure(
        row_key=row.key,
        clip_id=row.info.clip_id,
        video_id=row.info.video_id,
        error_class=type(error).__name__,
        message=str(error),
    )


def _append(generation: FeatureStore, rows: list[Row], report: StageReport) -> None:
    if rows:
        report.nbytes += sum(receipt.nbytes for receipt in generation.append(rows))
        report.made += len(rows)
        rows.clear()
