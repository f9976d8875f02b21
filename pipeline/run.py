"""The coordinator: plans, hands out work, and is the only one that commits.

    plan ─► units ─► executor ─► receipts ─► commit           stages verb, noun, objects
                                             then             stage aligned, from stored rows

A run that is killed loses what was not yet committed; the next run makes exactly that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import closing

import numpy as np

from pipeline.checks import check_space, refuse
from pipeline.config_slurm import SlurmExecutorConfig
from pipeline.error_classes import Retry
from pipeline.executors import create_executor
from pipeline.experiment import Experiment
from pipeline.forecast import surely_needed_nbytes
from pipeline.generations import create_generation
from pipeline.job_report import in_words, rows_out
from pipeline.journal import LIVE_FILE, Journal
from pipeline.keys import Keys
from pipeline.merge import merge_jobs
from pipeline.plan import StagePlan, plan_videos, planned_videos, without_absent, without_out
from pipeline.record import Recorder
from pipeline.reproduce import ConfigSource
from pipeline.rows import VideoRow
from pipeline.run_aligned import run_aligned
from pipeline.run_log import RunLog
from pipeline.run_report import Reporter, RunReport, StageReport, stage_report
from pipeline.run_setup import make_setup, stage_shards
from pipeline.unit_queue import UnitQueue
from pipeline.workbench import replaced_weights
from stores.base import Store
from stores.registry import open_store
from stores.row_keys import key_texts, packed_array

__all__ = ["run_experiment"]


def run_experiment(
    experiment: Experiment,
    *,
    stages: Collection[str],
    retry_failed: Retry,
    reporter: Reporter,
    stop: threading.Event,
    source: ConfigSource | None = None,
) -> RunReport:
    """Make every row of the given stages that is missing.

    Args:
        experiment: what is wanted.
        stages: names of stages to bring up to date.
        retry_failed: try rows again that failed before; all, or those of the classes named.
        reporter: told about progress.
        stop: set it to end early; finished rows are kept.
        source: what was typed to name the experiment, for the log.

    Raises:
        ValueError, OSError: weights do not fit, or the store cannot be written.
    """
    config = experiment.config
    jobs = merge_jobs(config.store.path)
    for job in jobs:
        reporter.say(in_words(job))
    with open_store(config.store.path, mode="a", format=config.store.format) as store:
        experiment.memo.save()
        experiment.known.save()
        planned = plan_videos(experiment, store, stages, retry_failed=retry_failed)
        out = rows_out(jobs)
        plans, gone = without_absent(experiment, without_out(planned, out))
        needed = surely_needed_nbytes(experiment, store, plans, stages, retry_failed)
        refuse(check_space(config.store.path, needed))
        with closing(_journal(store, reporter, source)) as journal:
            log = RunLog(journal, experiment, stages, reporter.say)
            reports = _run_videos(experiment, store, plans, reporter, log, stop)
            if experiment.aligned.name in stages:
                coming = _coming(plans, out)
                reports.append(
                    run_aligned(experiment, store, retry_failed, coming, reporter, log, stop)
                )
            report = RunReport(reports, [*experiment.missing_videos, *gone], stop.is_set())
            log.finished(report)
    return report


def _coming(
    plans: Mapping[str, StagePlan[VideoRow]], out: Mapping[str, Collection[str]]
) -> dict[str, Keys]:
    """Keys of rows that were to be made, by stage: by this run, or by jobs."""
    return {
        name: np.concatenate([plan.todo.keys, packed_array(out.get(plan.stage.key, ()))])
        for name, plan in plans.items()
    }


def _journal(store: Store, reporter: Reporter, source: ConfigSource | None) -> Journal:
    (store.path / LIVE_FILE).unlink(missing_ok=True)  # of a run that was killed: we hold the store
    return Journal(store.path, source=source, on_workers=reporter.show_workers)


def _run_videos(
    experiment: Experiment,
    store: Store,
    plans: Mapping[str, StagePlan[VideoRow]],
    reporter: Reporter,
    log: RunLog,
    stop: threading.Event,
) -> list[StageReport]:
    reports = {name: stage_report(plan) for name, plan in plans.items()}
    busy = {name: plan for name, plan in plans.items() if plan.todo}
    if not busy:
        return list(reports.values())
    generations = {
        name: create_generation(experiment, store, plan.stage, plan.specs)
        for name, plan in busy.items()
    }
    executor = create_executor(experiment.config.executor, store, reporter.say)
    queue = UnitQueue(
        planned_videos(experiment, busy),
        {name: stage_shards(generation, log.patience) for name, generation in generations.items()},
        workers=executor.workers,
    )
    for name, plan in busy.items():
        generations[name].clear_failures(key_texts(plan.todo.keys))
        reporter.start(name, len(plan.todo))
        log.start(name, len(plan.todo))
        reports[name].batch_size_wanted = experiment.video_stages[name].batch_size
    started = time.monotonic()
    setup = make_setup(experiment, generations)
    recorder = Recorder(reports, generations, reporter, log)
    with closing(executor.run(setup, queue, stop=stop, journal=log.journal)) as progresses:
        for progress in progresses:
            recorder.take(progress)
    recorder.commit()
    for path in replaced_weights(setup.weights):
        reporter.say(
            f"{path}: was replaced while the run went on; its rows are of the weights it began with"
        )
    slurm = experiment.config.executor
    goes_on = isinstance(slurm, SlurmExecutorConfig) and not slurm.wait and not stop.is_set()
    for name, plan in busy.items():
        left = len(plan.todo) - reports[name].made - len(reports[name].failures)
        reports[name].count_retried(plan, generations[name])
        reports[name].left += left
        reports[name].out += left if goes_on else 0
        reports[name].seconds = time.monotonic() - started
    return list(reports.values())
