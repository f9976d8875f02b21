"""A run that has nothing to do: found out without a network, and without writing to the store."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.error_classes import Retry
from pipeline.experiment import Experiment
from pipeline.generations import open_generation
from pipeline.journal_files import read_live
from pipeline.plan import StagePlan, plan_aligned, plan_videos
from pipeline.run_report import RunReport, stage_report
from pipeline.stored import open_if_there
from stores.base import Store

__all__ = ["settled_report"]


def settled_report(
    experiment: Experiment, stages: Collection[str], *, retry_failed: Retry
) -> RunReport | None:
    """What `run_experiment` would report if it has nothing to do; None if it may have something.

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
    with_aligned = experiment.aligned.name in stages
    wanted = experiment.stages if with_aligned else {*experiment.video_stages} & {*stages}
    opened = {name: open_generation(store, experiment.stages[name]) for name in wanted}
    specs = {name: generation.specs for name, generation in opened.items() if generation}
    if len(specs) < len(opened):
        return None
    videos = plan_videos(experiment, store, stages, retry_failed=retry_failed)
    plans: list[StagePlan[Any]] = list(videos.values())
    if with_aligned:
        plans.append(plan_aligned(experiment, store, specs, retry_failed=retry_failed))
    if any(plan.todo for plan in plans):
        return None
    return RunReport([stage_report(plan) for plan in plans], experiment.missing_videos, False)
