"""Training every run of a sweep, heads on the same rows from one copy of them in memory.

Runs whose store, data, views and stages are the same share tables that hold the union of what
their heads read. A run that fails is an outcome that says why; the others go on. Finished runs are
left as they are, unfinished ones go on after their last epoch.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from heads.checkpoint import read_checkpoint
from heads.evaluation import METRICS_FILE
from heads.registry import head_class
from heads.training import HEAD_FILE, LAST_FILE
from heads.training_log import EpochReport
from pipeline.config import ExperimentConfig
from pipeline.errors import MENDABLE, RowsMissing, in_words
from pipeline.experiment import Experiment, resolve, stage_keys
from pipeline.fusion import fuse_runs
from pipeline.head_check import check_head
from pipeline.head_rows import HeadData, load_data, open_rows
from pipeline.head_runs import evaluate_on, train_on, training_splits
from pipeline.known import Known
from pipeline.runs import check_same_settings
from pipeline.sweep_plan import PlannedRow, Sweep, SweepRun

__all__ = ["Outcome", "run_sweep"]


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    ``metrics``: fractions by name, as in ``metrics.json``; empty where ``error`` says why.
    ``seconds``: that it took now; None if it was finished before.
    """

    label: str
    seed: int
    folder: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    seconds: float | None = None

    @classmethod
    def of(cls, run: SweepRun, **how: Any) -> Outcome:
        """How this run ended."""
        return cls(run.label, run.seed, run.folder, **how)


