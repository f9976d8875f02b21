"""A run that has nothing to do: found out without a network, and without writing to the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pipeline.error_classes import Retry
from pipeline.experiment import Experiment
from pipeline.generations import open_generation
from pipeline.job_folder import find_jobs
from pipeline.journal_files import read_live
from pipeline.plan import plan_aligned, plan_videos
from pipeline.run_report import RunReport, stage_report
from pipeline.stage_rows import readable
from pipeline.stages import STAGE_NAMES
from pipeline.stored import open_if_there
from stores.base import Store

__all__ = ["settled_report"]


def settled_report(
    experiment: Experiment, stages: Collection[str], *, retry_failed: Retry
) -> RunReport | None:
    """What `run_experiment` would report if it has nothing to do; None if it may have something.

    Aligned rows that no run can make, as rows they are made from failed, are nothing to do.

    A store that cannot be read as it stands is left to a run, which opens it for writing and mends
    it, or says what is wrong; and so is one that a killed run left, which is tidied then.
    """
    folder = experiment.config.store.path
    live = read_live(folder)
    if live is not None and live.verdict != "running":
        return None
    try:
        with open_if_there(folder) as store:
            report = None if store is None else _report(experiment, store, stages, retry_failed)
    except (OSError, RuntimeError, ValueError):
        return None
    if report is not None:
        experiment.memo.save_if_possible()
        experiment.known.save_if_possible()
    return report


def _report(
    experiment: Experiment, store: Store, stages: Collection[str], retry_failed: Retry
) -> RunReport | None:
    aligned = experiment.aligned
    with_aligned = aligned.name in stages
    wanted = {*experiment.video_stages} & ({*STAGE_NAMES} if with_aligned else {*stages})
    opened = {name: open_generation(store, experiment.stages[name]) for name in wanted}
    there = {name: generation for name, generation in opened.items() if generation is not None}
    if len(there) < len(opened):
        return None
    videos = plan_videos(experiment, store, stages, retry_failed=retry_failed)
    if any(plan.todo for plan in videos.values()):
        return None
    reports = [stage_report(plan) for plan in videos.values()]
    if with_aligned:
        specs = {name: generation.specs for name, generation in there.items()}
        plan = plan_aligned(experiment, store, specs, retry_failed=retry_failed)
        readers = {stage.name: there[stage.name] for stage in aligned.upstream}
        unmerged = plan.todo and find_jobs(experiment.config.store.path)  # may bring what lacks
        if unmerged or readable(plan.todo, readers).any():
            return None
        reports.append(replace(stage_report(plan), skipped=len(plan.todo)))
    return RunReport(reports, experiment.missing_videos, False)
