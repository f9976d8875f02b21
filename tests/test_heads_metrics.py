import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranking_fixtures import best_actions_slowly

from heads.metrics import PRIORS, Metrics, action_prior, recognition_metrics, softmax

V, N = 5, 6


def best_five_slowly(scores: NDArray[np.floating]) -> list[int]:
    """Best first, as the official code sorts."""
    return [int(place) for place in scores.argsort()[::-1][:5]]


def measure_slowly(
    verb_scores: NDArray[np.float32],
    noun_scores: NDArray[np.float32],
    verbs: NDArray[np.int64],
    nouns: NDArray[np.int64],
    prior: NDArray[np.float64],
) -> Metrics:
    hits = {f"{name}_top{k}": 0 for name in ("verb", "noun", "action") for k in (1, 5)}
    for p_v, p_n, v, n in zip(verb_scores, noun_scores, verbs, nouns, strict=True):
        best = {
            "verb": best_five_slowly(p_v),
            "noun": best_five_slowly(p_n),
            "action": best_actions_slowly(p_v, p_n, prior)[:5],
        }
        labels = {"verb": v, "noun": n, "action": (v, n)}
        for name, label in labels.items():
            hits[f"{name}_top1"] += label == best[name][0]
            hits[f"{name}_top5"] += label in best[name]
    return Metrics(
        **{name: count / len(verbs) for name, count in hits.items()}, num_segments=len(verbs)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(PRIORS), st.booleans())
def test_metrics_equal_brute_force(seed: int, kind: str, coarse: bool) -> None:
    """Coarse scores are full of ties, and of zeros."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 12))
    verb_scores = generator.random((size, V)).astype(np.float32)
    noun_scores = generator.random((size, N)).astype(np.float32)
    if coarse:
        for scores in (verb_scores, noun_scores):
            scores[:] = np.round(scores * 2) / 2
    verbs, nouns = generator.integers(V, size=size), generator.integers(N, size=size)
    trained = generator.integers(V, size=9), generator.integers(N, size=9)
    prior = action_prior(kind, *trained, V, N)
    arguments = (verb_scores, noun_scores, verbs, nouns, prior)
    assert recognition_metrics(*arguments) == measure_slowly(*arguments)


def test_metrics_by_hand() -> None:
    verb_scores = np.array([[0.6, 0.4], [0.6, 0.4]], dtype=np.float32)
    noun_scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], dtype=np.float32)
    # Products: .30 .18 .12 / .20 .12 .08 and .06 .48 .06 / .04 .32 .04. Pair (1, 1) was seen three
    # times in four, (0, 2) once: segment 0 ranks (1, 1) .09, (0, 2) .03, then zeros in order.
    prior = action_prior("frequency", np.array([1, 1, 1, 0]), np.array([1, 1, 1, 2]), 2, 3)
    metrics = recognition_metrics(
        verb_scores, noun_scores, np.array([0, 1]), np.array([2, 1]), prior
    )
    assert metrics == Metrics(
        verb_top1=0.5,
        verb_top5=1.0,
        noun_top1=0.5,
        noun_top5=1.0,
        action_top1=0.5,
        action_top5=1.0,
        num_segments=2,
    )


def test_priors_by_hand() -> None:
    verbs, nouns = np.array([0, 0, 0, 2]), np.array([0, 0, 1, 1])
    assert action_prior("frequency", verbs, nouns, 3, 2).tolist() == [
        [0.5, 0.25],
        [0, 0],
        [0, 0.25],
    ]
    conditional = action_prior("conditional", verbs, nouns, 3, 2)
    np.testing.assert_allclose(conditional, np.array([[2 / 3, 1 / 3], [0.0, 0.0], [0.0, 1.0]]))
    assert action_prior("none", verbs, nouns, 3, 2).tolist() == [[1, 1], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"got prior 'flat', expected one of \['frequency',"):
        action_prior("flat", verbs, nouns, 3, 2)


def test_a_prior_of_no_segments_is_refused_unless_it_counts_none() -> None:
    nothing = np.empty(0, dtype=np.int64)
    for kind in ("frequency", "conditional"):
        with pytest.raises(ValueError, match=f"no labelled training segment, .*'{kind}' prior"):
            action_prior(kind, nothing, nothing, 3, 2)
    assert action_prior("none", nothing, nothing, 3, 2).shape == (3, 2)


def test_softmax_by_hand() -> None:
    logits = np.array([[math.log(1), math.log(2), math.log(5)], [1e4, 1e4, -1e4]])
    scores = softmax(logits)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [[1 / 8, 2 / 8, 5 / 8], [0.5, 0.5, 0]], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_without_a_rank_are_refused(bad: float) -> None:
    good, label = np.full((2, 3), 1 / 3, dtype=np.float32), np.array([0, 0])
    broken = good.copy()
    broken[1, 2] = bad
    prior = np.ones((3, 3))
    with pytest.raises(ValueError, match="got NaN or infinite verb scores in 1 segments"):
        recognition_metrics(broken, good, label, label, prior)
    with pytest.raises(ValueError, match="got NaN or infinite noun scores in 1 segments"):
        recognition_metrics(good, broken, label, label, prior)


def test_nothing_to_measure_is_refused() -> None:
    none, label = np.empty((0, 3), dtype=np.float32), np.empty(0, dtype=np.int64)
    with pytest.raises(ValueError, match="got no segment to measure"):
        recognition_metrics(none, none, label, label, np.ones((3, 3)))
