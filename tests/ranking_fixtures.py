"""A slow ranking of actions, written from what the official code does, and scores to rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_actions_slowly(
    verb_scores: NDArray[np.floating],
    noun_scores: NDArray[np.floating],
    prior: NDArray[np.float64],
) -> list[tuple[int, int]]:
    """The best 100 pairs of one segment, best first.

    The pairs of the best 100 verbs and nouns in their order, sorted, cut, and sorted again.
    """
    verbs = [int(verb) for verb in verb_scores.argsort()[::-1][:100]]
    nouns = [int(noun) for noun in noun_scores.argsort()[::-1][:100]]
    pairs = [(verb, noun) for verb in verbs for noun in nouns]
    products = np.array([float(verb_scores[v]) * float(noun_scores[n]) for v, n in pairs])
    products *= [prior[pair] for pair in pairs]
    chosen = products.argsort()[::-1][:100]
    again = products[chosen].argsort()[::-1]
    return [pairs[chosen[place]] for place in again]


def random_scores(
    generator: np.random.Generator, size: int, classes: int, *, levels: int = 0
) -> NDArray[np.float64]:
    """Probabilities (size, classes); with `levels`, of so many values, so full of ties."""
    raw = generator.random((size, classes))
    if levels:
        raw = np.floor(raw * levels) + 1
    scores: NDArray[np.float64] = raw / raw.sum(axis=1, keepdims=True)
    return scores
