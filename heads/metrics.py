"""Accuracy of verbs, nouns and actions. numpy only, no state.

One rule ranks everything: classes are ordered by score, highest first, and classes of equal score
by class id. A label is a top-k hit if fewer than k classes come before it.

Guesses where the papers are silent:
- with the `conditional` prior, a verb that training never saw has P(noun | verb) = 0;
- an action is any (verb, noun) pair, seen in training or not; ties between actions are ordered by
  `verb * num_nouns + noun`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def label_ranks(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many classes come before the label, per row.

    Args:
        scores: (n, classes).
        labels: (n,) class ids.

    Returns:
        (n,) ranks; 0 = the label is the best class.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    before: NDArray[np.int64] = np.sum((scores > own) | ((scores == own) & earlier), axis=1)
    return before


def action_ranks(
    verb_scores: NDArray[np.floating],
    noun_scores: NDArray[np.floating],
    verb_labels: NDArray[np.integer],
    noun_labels: NDArray[np.integer],
    prior: NDArray[np.float64],
) -> NDArray[np.int64]:
    """How many of all V * N actions come before the label's, per row.

    The score of an action is `P(v) * P(n) * prior[v, n]` (eq 3.14), in float64. One row of actions
    is held at a time, which stays in the processor's cache.

    Args:
        verb_scores: (n, V) probabilities.
        noun_scores: (n, N) probabilities.
        verb_labels: (n,) class ids.
        noun_labels: (n,) class ids.
        prior: (V, N).

    Returns:
        (n,) ranks; 0 = the label is the best action.
    """
    labels = verb_labels.astype(np.int64) * prior.shape[1] + noun_labels
    verbs, nouns = verb_scores.astype(np.float64), noun_scores.astype(np.float64)
    ranks = np.empty(len(labels), dtype=np.int64)
    pairs = np.empty(prior.shape)
    actions = pairs.reshape(-1)
    for i, label in enumerate(labels):
        np.multiply(verbs[i][:, None], nouns[i], out=pairs)
        np.multiply(pairs, prior, out=pairs)
        own = actions[label]
        ranks[i] = np.count_nonzero(actions > own) + np.count_nonzero(actions[:label] == own)
    return ranks


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
        ValueError: if `kind` is none of these.
    """
    if kind not in PRIORS:
        raise ValueError(f"got prior '{kind}', expected one of {list(PRIORS)}")
    if kind == "none":
        return np.ones((num_verbs, num_nouns))
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
    """Top-1 and top-5 of verbs, nouns and actions.

    Args:
        verb_scores: (n, V) probabilities, n at least 1.
        noun_scores: (n, N) probabilities.
        verb_labels: (n,) class ids.
        noun_labels: (n,) class ids.
        prior: (V, N), from `action_prior`.

    Raises:
        ValueError: if a score is NaN or infinite (such a score has no rank), or there is no row.
    """
    if not len(verb_labels):
        raise ValueError("got no segment to measure, expected at least one")
    for name, scores in (("verb", verb_scores), ("noun", noun_scores)):
        if bad := int(np.sum(~np.isfinite(scores).all(axis=1))):
            raise ValueError(f"got NaN or infinite {name} scores in {bad} segments")
    ranks = {
        "verb": label_ranks(verb_scores, verb_labels),
        "noun": label_ranks(noun_scores, noun_labels),
        "action": action_ranks(verb_scores, noun_scores, verb_labels, noun_labels, prior),
    }
    accuracies = {
        f"{name}_top{k}": float(np.mean(rank < k)) for name, rank in ranks.items() for k in (1, 5)
    }
    return Metrics(**accuracies, num_segments=len(verb_labels))
