"""The official evaluation of each data set: what it asks for, and its figures.

All figures are fractions, 0 to 1, under flat names. `official_metrics` says which there are, and
leaves out those over nothing, such as tail classes in a split that has none.

Guesses where papers and official code are silent:
- EGTEA: classes without a segment in the split are left out of a mean; an action is one of the
  data set's 106 pairs, so all other pairs are never predicted;
- EPIC-55: the official code multiplies by a prior only if it is given one; here the run's setting
  says which. EPIC-100's code knows no prior: `evaluate.action_prior: none` is its figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heads.class_figures import class_precisions, class_recalls
from heads.metrics import top_k
from heads.ranking import Ranking, rank_classes

if TYPE_CHECKING:
    from heads.scores import Scores

PROTOCOLS = ("epic55", "epic100", "egtea", "plain")
SUM_TOLERANCE = 1e-3
"""Of a segment's probabilities; scores may have been kept in half precision."""


@dataclass(frozen=True)
class Protocol:
    """The official evaluation of one data set, and the lists of classes it needs.

    Raises:
        ValueError: if `name` is none of `PROTOCOLS`.
    """

    name: str = "plain"
    """`epic55`, `epic100`, `egtea`, or `plain` for a data set without an official evaluation."""
    many_shot_verbs: tuple[int, ...] = ()
    """EPIC-55: verb classes of more than 100 training segments."""
    many_shot_nouns: tuple[int, ...] = ()
    """EPIC-55: noun classes of more than 100 training segments."""
    tail_verbs: tuple[int, ...] = ()
    """EPIC-100: verb classes of the tail."""
    tail_nouns: tuple[int, ...] = ()
    """EPIC-100: noun classes of the tail."""
    unseen_participants: tuple[str, ...] = ()
    """EPIC-100: participants of the validation split who are in no training video."""
    actions: tuple[tuple[int, int], ...] | None = None
    """EGTEA: the (verb, noun) of each action class, in the order of the official ids; None where
    an action is any pair."""

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"got protocol '{self.name}', expected one of {list(PROTOCOLS)}")

    def restrict(self, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """A prior (V, N) that is zero outside `actions`."""
        if self.actions is None:
            return prior
        pairs = tuple(np.array(self.actions, dtype=np.int64).reshape(-1, 2).T)
        restricted = np.zeros_like(prior)
        restricted[pairs] = prior[pairs]
        return restricted


def official_metrics(
    protocol: Protocol,
    scores: Scores,
    participant_ids: Sequence[str],
    prior: NDArray[np.float64],
) -> dict[str, float]:
    """The figures of a data set's official evaluation.

    Always `verb_top1`, `verb_top5`, and the same of `noun` and `action`. With `epic55`
    `verb_class_mean_precision` and `verb_class_mean_recall` over the many-shot classes that have
    segments, and of `noun` and `action` (many-shot verb and many-shot noun). With `epic100`
    `unseen_verb_top1` and `tail_verb_top1`, and of `noun` and `action` (tail verb or tail noun).
    With `egtea` `mean_class_accuracy` of actions, `verb_mean_class_accuracy` and
    `noun_mean_class_accuracy`.

    Args:
        protocol: of the data set.
        scores: with labels.
        participant_ids: of each segment.
        prior: (V, N), from `action_prior`.

    Raises:
        ValueError: if segments have no labels, scores are no probabilities, or sizes differ.
    """
    _check_probabilities(scores)
    ranking = rank_classes(scores.verb_scores, scores.noun_scores, protocol.restrict(prior))
    return ranked_figures(protocol, ranking, scores, participant_ids)


def ranked_figures(
    protocol: Protocol, ranking: Ranking, scores: Scores, participant_ids: Sequence[str]
) -> dict[str, float]:
    """`official_metrics` of scores that are ranked already; of `scores`, only labels are used.

    Raises:
        ValueError: if segments have no labels, or sizes differ.
    """
    if not scores.labelled:
        raise ValueError("got segments without labels, expected labels to measure against")
    if len(participant_ids) != len(scores.segment_ids):
        raise ValueError(
            f"got {len(participant_ids)} participant ids for {len(scores.segment_ids)} segments"
        )
    num_nouns = ranking.num_nouns
    best = _Best(
        {"verb": ranking.verbs[:, 0], "noun": ranking.nouns[:, 0], "action": ranking.actions[:, 0]},
        {
            "verb": scores.verb_labels,
            "noun": scores.noun_labels,
            "action": scores.verb_labels * num_nouns + scores.noun_labels,
        },
    )
    hits = ranking.hits(scores.verb_labels, scores.noun_labels)
    figures = top_k(hits)
    match protocol.name:
        case "epic55":
            figures.update(_many_shot(protocol, best, num_nouns))
        case "epic100":
            figures.update(_unseen_and_tail(protocol, best, participant_ids))
        case "egtea":
            for name, prefix in (("action", ""), ("verb", "verb_"), ("noun", "noun_")):
                classes = np.unique(best.labels[name])
                recalls = class_recalls(best.predicted[name], best.labels[name], classes)
                figures[f"{prefix}mean_class_accuracy"] = float(recalls.mean())
    return figures


@dataclass(frozen=True)
class _Best:
    """The best class of each segment and its label, by `verb`, `noun` and `action`."""

    predicted: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.int64]]


def _many_shot(protocol: Protocol, best: _Best, num_nouns: int) -> Iterator[tuple[str, float]]:
    is_many_shot = {
        "verb": np.isin(best.labels["verb"], protocol.many_shot_verbs),
        "noun": np.isin(best.labels["noun"], protocol.many_shot_nouns),
    }
    is_many_shot["action"] = is_many_shot["verb"] & is_many_shot["noun"]
    for name, rows in is_many_shot.items():
        if not rows.any():
            continue
        predicted, labels = best.predicted[name], best.labels[name]
        classes = np.unique(labels[rows])
        precisions = class_precisions(predicted, labels, classes)
        yield f"{name}_class_mean_precision", float(precisions.mean())
        yield f"{name}_class_mean_recall", float(class_recalls(predicted, labels, classes).mean())


def _unseen_and_tail(
    protocol: Protocol, best: _Best, participant_ids: Sequence[str]
) -> Iterator[tuple[str, float]]:
    unseen = np.isin(np.array(participant_ids, dtype=np.str_), protocol.unseen_participants)
    tail_verb = np.isin(best.labels["verb"], protocol.tail_verbs)
    tail_noun = np.isin(best.labels["noun"], protocol.tail_nouns)
    tail = {"verb": tail_verb, "noun": tail_noun, "action": tail_verb | tail_noun}
    for name, labels in best.labels.items():
        hit = best.predicted[name] == labels
        for subset, rows in (("unseen", unseen), ("tail", tail[name])):
            if rows.any():
                yield f"{subset}_{name}_top1", float(hit[rows].mean())


def _check_probabilities(scores: Scores) -> None:
    for name, rows in (("verb", scores.verb_scores), ("noun", scores.noun_scores)):
        if (rows < 0).any() or (abs(rows.sum(axis=1) - 1) > SUM_TOLERANCE).any():
            raise ValueError(
                f"got {name} scores that are no probabilities, expected rows of sum 1; take the "
                "softmax of logits first"
            )
