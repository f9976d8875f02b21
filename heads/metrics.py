"""Accuracy of verbs, nouns and actions. numpy only, no state.

A label is a top-k hit if it is among the first k classes, in the order of `heads.ranking`.

Guess where the papers are silent: with the `conditional` prior, a verb that training never saw has
P(noun | verb) = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.ranking import TOP, Ranking, rank_classes

PRIORS = ("frequency", "conditional", "none")


@dataclass(frozen=True)
class Metrics:
    """Top-k accuracies as fractions of `num_segments`, 0 to 1."""

    verb_top1: float
    verb_top5: float
    noun_top1: float
    noun_top5: float
    action_top1: float
    action_top5: float
    num_segments: int


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis; no overflow for any finite logits."""
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def action_prior(
    kind: str,
    verbs: NDArray[np.integer],
    nouns: NDArray[np.integer],
    num_verbs: int,
    num_nouns: int,
) -> NDArray[np.float64]:
    """The factor `mu(v, n)` of eq 3.14.

    Args:
        kind: `frequency`, the pair's share of the training segments; `conditional`, P(noun | verb)
            among them; `none`, 1 everywhere.
        verbs: (n,) verb ids of the training segments.
        nouns: (n,) their noun ids.
        num_verbs: V.
        num_nouns: N.

    Returns:
        (V, N).

    Raises:
        ValueError: if `kind` is none of these, or there is no training segment to count.
    """
    if kind not in PRIORS:
        raise ValueError(f"got prior '{kind}', expected one of {list(PRIORS)}")
    if kind == "none":
        return np.ones((num_verbs, num_nouns))
    if not len(verbs):
        raise ValueError(
            f"got no labelled training segment, expected some to count a '{kind}' prior on; use "
            "'none' without them"
        )
    counts = np.zeros((num_verbs, num_nouns))
    np.add.at(counts, (verbs, nouns), 1)
    if kind == "frequency":
        return counts / counts.sum()
    per_verb = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, per_verb, out=np.zeros_like(counts), where=per_verb > 0)


def recognition_metrics(
    verb_scores: NDArray[np.floating],
    noun_scores: NDArray[np.floating],
    verb_labels: NDArray[np.integer],
    noun_labels: NDArray[np.integer],
    prior: NDArray[np.float64],
) -> Metrics:
    """Top-1 and top-5 of verbs, nouns and actions; `heads.ranking` says what ranks them.

    Args:
        verb_scores: (n, V) probabilities, n at least 1.
        noun_scores: (n, N) probabilities.
        verb_labels: (n,) class ids.
        noun_labels: (n,) class ids.
        prior: (V, N), from `action_prior`.

    Raises:
        ValueError: if a score is NaN or infinite (such a score has no rank), there is no row, or
            the prior is of other classes.
    """
    return ranked_metrics(rank_classes(verb_scores, noun_scores, prior), verb_labels, noun_labels)


def ranked_metrics(
    ranking: Ranking, verb_labels: NDArray[np.integer], noun_labels: NDArray[np.integer]
) -> Metrics:
    """`recognition_metrics` of scores that are ranked already."""
    return Metrics(**top_k(ranking.hits(verb_labels, noun_labels)), num_segments=len(verb_labels))


def top_k(hits: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """`verb_top1`, `verb_top5`, `noun_top1` … as fractions, from `Ranking.hits`."""
    return {
        f"{name}_top{k}": float(places[:, :k].any(axis=1).mean())
        for name, places in hits.items()
        for k in (1, TOP)
    }
