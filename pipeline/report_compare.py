"""What sets runs apart: figures, settings, curves, segments and classes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from heads.class_figures import class_recalls
from pipeline.errors import RunFolderError
from pipeline.report_curves import Chart, Series, draw_chart, log_points
from pipeline.report_run import Branch, ReportedRun
from pipeline.report_settings import flatten

__all__ = [
    "ClassGain",
    "Outcome",
    "Verdict",
    "align_runs",
    "class_gains",
    "comparison_charts",
    "count_outcomes",
    "disagreements",
    "run_labels",
    "setting_differences",
]

SHOWN_SEGMENTS = 40
SHOWN_CLASSES = 20
COLORS = 8
CURVES = (
    ("Verb top-1, validation", "%", "validation_verb_top1", 100.0),
    ("Noun top-1, validation", "%", "validation_noun_top1", 100.0),
    ("Action top-1, validation", "%", "validation_action_top1", 100.0),
    ("Loss, training", "", "train_loss", 1.0),
)


@dataclass(frozen=True)
class Outcome:
    """How many segments ended so, of all that have labels."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Verdict:
    """A run's answer to a segment. ``right``: None without labels."""

    verb: str
    noun: str
    verb_right: bool | None
    noun_right: bool | None
    confidence: float


@dataclass(frozen=True)
class Disagreement:
    """A segment that some runs get right and others do not; ``label`` is "" where it has none."""

    segment_id: str
    narration: str
    label: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class ClassGain:
    """A class's recall in each run, and what the runs after the first gain over it."""

    name: str
    support: int
    recalls: Sequence[float]
    gains: Sequence[float]


