"""Which classes come first, against slow sorts of everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_fixtures import best_actions_slowly, random_scores

from heads.ranking import BEST_ACTIONS, best_actions, class_order, rank_classes


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.sampled_from([(1, 1), (2, 3), (7, 4), (30, 12), (110, 40), (12, 130)]),
    levels=st.sampled_from([0, 2, 30]),
    count=st.sampled_from([1, 5, 100]),
    dense=st.booleans(),
)
def test_best_actions_are_those_of_sorting_every_pair(
    seed: int, sizes: tuple[int, int], levels: int, count: int, dense: bool
) -> None:
    generator = np.random.default_rng(seed)
    verbs, nouns = (random_scores(generator, 3, size, levels=levels) for size in sizes)
    prior = np.round(generator.random(sizes), 1) * (generator.random(sizes) < 0.3 + 0.7 * dense)
    found = best_actions(verbs, nouns, prior, count)
    for row in range(3):
        expected = best_actions_slowly(verbs[row], nouns[row], prior)[:count]
        assert list(zip(found.verbs[row], found.nouns[row], strict=True)) == expected
        scores = [verbs[row, v] * nouns[row, n] * prior[v, n] for v, n in expected]
        assert found.scores[row].tolist() == scores


def test_more_segments_than_fit_a_block_stay_in_order() -> None:
    generator = np.random.default_rng(0)
    verbs, nouns = random_scores(generator, 71, 9), random_scores(generator, 71, 8)
    prior = generator.random((9, 8))
    together = best_actions(verbs, nouns, prior, 5)
    for row in range(71):
        alone = best_actions(verbs[[row]], nouns[[row]], prior, 5)
        assert together.verbs[row].tolist() == alone.verbs[0].tolist()
        assert together.nouns[row].tolist() == alone.nouns[0].tolist()


def test_a_pair_outside_the_best_hundred_of_a_kind_is_no_action() -> None:
    """However high its prior: the official code never looks at it."""
    verbs, nouns = np.array([[0.6, 0.4]]), np.linspace(2, 1, 120)[None] / 180
    prior = np.ones((2, 120))
    prior[1, 100] = 1e9
    assert best_actions(verbs, nouns, prior, 1).nouns.tolist() == [[0]]
    prior[1, 99] = 1e9
    assert best_actions(verbs, nouns, prior, 1).nouns.tolist() == [[99]]


def test_of_equal_classes_the_order_is_that_of_the_official_sort() -> None:
    scores = np.array([[0.2, 0.4, 0.2, 0.2]])
    assert class_order(scores).tolist() == [scores[0].argsort()[::-1].tolist()]
    halves = np.full((1, 2), 0.5)
    expected = best_actions_slowly(halves[0], halves[0], np.ones((2, 2)))
    found = best_actions(halves, halves, np.ones((2, 2)))
    assert list(zip(found.verbs[0], found.nouns[0], strict=True)) == expected


def test_tiny_probabilities_are_still_ordered() -> None:
    """Their products are below the smallest float32."""
    scores = np.array([[1e-30, 2e-30]], dtype=np.float32)
    found = best_actions(scores, scores, np.ones((2, 2)))
    assert (found.verbs[0, 0], found.nouns[0, 0]) == (1, 1)
    assert found.scores[0, 0] == float(scores[0, 1]) ** 2


def test_at_most_a_hundred_actions() -> None:
    verbs = nouns = random_scores(np.random.default_rng(1), 2, 20)
    assert best_actions(verbs, nouns, np.ones((20, 20))).verbs.shape == (2, BEST_ACTIONS)
    assert best_actions(verbs, nouns, np.ones((20, 20)), 500).verbs.shape == (2, BEST_ACTIONS)


def test_hits_stand_where_the_label_does() -> None:
    verbs, nouns = np.array([[0.1, 0.9]] * 2), np.array([[0.2, 0.5, 0.3]] * 2)
    ranking = rank_classes(verbs, nouns, np.ones((2, 3)))
    hits = ranking.hits(np.array([1, 0]), np.array([1, 2]))
    assert hits["verb"].tolist() == [[True, False], [False, True]]
    assert hits["noun"].tolist() == [[True, False, False], [False, True, False]]
    # Products: (1,1) .45, (1,2) .27, (1,0) .18, (0,1) .05, (0,2) .03
    assert hits["action"].tolist() == [[True, *[False] * 4], [*[False] * 4, True]]


def test_a_prior_of_other_classes_is_refused() -> None:
    scores = np.full((1, 2), 0.5)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(V, N\) = \(2, 2\)"):
        best_actions(scores, scores, np.ones((2, 3)))
