"""How good scores are on a data set: figures, figures by class, and what training never showed.

The action prior is counted over all labelled training segments of the data set, those without
features among them, in training and in evaluation alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.class_figures import ClassFigures, class_table
from heads.evaluation import write_evaluation
from heads.metrics import Metrics, action_prior, ranked_metrics
from heads.protocols import ranked_figures
from heads.ranking import Ranking, rank_classes
from heads.scores import Scores
from pipeline.segments import Dataset

__all__ = [
    "Measured",
    "Untrained",
    "measure",
    "measure_scores",
    "shortened",
    "some",
    "training_prior",
    "write_measured",
]

MOST_IDS = 5
MOST_CHARACTERS = 130


@dataclass(frozen=True)
class Untrained:
    """Classes of a split's segments that no training segment has: they can hardly be right.

    ``num_segments``: those whose verb or noun is one of these.
    """

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    num_segments: int


@dataclass(frozen=True)
class Measured:
    """Figures of scores: fractions, 0 to 1.

    ``official``: as `heads.protocols.official_metrics`. ``classes``: ``verb`` and ``noun``.
    """

    metrics: Metrics
    official: Mapping[str, float]
    classes: Mapping[str, Sequence[ClassFigures]]
    untrained: Untrained


def training_prior(dataset: Dataset, kind: str) -> NDArray[np.float64]:
    """The action prior (num_verbs, num_nouns) of a data set; zero for pairs that are no action.

    Raises:
        ValueError: no such kind, or no labelled training segment to count.
    """
    train = [segment for segment in dataset.split("train") if segment.labelled]
    prior = action_prior(
        kind,
        np.array([segment.verb_class for segment in train], dtype=np.int64),
        np.array([segment.noun_class for segment in train], dtype=np.int64),
        len(dataset.verb_names),
        len(dataset.noun_names),
    )
    return dataset.protocol.restrict(prior)


def measure(dataset: Dataset, scores: Scores, ranking: Ranking) -> Measured:
    """Figures of scores of a data set's segments.

    Args:
        scores: with labels.
        ranking: of these scores, with a prior from `training_prior`.

    Raises:
        ValueError: no labels, or segments that the data set has not.
    """
    people = {segment.segment_id: segment.participant_id for segment in dataset.segments}
    if unknown := [one for one in scores.segment_ids if one not in people]:
        raise ValueError(
            f"got scores of {some(unknown)}, expected segments of the data set; its labels have "
            "changed since these were evaluated"
        )
    participant_ids = [people[segment_id] for segment_id in scores.segment_ids]
    verbs, nouns = scores.verb_labels, scores.noun_labels
    return Measured(
        metrics=ranked_metrics(ranking, verbs, nouns),
        official=ranked_figures(dataset.protocol, ranking, scores, participant_ids),
        classes={
            "verb": class_table(ranking.verbs[:, 0], verbs, dataset.verb_names),
            "noun": class_table(ranking.nouns[:, 0], nouns, dataset.noun_names),
        },
        untrained=_untrained(dataset, scores),
    )


def measure_scores(dataset: Dataset, scores: Scores, prior_kind: str) -> Measured | None:
    """`measure` with the ranking that a kind of action prior gives; None without labels."""
    if not scores.labelled:
        return None
    prior = training_prior(dataset, prior_kind)
    return measure(dataset, scores, rank_classes(scores.verb_scores, scores.noun_scores, prior))


def some(ids: Sequence[str]) -> str:
    """How many segments these are, and which: the first few of many."""
    more = len(ids) - MOST_IDS
    shown = ", ".join(map(shortened, ids[:MOST_IDS]))
    unit = "segment" if len(ids) == 1 else "segments"
    return f"{len(ids):,} {unit} ({shown}{f' and {more:,} more' if more > 0 else ''})"


def shortened(value: object) -> str:
    """A value as code would spell it, cut where it is longer than any id or class name."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def write_measured(
    folder: Path, scores: Scores, measured: Measured | None, details: Mapping[str, Any]
) -> None:
    """Write ``scores.npz`` and ``metrics.json``; classes never trained are among its details.

    Args:
        folder: made if absent.
        measured: None where the scores have no labels.
        details: JSON-able.
    """
    if measured is None:
        write_evaluation(folder, scores, None, details=details)
        return
    write_evaluation(
        folder,
        scores,
        measured.metrics,
        official=measured.official,
        classes=measured.classes,
        details={**details, "untrained_classes": asdict(measured.untrained)},
    )


def _untrained(dataset: Dataset, scores: Scores) -> Untrained:
    train = [segment for segment in dataset.split("train") if segment.labelled]
    if not train:  # the config reads no training split, so nobody knows
        return Untrained((), (), 0)
    verbs = np.setdiff1d(scores.verb_labels, [segment.verb_class for segment in train])
    nouns = np.setdiff1d(scores.noun_labels, [segment.noun_class for segment in train])
    rows = np.isin(scores.verb_labels, verbs) | np.isin(scores.noun_labels, nouns)
    return Untrained(
        tuple(dataset.verb_names[verb] for verb in verbs),
        tuple(dataset.noun_names[noun] for noun in nouns),
        int(rows.sum()),
    )