def align_runs(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs with their segments in the order of the first.

    Raises:
        RunFolderError: a run comes twice, or splits, segments, classes or labels differ.
    """
    first = runs[0]
    aligned = [first]
    for run in runs[1:]:
        both = f"{first.folder} and {run.folder}"
        if any(run.folder.resolve() == other.folder.resolve() for other in aligned):
            raise RunFolderError(f"got {run.folder} twice, expected runs that differ")
        if run.split != first.split:
            raise RunFolderError(
                f"{both}: got evaluations of splits {first.split} and {run.split}, expected one "
                "split; choose it with --split"
            )
        if len(odd := sorted(set(run.segment_ids) ^ set(first.segment_ids))):
            raise RunFolderError(
                f"{both}: got different segments: {len(odd):,} are in one of them alone, such as "
                f"{odd[0]!r}; evaluate both on the same labels"
            )
        place = {segment_id: i for i, segment_id in enumerate(run.segment_ids)}
        order = np.array([place[segment_id] for segment_id in first.segment_ids])
        aligned.append(
            replace(
                run,
                segment_ids=first.segment_ids,
                verb=_reordered(run.verb, order, first.verb, both),
                noun=_reordered(run.noun, order, first.noun, both),
            )
        )
    return aligned


def run_labels(runs: Sequence[ReportedRun]) -> list[str]:
    """What runs are called: the folder's name, or its path where names are alike."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def setting_differences(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """Settings, stage keys and kept epochs that are not the same in all runs, by name."""
    columns = [_settings(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, [column.get(name, "–") for column in columns]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def comparison_charts(runs: Sequence[ReportedRun], labels: Sequence[str]) -> list[Chart]:
    """Validation accuracies and loss, one line per run."""
    charts = (
        draw_chart(
            title,
            unit,
            [
                Series(label, color(i), log_points(run, column, factor), dashed=i >= COLORS)
                for i, (run, label) in enumerate(zip(runs, labels, strict=True))
            ],
            None,
        )
        for title, unit, column, factor in CURVES
    )
    return [chart for chart in charts if chart is not None]


def color(index: int) -> str:
    """The style sheet's class of the n-th run."""
    return f"c{index % COLORS}"


def count_outcomes(runs: Sequence[ReportedRun], labels: Sequence[str]) -> list[Outcome]:
    """Segments right (verb and noun) in all runs, in none, in one alone; empty without labels."""
    right = _right(runs)[:, runs[0].labelled]
    total = right.shape[1]
    if not total:
        return []
    how_many = right.sum(axis=0)
    counts = [("right in all runs", int((how_many == len(runs)).sum()))]
    counts += [
        (f"right in {label} alone", int((right[i] & (how_many == 1)).sum()))
        for i, label in enumerate(labels)
    ]
    if len(runs) > 2:
        some = int(((how_many > 1) & (how_many < len(runs))).sum())
        counts.append(("right in several runs", some))
    counts.append(("wrong in all runs", int((how_many == 0).sum())))
    return [Outcome(name, count, count / total) for name, count in counts]


def disagreements(runs: Sequence[ReportedRun]) -> tuple[list[Disagreement], int]:
    """Segments that some runs get right and others wrong, and how many there are.

    The surest mistakes come first; equal ones by segment id. Without labels: segments with
    different answers.
    """
    first = runs[0]
    right = _right(runs)
    answers = np.stack([np.stack((run.verb.predictions, run.noun.predictions)) for run in runs])
    differ = np.where(
        first.labelled, right.any(0) & ~right.all(0), (answers != answers[:1]).any((0, 1))
    )
    surest = np.where(right, 0, [run.confidence for run in runs]).max(axis=0)
    order = sorted(
        np.flatnonzero(differ).tolist(), key=lambda i: (-surest[i], first.segment_ids[i])
    )
    return [_disagreement(runs, i) for i in order[:SHOWN_SEGMENTS]], len(order)


def class_gains(runs: Sequence[ReportedRun], branch: str) -> list[ClassGain]:
    """Classes whose recall changes, those first where most segments change."""
    branches: list[Branch] = [getattr(run, branch) for run in runs]
    first = branches[0]
    labels = first.labels[first.labelled]
    classes, support = np.unique(labels, return_counts=True)
    recalls = np.stack(
        [class_recalls(one.predictions[one.labelled], labels, classes) for one in branches]
    )
    gains = recalls[1:] - recalls[:1]
    changed = np.abs(gains).max(axis=0) * support
    order = [int(i) for i in np.argsort(-changed, kind="stable") if changed[i] > 0]
    return [
        ClassGain(
            first.names[classes[i]], int(support[i]), recalls[:, i].tolist(), gains[:, i].tolist()
        )
        for i in order[:SHOWN_CLASSES]
    ]


def _reordered(branch: Branch, order: npt.NDArray[np.int64], first: Branch, both: str) -> Branch:
    if len(branch.names) != len(first.names):
        raise RunFolderError(
            f"{both}: got {len(first.names)} and {len(branch.names)} {branch.name} classes, "
            "expected the same"
        )
    labels = branch.labels[order]
    if len(odd := np.flatnonzero(labels != first.labels)):
        raise RunFolderError(
            f"{both}: got different {branch.name} labels for {len(odd):,} segments; evaluate both "
            "on the same labels"
        )
    return replace(branch, names=first.names, scores=branch.scores[order], labels=labels)


def _settings(run: ReportedRun) -> dict[str, str]:
    epoch = {} if run.kept_epoch is None else {"kept epoch": str(run.kept_epoch)}
    return {
        **dict(flatten(run.config.model_dump(mode="json"))),
        **{f"key of stage {name}": key[:12] for name, key in run.stage_keys.items()},
        **epoch,
    }


def _right(runs: Sequence[ReportedRun]) -> npt.NDArray[np.bool_]:
    """(runs, n) whether verb and noun are right."""
    return np.stack([run.right for run in runs])


def _disagreement(runs: Sequence[ReportedRun], row: int) -> Disagreement:
    first = runs[0]
    segment = first.segments.get(first.segment_ids[row])
    named = [_label(branch, row) for branch in (first.verb, first.noun)]
    return Disagreement(
        segment_id=first.segment_ids[row],
        narration=segment.narration if segment else "",
        label=" ".join(named) if all(named) else "",
        verdicts=[_verdict(run, row) for run in runs],
    )


def _label(branch: Branch, row: int) -> str:
    return branch.names[branch.labels[row]] if branch.labels[row] >= 0 else ""


def _verdict(run: ReportedRun, row: int) -> Verdict:
    verb, noun = run.verb, run.noun
    return Verdict(
        verb=verb.names[verb.predictions[row]],
        noun=noun.names[noun.predictions[row]],
        verb_right=bool(verb.right[row]) if verb.labelled[row] else None,
        noun_right=bool(noun.right[row]) if noun.labelled[row] else None,
        confidence=float(run.confidence[row]),
    )
