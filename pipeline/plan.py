"""What a run would do, and why: wanted rows minus stored rows, stage by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline.error_classes import Retry, is_retried
from pipeline.errors import ConfigError, WeightsError
from pipeline.experiment import Experiment, MissingVideo
from pipeline.generations import open_generation, planned_specs
from pipeline.rows import DerivedRow, VideoRow
from pipeline.stage_rows import StageRows
from pipeline.stages import STAGE_NAMES, Stage, VideoStage
from pipeline.videos import Video
from pipeline.work import VideoWork
from stores.base import ArraySpec, Failure, FeatureStore, Store
from stores.row_keys import key_texts, packed_array

__all__ = [
    "PlannedVideo",
    "StagePlan",
    "plan_aligned",
    "plan_all",
    "plan_videos",
    "planned_videos",
    "without_absent",
    "without_out",
    "without_waiting",
]

# What rows wait for; the later ones keep them waiting longer.
OUT, GONE, FAILED = "rows that jobs are making", "missing videos", "rows that failed"
WAITS = ("", OUT, GONE, FAILED)

AnyRow = TypeVar("AnyRow", VideoRow, DerivedRow)


@dataclass(frozen=True)
class StagePlan(Generic[AnyRow]):
    """One stage of a plan.

    Attributes:
        wanted: rows the experiment asks for.
        todo: rows to make now.
        failures: of rows that failed before and are left alone unless they are retried.
        generation: what holds this stage's rows under its key; None before its first row.
        specs: outputs of one row.
        waits: rows that a run would leave out, though they did not fail, by what they wait for.
        out: rows that jobs on a cluster are making.
        retried: keys of rows that failed before and are tried again, of ``todo`` as it was planned.
    """

    stage: Stage
    wanted: int
    todo: StageRows[AnyRow]
    failures: Sequence[Failure]
    generation: FeatureStore | None
    specs: Mapping[str, ArraySpec]
    waits: Mapping[str, int] = field(default_factory=dict)
    out: int = 0
    retried: Sequence[str] = ()

    @property
    def failed(self) -> int:
        """Rows that failed before."""
        return len(self.failures)

    @property
    def waiting(self) -> int:
        """Rows that wait for something."""
        return sum(self.waits.values())

    @property
    def present(self) -> int:
        """Rows that are stored."""
        return self.wanted - len(self.todo) - self.failed - self.waiting - self.out

    @property
    def reason(self) -> str:
        """Why there is something to do, or nothing, in words."""
        told = [
            f"{rows:,} row{'s wait' if rows > 1 else ' waits'} for {what}"
            for what, rows in self.waits.items()
        ]
        if self.todo or not told:
            told.insert(0, self._todo_reason)
        return "; ".join(told)

    @property
    def _todo_reason(self) -> str:
        if not self.todo:
            return "jobs are making them" if self.out else "nothing to do"
        if self.generation is None:
            return "first run with these settings"
        rows, videos = len(self.todo), len(np.unique(self.todo.sources))
        of = f"{videos:,} video{'s' * (videos > 1)}"
        return f"{rows:,} row{'s' * (rows > 1)} of {of} missing"

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return sum(spec.row_nbytes for spec in self.specs.values())


def plan_videos(
    experiment: Experiment, store: Store | None, stages: Iterable[str], *, retry_failed: Retry
) -> dict[str, StagePlan[VideoRow]]:
    """Plan the stages that read videos, of those asked for.

    Raises:
        WeightsError: weights that cannot be read, and nothing else is wrong; of all stages.
        ConfigError: weights that do not fit; of all stages.
    """
    plans, errors = {}, []
    for name, stage in experiment.video_stages.items():
        if name in stages:
            rows = stage.rows(experiment.table)
            generation = open_generation(store, stage)
            try:
                specs = _specs(experiment, stage, generation)
            except ConfigError as error:
                errors.append(error)
                continue
            plans[name] = _plan(stage, rows, generation, specs, retry_failed)
    if errors:
        unread = all(isinstance(error, WeightsError) for error in errors)
        kind = WeightsError if unread else ConfigError
        raise kind("\n".join(map(str, errors))) from errors[0]
    return plans


def _specs(
    experiment: Experiment, stage: VideoStage, generation: FeatureStore | None
) -> Mapping[str, ArraySpec]:
    if generation is not None:  # even if it holds no row
        return generation.specs
    return planned_specs(experiment.known, stage)


def plan_aligned(
    experiment: Experiment,
    store: Store | None,
    upstream: Mapping[str, Mapping[str, ArraySpec]],
    *,
    retry_failed: Retry,
) -> StagePlan[DerivedRow]:
    """Plan the derived stage; ``upstream``: specs of the stages it reads, by name."""
    stage = experiment.aligned
    rows, specs = stage.rows(experiment.table), stage.output_specs(upstream)
    return _plan(stage, rows, open_generation(store, stage), specs, retry_failed)


def plan_all(experiment: Experiment, store: Store | None) -> list[StagePlan[Any]]:
    """Plan every stage, in the order they run."""
    plans = plan_videos(experiment, store, STAGE_NAMES, retry_failed=False)
    specs = {name: plan.specs for name, plan in plans.items()}
    return [*plans.values(), plan_aligned(experiment, store, specs, retry_failed=False)]


def _plan(
    stage: Stage,
    rows: StageRows[AnyRow],
    generation: FeatureStore | None,
    specs: Mapping[str, ArraySpec],
    retry_failed: Retry,
) -> StagePlan[AnyRow]:
    if generation is None:
        return StagePlan(stage, len(rows), rows, (), None, specs)
    missing = rows.take(~generation.holds(rows.keys))
    if not missing:
        return StagePlan(stage, len(rows), missing, (), generation, specs)
    names = set(key_texts(missing.keys))
    found = [failure for failure in generation.failures() if failure.row_key in names]
    failures = [failure for failure in found if not is_retried(failure, retry_failed)]
    retried = [failure.row_key for failure in found if is_retried(failure, retry_failed)]
    failed = np.isin(missing.keys, packed_array(failure.row_key for failure in failures))
    todo = missing.take(~failed)
    return StagePlan(stage, len(rows), todo, failures, generation, specs, retried=retried)


def without_absent(
    experiment: Experiment, plans: Mapping[str, StagePlan[VideoRow]]
) -> tuple[dict[str, StagePlan[VideoRow]], list[MissingVideo]]:
    """Plans without rows of videos that are known from before but gone now, and those videos.

    A disk that is not mounted is no reason to call rows failed.
    """
    wanted = Counter[str]()
    for plan in plans.values():
        wanted.update(plan.todo.count_by_source())
    gone = {source for source in wanted if not experiment.videos[source].path.exists()}
    kept = {}
    for name, plan in plans.items():
        there = [source not in gone for source in plan.todo.source_ids]
        todo = plan.todo.take(np.array(there, dtype=bool)[plan.todo.sources])
        kept[name] = replace(plan, todo=todo, waits=_some({GONE: len(plan.todo) - len(todo)}))
    missing = [
        MissingVideo(video, f"{video.path}: not there any more", wanted[source_id], "rows")
        for source_id, video in experiment.videos.items()
        if source_id in gone
    ]
    return kept, missing


def without_waiting(
    plan: StagePlan[DerivedRow],
    upstream: Mapping[str, StagePlan[VideoRow]],
    out: Mapping[str, Collection[str]],
) -> StagePlan[DerivedRow]:
    """A plan without rows that no run can make: one they are made from is neither there nor to do.

    Args:
        upstream: plans of the stages it reads, by name, without rows that are out or absent.
        out: keys of rows that somebody is making, by stage key.
    """
    worst = np.zeros(len(plan.todo), dtype=np.int8)  # what keeps a row from being made, if anything
    for name, made in upstream.items():
        keys, numbers = plan.todo.upstream(name)
        states = np.full(len(keys), WAITS.index(GONE), dtype=np.int8)
        states[np.isin(keys, packed_array(out.get(made.stage.key, ())))] = WAITS.index(OUT)
        failed = packed_array(failure.row_key for failure in made.failures)
        states[np.isin(keys, failed)] = WAITS.index(FAILED)
        there = np.isin(keys, made.todo.keys)
        if made.generation is not None:
            there |= made.generation.holds(keys)
        states[there] = 0
        worst = np.maximum(worst, states[numbers].max(axis=1, initial=0))
    waits = _some({what: int((worst == WAITS.index(what)).sum()) for what in WAITS[:0:-1]})
    return replace(plan, todo=plan.todo.take(worst == 0), waits=waits)


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that are not 0."""
    return {what: rows for what, rows in counts.items() if rows}


