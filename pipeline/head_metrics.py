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
from heads.metrics import Metrics, action_prior
from heads.protocols import official_metrics
from heads.ranking import class_order
from heads.scores import Scores
from pipeline.segments import Dataset

__all__ = ["Measured", "Untrained", "measure", "training_prior", "write_measured"]


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


def measure(dataset: Dataset, scores: Scores, prior: NDArray[np.float64]) -> Measured:
    """Figures of scores of a data set's segments.

    Args:
        scores: with labels.
        prior: from `training_prior`.

    Raises:
        ValueError: no labels, or scores that are no probabilities.
        KeyError: a segment that the data set has not.
    """
    people = {segment.segment_id: segment.participant_id for segment in dataset.segments}
    participant_ids = [people[segment_id] for segment_id in scores.segment_ids]
    best = {
        "verb": (scores.verb_scores, scores.verb_labels, dataset.verb_names),
        "noun": (scores.noun_scores, scores.noun_labels, dataset.noun_names),
    }
    return Measured(
        metrics=scores.metrics(prior),
        official=official_metrics(dataset.protocol, scores, participant_ids, prior),
        classes={
            name: class_table(class_order(rows)[:, 0], labels, names)
            for name, (rows, labels, names) in best.items()
        },
        untrained=_untrained(dataset, scores),
    )


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
    train = dataset.split("train")
    verbs = np.setdiff1d(scores.verb_labels, [segment.verb_class for segment in train])
    nouns = np.setdiff1d(scores.noun_labels, [segment.noun_class for segment in train])
    rows = np.isin(scores.verb_labels, verbs) | np.isin(scores.noun_labels, nouns)
    return Untrained(
        tuple(dataset.verb_names[verb] for verb in verbs),
        tuple(dataset.noun_names[noun] for noun in nouns),
        int(rows.sum()),
    )
