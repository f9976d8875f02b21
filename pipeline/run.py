"""The coordinator: plans, hands out work, and is the only one that commits.

    plan ─► videos ─► run_unit ─► receipts ─► commit          stages verb, noun, objects
                                                 then         stage aligned, from stored rows

A run that is killed loses what was not yet committed; the next run makes exactly that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import closing

from pipeline.decoder import Decoder, create_decoder, default_processes
from pipeline.experiment import Experiment
from pipeline.generations import create_generation, create_network, row_specs
from pipeline.plan import StagePlan, plan_videos, planned_videos, without_absent
from pipeline.rows import VideoRow
from pipeline.run_aligned import run_aligned
from pipeline.run_report import Reporter, RunReport, StageReport, stage_report
from pipeline.stage_work import StageWork
from pipeline.unit import run_unit
from pipeline.work import Progress
from stores.base import FeatureStore, Store
from stores.registry import open_store

__all__ = ["run_experiment"]


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
            reports.append(run_aligned(experiment, store, reporter, stop))
    return RunReport(reports, [*experiment.missing_videos, *gone], stop.is_set())


def _run_videos(
    experiment: Experiment,
    store: Store,
    plans: Mapping[str, StagePlan[VideoRow]],
    reporter: Reporter,
    stop: threading.Event,
) -> list[StageReport]:
    reports = {name: stage_report(plan) for name, plan in plans.items()}
    busy = {name: plan for name, plan in plans.items() if plan.todo}
    if not busy:
        return list(reports.values())
    videos = [planned.work() for planned in planned_videos(experiment, busy)]
    decoder = _decoder(experiment, busy, len(videos))  # starts while the networks are built
    with closing(decoder):
        works, generations = _prepare_all(experiment, store, busy)
        for name, plan in busy.items():
            generations[name].clear_failures([row.key for row in plan.todo])
            reporter.start(name, len(plan.todo))
        started = time.monotonic()
        for progress in run_unit(videos, works, decoder=decoder, stop=stop):
            _record(progress, reports[progress.stage], generations[progress.stage])
            reporter.advance(progress.stage, progress.computed + len(progress.failures))
    for name, work in works.items():
        reports[name].seconds = time.monotonic() - started
        reports[name].timings = work.timings
        reports[name].batch_size = work.batch_size
        reports[name].batch_size_wanted = work.stage.batch_size
    return list(reports.values())


def _record(progress: Progress, report: StageReport, generation: FeatureStore) -> None:
    """Commit what is on disk and what failed, and count it."""
    if not (progress.receipt or progress.failures):
        return
    receipts = [progress.receipt] if progress.receipt else []
    generation.commit(receipts, progress.failures)
    report.made += sum(len(receipt.slots) for receipt in receipts)
    report.nbytes += sum(receipt.nbytes for receipt in receipts)
    report.failures += progress.failures


def _decoder(
    experiment: Experiment, busy: Mapping[str, StagePlan[VideoRow]], num_videos: int
) -> Decoder:
    config = experiment.config
    processes = config.engine.decode_processes
    if processes is None:
        processes = default_processes(config.device)
    return create_decoder(
        min(processes, num_videos),
        {name: experiment.video_stages[name].batch_nbytes for name in busy},
        stall_seconds=config.engine.stall_seconds,
    )


def _prepare_all(
    experiment: Experiment, store: Store, names: Collection[str]
) -> tuple[dict[str, StageWork], dict[str, FeatureStore]]:
    """Networks and generations, by stage."""
    prepared = {name: _prepare(experiment, store, name) for name in names}
    works = {name: work for name, (_, work) in prepared.items()}
    return works, {name: generation for name, (generation, _) in prepared.items()}


def _prepare(experiment: Experiment, store: Store, name: str) -> tuple[FeatureStore, StageWork]:
    """Build the network first: weights that do not fit must leave no generation behind."""
    stage = experiment.video_stages[name]
    extractor = create_network(stage, experiment.config.device)
    generation = create_generation(experiment, store, stage, row_specs(extractor.outputs))
    work = StageWork(
        stage,
        extractor,
        generation.shard_writer(),
        rows_per_shard=generation.rows_per_shard,
        reserve_shard=lambda: generation.reserve_shards(1),
        commit_seconds=experiment.config.engine.commit_seconds,
    )
    return generation, work
