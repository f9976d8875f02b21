"""Which classes a segment's scores put first. numpy only, no state.

The order is that of the official code of EPIC-KITCHENS, ties included: `scores.argsort()[::-1]`
with NumPy's own sort. NumPy leaves the order of equal scores open; it is the same for every run on
one kind of processor, in float32 and float64 alike.

Actions are ranked as the official code does: the products of the best 100 verbs and the best 100
nouns, times the prior; of these the best 100, which are then sorted once more. That second sort
changes nothing but the order of equal products, and is kept for their sake.

Differences, both where the official code has nothing to say:
- it takes a softmax of the chosen logits, here the products are of the probabilities over all
  classes: a factor per segment, which moves no action past another;
- EPIC-100's takes that softmax over the logits of all segments at once, so whole segments come
  out as zeros where another segment has far higher logits. Here each segment stands for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BEST_CLASSES = 100
"""Verbs, and nouns, that actions are made of."""
BEST_ACTIONS = 100
TOP = 5
_BLOCK_ROWS = 32
"""Segments at a time: their products, 2.5 MB, stay in the processor's cache."""


@dataclass(frozen=True)
class BestActions:
    """The best actions of each segment, best first: (n, count) each."""

    verbs: NDArray[np.int64]
    nouns: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """The best five classes of each segment, best first: (n, 5), fewer where there are fewer."""

    verbs: NDArray[np.int64]
    nouns: NDArray[np.int64]
    actions: NDArray[np.int64]
    """`verb * num_nouns + noun`."""
    num_nouns: int

    def hits(
        self, verb_labels: NDArray[np.integer], noun_labels: NDArray[np.integer]
    ) -> dict[str, NDArray[np.bool_]]:
        """Where the label stands: `verb`, `noun`, `action` → (n, 5), true at the label's place."""
        action_labels = verb_labels.astype(np.int64) * self.num_nouns + noun_labels
        return {
            "verb": self.verbs == verb_labels[:, None],
            "noun": self.nouns == noun_labels[:, None],
            "action": self.actions == action_labels[:, None],
        }


def class_order(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Class ids, best first: (n, classes) → (n, classes)."""
    order: NDArray[np.int64] = scores.argsort(axis=-1)[:, ::-1]
    return order


def rank_classes(
    verb_scores: NDArray[np.floating],
    noun_scores: NDArray[np.floating],
    prior: NDArray[np.float64],
) -> Ranking:
    """The five best verbs, nouns and actions.

    Args:
        verb_scores: (n, V) probabilities, n at least 1.
        noun_scores: (n, N) probabilities.
        prior: (V, N), from `action_prior`.

    Raises:
        ValueError: if a score is NaN or infinite (such a score has no rank), there is no row, or
            the prior is of other classes.
    """
    if not len(verb_scores):
        raise ValueError("got no segment to measure, expected at least one")
    for name, scores in (("verb", verb_scores), ("noun", noun_scores)):
        if bad := int(np.sum(~np.isfinite(scores).all(axis=1))):
            raise ValueError(f"got NaN or infinite {name} scores in {bad} segments")
    best = best_actions(verb_scores, noun_scores, prior, TOP)
    num_nouns = noun_scores.shape[1]
    return Ranking(
        verbs=class_order(verb_scores)[:, :TOP],
        nouns=class_order(noun_scores)[:, :TOP],
        actions=best.verbs * num_nouns + best.nouns,
        num_nouns=num_nouns,
    )


def best_actions(
    verb_scores: NDArray[np.floating],
    noun_scores: NDArray[np.floating],
    prior: NDArray[np.float64],
    count: int = BEST_ACTIONS,
) -> BestActions:
    """The best `count` actions by `P(v) * P(n) * prior[v, n]` (eq 3.14), in float64.

    Args:
        verb_scores: (n, V) finite probabilities.
        noun_scores: (n, N) finite probabilities.
        prior: (V, N).
        count: at most `BEST_ACTIONS`; fewer come where there are fewer pairs.

    Raises:
        ValueError: if the prior is of other classes.
    """
    expected = (verb_scores.shape[1], noun_scores.shape[1])
    if prior.shape != expected:
        raise ValueError(f"got a prior of shape {prior.shape}, expected (V, N) = {expected}")
    verbs = class_order(verb_scores)[:, :BEST_CLASSES]
    nouns = class_order(noun_scores)[:, :BEST_CLASSES]
    p_v = np.take_along_axis(verb_scores, verbs, axis=1).astype(np.float64)
    p_n = np.take_along_axis(noun_scores, nouns, axis=1).astype(np.float64)
    num_nouns = prior.shape[1]
    count = min(count, BEST_ACTIONS, verbs.shape[1] * nouns.shape[1])
    places = np.empty((len(verbs), count), dtype=np.int64)
    scores = np.empty((len(verbs), count))
    for start in range(0, len(verbs), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        products = p_v[rows, :, None] * p_n[rows, None, :]
        products *= prior.take(verbs[rows, :, None] * num_nouns + nouns[rows, None, :])
        places[rows] = _best_places(products, count)
        flat = products.reshape(len(products), -1)
        scores[rows] = np.take_along_axis(flat, places[rows], axis=1)
    verb_places, noun_places = np.divmod(places, nouns.shape[1])
    return BestActions(
        verbs=np.take_along_axis(verbs, verb_places, axis=1),
        nouns=np.take_along_axis(nouns, noun_places, axis=1),
        scores=scores,
    )


def _best_places(products: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Where the best `count` of each (V, N) stand in it, flattened: (b, V, N) → (b, count).

    Sorting all of them takes most of an evaluation's time, so only those are sorted that can be
    among the best: the best noun of each verb tells how good `count` of them are at least.
    """
    flat = products.reshape(len(products), -1)
    places = np.empty((len(flat), count), dtype=np.int64)
    per_verb = products.max(axis=2)
    floors = (
        np.partition(per_verb, -count - 1, axis=1)[:, -count - 1]
        if per_verb.shape[1] > count
        else np.zeros(len(flat))
    )
    for row, (scores, floor) in enumerate(zip(flat, floors, strict=True)):
        candidates = np.flatnonzero(scores >= floor) if floor > 0 else np.empty(0, dtype=np.int64)
        found = candidates[scores[candidates].argsort()[::-1]][: count + 1]
        best = scores[found]
        if len(found) > count and (best[:-1] > best[1:]).all():
            places[row] = found[:count]
        else:  # ties: their order is that of a sort of everything
            places[row] = _sorted_twice(scores)[:count]
    return places


def _sorted_twice(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The places of the best `BEST_ACTIONS`, best first, as the official code orders ties."""
    best: NDArray[np.int64] = scores.argsort()[::-1][:BEST_ACTIONS]
    return best[scores[best].argsort()[::-1]]