def run_sweep(
    sweep: Sweep,
    *,
    skip_missing: bool = False,
    on_start: Callable[[Sequence[SweepRun]], None] = lambda runs: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Train and evaluate every run that is not finished, then average.

    Args:
        skip_missing: train on the segments that have features, instead of refusing.
        on_start: told the runs that are not finished.
        on_epoch: told each epoch that is trained.
        on_outcome: told each run that ends, those finished before first, fusions and means last.

    Returns:
        What `on_outcome` was told.

    Raises:
        RunFolderError: a folder holds a run with other settings; nothing was trained.
    """
    for run in sweep.runs:
        remedy = "give the sweep another --name, or remove that folder"
        check_same_settings(run.folder, run.config, remedy=remedy)
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    groups: dict[str, list[SweepRun]] = defaultdict(list)
    stages: dict[str, dict[str, str]] = {}
    for run in sweep.runs:
        shared = _shared(run.config)
        if shared not in stages:
            stages[shared] = _stages(run.config)
        if (metrics := _finished(run, stages[shared])) is not None:
            tell(Outcome.of(run, metrics=metrics))
        elif misfit := _misfit(run.config):
            tell(Outcome.of(run, error=misfit))
        else:
            groups[shared].append(run)
    on_start([run for runs in groups.values() for run in runs])
    alone = len(groups) == 1 and not outcomes
    for runs in groups.values():
        _run_group(runs, skip_missing, on_epoch, tell, alone=alone)
    for row in sweep.rows:
        for seed in () if row.runs else sweep.seeds:
            tell(_combine(row, seed, list(outcomes)))
    return outcomes


def _combine(row: PlannedRow, seed: int, outcomes: Sequence[Outcome]) -> Outcome:
    """Average scores or figures of this seed's runs; always done anew, which takes seconds."""
    started = time.perf_counter()
    found = {o.label: o for o in outcomes if o.seed == seed}
    folder = row.folders[seed]
    if failed := [label for label in (*row.fuse, *row.mean) if found[label].error]:
        return Outcome(row.label, seed, folder, error=f"nothing to average: {failed[0]} failed")
    if row.mean:
        means = _mean([found[label].metrics for label in row.mean])
        took = time.perf_counter() - started
        return Outcome(row.label, seed, folder.parent, means, seconds=took)
    try:
        fuse_runs([found[label].folder for label in row.fuse], folder)
        metrics = _evaluation(folder)[0]
    except MENDABLE as error:
        return Outcome(row.label, seed, folder, error=in_words(error))
    return Outcome(row.label, seed, folder, metrics, seconds=time.perf_counter() - started)


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of what all of them have; of segments, how many there are together."""
    names = [name for name in figures[0] if all(name in one for one in figures)]
    means = {name: mean(one[name] for one in figures) for name in names}
    return means | {"num_segments": sum(one["num_segments"] for one in figures)}


def _stages(config: ExperimentConfig) -> dict[str, str]:
    """Stage → key; empty where the stages cannot be made, of which their runs will tell."""
    try:
        return stage_keys(config)
    except MENDABLE:
        return {}


def _misfit(config: ExperimentConfig) -> str:
    """Why the head cannot be trained as it is set, if so."""
    try:
        check_head(config, Known(config.store.path))
    except MENDABLE as error:
        return in_words(error)
    return ""


def _finished(run: SweepRun, stages: Mapping[str, str]) -> dict[str, float] | None:
    """The metrics of a run whose last epoch is trained, on these stages, and evaluated."""
    try:
        if read_checkpoint(run.folder / LAST_FILE).training["epoch"] < run.config.train.epochs:
            return None
        kept = read_checkpoint(run.folder / HEAD_FILE).training
        metrics, details = _evaluation(run.folder)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # what is not there, or is not whole, is made again
    expected = {"checkpoint": kept, "stages": dict(stages)}
    return metrics if expected.items() <= details.items() else None


def _evaluation(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """What ``metrics.json`` holds: figures, official ones too, and what they belong to."""
    content = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    return {**(content.get("official") or {}), **content["metrics"]}, dict(content["details"])


def _shared(config: ExperimentConfig) -> str:
    """Equal for runs whose heads can train on the same tables."""
    train = config.train.model_dump_json(include={"features", "resident_mib"})
    return config.model_dump_json(include={"store", "data", "views", "stages"}) + train


def _run_group(
    runs: Sequence[SweepRun],
    skip_missing: bool,
    on_epoch: Callable[[EpochReport], None],
    tell: Callable[[Outcome], None],
    *,
    alone: bool,
) -> None:
    """Train runs that share their tables; without tables all of them fail.

    Where they are ``alone``, what stops them stops the sweep.
    """
    left = list(runs)
    try:
        experiment = resolve(runs[0].config)
        with open_rows(experiment) as reader:
            inputs = {name for run in runs for name in head_class(run.config.head.name).inputs}
            data = load_data(
                experiment,
                reader,
                splits=_splits(experiment, runs),
                outputs=sorted(inputs & set(reader.specs)),
                skip_missing=skip_missing,
            )
            while left:
                run = left.pop(0)
                tell(_run_one(run, replace(experiment, config=run.config), data, on_epoch))
    except MENDABLE as error:
        if alone and len(left) == len(runs):
            raise
        for run in left:
            tell(Outcome.of(run, error=in_words(error)))


def _splits(experiment: Experiment, runs: Sequence[SweepRun]) -> list[str]:
    """What the runs train and are measured on, as far as there are such segments."""
    measured = [run.config.evaluate.split for run in runs]
    there = [split for split in measured if experiment.dataset.split(split)]
    return list(dict.fromkeys([*training_splits(experiment), *there]))


def _run_one(
    run: SweepRun, experiment: Experiment, data: HeadData, on_epoch: Callable[[EpochReport], None]
) -> Outcome:
    started = time.perf_counter()
    inputs = head_class(run.config.head.name).inputs
    # An input that the rows lack is left to the head, which says so.
    own = replace(
        data,
        tables={
            split: table.select([name for name in inputs if name in table.outputs])
            for split, table in data.tables.items()
        },
    )
    split = run.config.evaluate.split
    try:
        if split not in own.tables:
            raise RowsMissing(f"split {split!r} has no segments to measure; see evaluate.split")
        train_on(experiment, own, run.folder, resume=True, on_epoch=on_epoch)
        found = evaluate_on(experiment, own, run.folder, split=split)
        if found.metrics is None:
            raise RowsMissing(f"split {split!r} has no labels to measure; see evaluate.split")
        metrics = _evaluation(run.folder)[0]
    except MENDABLE as error:
        return Outcome.of(run, error=in_words(error))
    return Outcome.of(run, metrics=metrics, seconds=time.perf_counter() - started)