def without_out(
    plans: Mapping[str, StagePlan[VideoRow]], out: Mapping[str, Collection[str]]
) -> dict[str, StagePlan[VideoRow]]:
    """Plans without rows that somebody is making; ``out``: their keys, by stage key."""
    kept = {}
    for name, plan in plans.items():
        theirs = packed_array(out.get(plan.stage.key, ()))
        todo = plan.todo.take(~np.isin(plan.todo.keys, theirs))
        kept[name] = replace(plan, todo=todo, out=len(plan.todo) - len(todo))
    return kept


@dataclass(frozen=True)
class PlannedVideo:
    """A video with rows to make.

    Attributes:
        counts: rows to make by stage; stages without any lack.
        todo: those rows.
    """

    video: Video
    counts: Mapping[str, int]
    todo: Mapping[str, StageRows[VideoRow]]

    def work(self) -> VideoWork:
        """The video with its rows, which are made now."""
        return VideoWork(self.video, {name: list(rows) for name, rows in self.todo.items()})


def planned_videos(
    experiment: Experiment, plans: Mapping[str, StagePlan[VideoRow]]
) -> list[PlannedVideo]:
    """The videos with rows to make, in the order the labels first name them."""
    rows: dict[str, dict[str, StageRows[VideoRow]]] = {}
    for name, plan in plans.items():
        for source_id, some in plan.todo.by_source().items():
            rows.setdefault(source_id, {})[name] = some
    return [
        PlannedVideo(video, {name: len(some) for name, some in todo.items()}, todo)
        for source_id, video in experiment.videos.items()
        if (todo := rows.get(source_id))
    ]
