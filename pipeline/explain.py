"""Why rows of a stage are missing.

Rows whose video is gone, or that lack rows they are made from, are told here; what is stored under
a row's name tells of the others (`explain_rows`), and settings of the whole stage are the business
of `explain_settings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.console import by_number
from pipeline.error_classes import class_name
from pipeline.experiment import Experiment
from pipeline.explain_rows import ReasonName, RowReason, StoredNames, info_of, of_video
from pipeline.explain_settings import Nearest, nearest_generation
from pipeline.generations import open_generation
from pipeline.plan import StagePlan
from pipeline.stage_rows import StageRows
from pipeline.stages import AlignedStage, ObjectsStage, Stage
from stores.base import FeatureStore, Store
from stores.row_keys import key_texts, packed_array

__all__ = [
    "Explanation",
    "Reason",
    "ReasonName",
    "RowReason",
    "explain_stage",
    "why_missing",
]

MAX_EXAMPLES = 3


@dataclass
class Reason:
    """Why several rows are missing. ``text``: for people; ``examples``: names of some."""

    name: ReasonName
    text: str
    rows: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """What is missing of a stage, and why.

    Attributes:
        nearest: what is stored of the stage with other settings; None where rows are stored with
            these settings, or none at all.
        reasons: most rows first; they do not count rows of videos that were never there.
        missing_videos: those, and why: video id → reason.
    """

    stage: str
    key: str
    wanted: int
    present: int
    failed: int
    missing: int
    nearest: Nearest | None
    reasons: list[Reason]
    missing_videos: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; see docs/extraction.md for the fields."""
        return asdict(self)


def explain_stage(experiment: Experiment, store: Store | None, plan: StagePlan[Any]) -> Explanation:
    """Say why rows of a stage are missing.

    Raises:
        ValueError: a generation's description is damaged.
    """
    nearest = None
    if plan.generation is None and store is not None:
        nearest = nearest_generation(experiment, store, plan.stage)
    return Explanation(
        stage=plan.stage.name,
        key=plan.stage.key,
        wanted=plan.wanted,
        present=plan.present,
        failed=plan.failed,
        missing=len(plan.todo),
        nearest=nearest,
        reasons=_gather(why_missing(experiment, store, plan), plan),
        missing_videos={m.video.video_id: m.reason for m in experiment.missing_videos},
    )


def why_missing(
    experiment: Experiment, store: Store | None, plan: StagePlan[Any]
) -> Iterator[tuple[RowReason, StageRows[Any]]]:
    """The rows that a plan would make, in groups of one reason each; a reason may come again."""
    sift = _without_upstream if isinstance(plan.stage, AlignedStage) else _without_video
    groups, rest = sift(experiment, store, plan.todo)
    yield from groups
    if not rest:
        return
    if plan.generation is None:
        yield RowReason("no_generation", "no row was ever made with these settings"), rest
        return
    has_boxes = isinstance(plan.stage, ObjectsStage) and plan.stage.boxes is not None
    known = StoredNames(plan.generation, has_boxes=has_boxes)
    for number, row in enumerate(rest):
        yield known.why(info_of(row)), rest[number : number + 1]


Sifted = tuple[list[tuple[RowReason, StageRows[Any]]], StageRows[Any]]


def _without_video(experiment: Experiment, store: Store | None, todo: StageRows[Any]) -> Sifted:
    """Rows whose video is known from before and gone now, and the others."""
    groups = []
    left = np.ones(len(todo), dtype=bool)
    for number, source_id in enumerate(todo.source_ids):
        mine = todo.sources == number
        if not mine.any() or experiment.videos[source_id].path.exists():
            continue
        left &= ~mine
        video = experiment.videos[source_id]
        reason = of_video(video.video_id, "video_gone", f"{video.path} is not there any more")
        groups.append((reason, todo.take(mine)))
    return groups, todo.take(left)


def _without_upstream(experiment: Experiment, store: Store | None, todo: StageRows[Any]) -> Sifted:
    """Rows that lack rows they are made from, and the others."""
    stages = {
        stage.name: _Upstream(todo, stage, open_generation(store, stage))
        for stage in experiment.aligned.upstream
    }
    groups = []
    left = np.ones(len(todo), dtype=bool)
    for states in product(("failed", "missing", "there"), repeat=len(stages)):
        named = list(zip(stages, states, strict=True))
        if not {"failed", "missing"} & {*states}:
            continue
        mine = np.all([stages[name].states == state for name, state in named], axis=0)
        if not mine.any():
            continue
        texts = [
            f"rows of {' and '.join(names)} that it is made from {told}"
            for state, told in (("failed", "failed"), ("missing", "are missing"))
            if (names := [name for name, other in named if other == state])
        ]
        if "failed" in states:
            counts = sum((stages[name].failed_in(mine) for name in stages), Counter[str]())
            texts[0] += f" ({', '.join(f'{rows:,} {name}' for name, rows in counts.items())})"
        text = "; ".join(texts)
        reason: ReasonName = "upstream_failed" if "failed" in states else "upstream_missing"
        groups.append((RowReason(reason, text, text), todo.take(mine)))
        left &= ~mine
    return groups, todo.take(left)


class _Upstream:
    """Rows of one stage that rows are made from.

    Attributes:
        states: (n,) of the rows made from them: "failed" if one failed, else "missing" if one is.
    """

    def __init__(self, todo: StageRows[Any], stage: Stage, generation: FeatureStore | None) -> None:
        keys, self._numbers = todo.upstream(stage.name)
        there = np.zeros(len(keys), bool) if generation is None else generation.holds(keys)
        failures = [] if generation is None else generation.failures()
        names = {failure.row_key: class_name(failure.error_class) for failure in failures}
        self._failed = ~there & np.isin(keys, packed_array(names))
        self._classes = {
            int(number): names[key]
            for number, key in zip(
                np.flatnonzero(self._failed), key_texts(keys[self._failed]), strict=True
            )
        }
        has_all = there[self._numbers].all(axis=1)
        has_failed = self._failed[self._numbers].any(axis=1)
        self.states = np.where(has_failed, "failed", np.where(has_all, "there", "missing"))

    def failed_in(self, rows: NDArray[np.bool_]) -> Counter[str]:
        """How many rows failed that some rows are made from, by class."""
        numbers = np.unique(self._numbers[rows])
        return Counter(self._classes[int(n)] for n in numbers if int(n) in self._classes)


def _gather(
    found: Iterable[tuple[RowReason, StageRows[Any]]], plan: StagePlan[Any]
) -> list[Reason]:
    reasons: dict[tuple[str, str], Reason] = {}
    of_several: dict[tuple[str, str], str] = {}  # of the first row, as the text is

    def add(reason: RowReason, rows: int, names: Iterable[str]) -> None:
        place = (reason.name, reason.about)
        made = reasons.setdefault(place, Reason(reason.name, reason.text))
        made.rows += rows
        made.examples += islice(names, MAX_EXAMPLES - len(made.examples))
        several = of_several.setdefault(place, reason.of_several)
        if several and made.rows > 1:
            made.text = several

    for failure in sorted(plan.failures, key=lambda failure: by_number(failure.clip_id)):
        name = class_name(failure.error_class)
        text = f"video {failure.video_id}: failed: {name}: {failure.message}"
        add(RowReason("failed", text, text), 1, [failure.clip_id])
    for reason, rows in found:
        add(reason, len(rows), (info_of(row).clip_id for row in rows))
    return sorted(reasons.values(), key=lambda reason: -reason.rows)
