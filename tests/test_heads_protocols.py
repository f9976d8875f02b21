"""Official evaluations, against slow references written from their definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranking_fixtures import best_actions_slowly, random_scores

from heads.protocols import PROTOCOLS, Protocol, official_metrics
from heads.scores import Scores

V, N = 6, 7
TOP_K = {f"{name}_top{k}" for name in ("verb", "noun", "action") for k in (1, 5)}


def make_scores(generator: np.random.Generator, size: int, *, levels: int = 0) -> Scores:
    return Scores(
        segment_ids=tuple(f"s{row}" for row in range(size)),
        verb_scores=random_scores(generator, size, V, levels=levels),
        noun_scores=random_scores(generator, size, N, levels=levels),
        verb_labels=generator.integers(V, size=size),
        noun_labels=generator.integers(N, size=size),
    )


def hand_scores(predicted: list[tuple[int, int]], labels: list[tuple[int, int]]) -> Scores:
    """Scores that put the given verb and noun first."""

    def rows(classes: list[int], count: int) -> NDArray[np.float64]:
        return np.array(
            [[0.9 if c == best else 0.1 / (count - 1) for c in range(count)] for best in classes]
        )

    return Scores(
        tuple(str(row) for row in range(len(labels))),
        rows([verb for verb, _ in predicted], V),
        rows([noun for _, noun in predicted], N),
        np.array([verb for verb, _ in labels]),
        np.array([noun for _, noun in labels]),
    )


def best_slowly(scores: Scores, prior: NDArray[np.float64]) -> list[dict[str, list[object]]]:
    """Per segment, classes best first; actions as pairs."""
    return [
        {
            "verb": scores.verb_scores[row].argsort()[::-1].tolist(),
            "noun": scores.noun_scores[row].argsort()[::-1].tolist(),
            "action": list(
                best_actions_slowly(scores.verb_scores[row], scores.noun_scores[row], prior)
            ),
        }
        for row in range(len(scores.segment_ids))
    ]


def labels_slowly(scores: Scores) -> list[dict[str, object]]:
    pairs = zip(scores.verb_labels.tolist(), scores.noun_labels.tolist(), strict=True)
    return [{"verb": verb, "noun": noun, "action": (verb, noun)} for verb, noun in pairs]


def share(parts: list[bool]) -> float:
    return float(Fraction(sum(parts), len(parts)))


def precision_slowly(got: list[object], want: list[object], one: object) -> float:
    chosen = [w == one for g, w in zip(got, want, strict=True) if g == one]
    return share(chosen) if chosen else 0.0


def recall_slowly(got: list[object], want: list[object], one: object) -> float:
    return share([g == one for g, w in zip(got, want, strict=True) if w == one])


def official_slowly(
    protocol: Protocol, scores: Scores, people: list[str], prior: NDArray[np.float64]
) -> dict[str, float]:
    if protocol.actions is not None:
        prior = np.array(
            [[prior[v, n] if (v, n) in protocol.actions else 0 for n in range(N)] for v in range(V)]
        )
    best, labels, figures = best_slowly(scores, prior), labels_slowly(scores), {}
    for name in ("verb", "noun", "action"):
        got = [row[name][0] for row in best]
        want = [row[name] for row in labels]
        for k in (1, 5):
            hits = [row[name] in order[name][:k] for row, order in zip(labels, best, strict=True)]
            figures[f"{name}_top{k}"] = share(hits)
        right = [g == w for g, w in zip(got, want, strict=True)]
        if protocol.name == "epic55":
            verb = [row["verb"] in protocol.many_shot_verbs for row in labels]
            noun = [row["noun"] in protocol.many_shot_nouns for row in labels]
            both = [v and n for v, n in zip(verb, noun, strict=True)]
            many = {"verb": verb, "noun": noun, "action": both}[name]
            if classes := {one for one, is_many in zip(want, many, strict=True) if is_many}:
                for what, slowly in (("precision", precision_slowly), ("recall", recall_slowly)):
                    values = [slowly(got, want, one) for one in classes]
                    figures[f"{name}_class_mean_{what}"] = sum(values) / len(values)
        if protocol.name == "epic100":
            verb = [row["verb"] in protocol.tail_verbs for row in labels]
            noun = [row["noun"] in protocol.tail_nouns for row in labels]
            either = [v or n for v, n in zip(verb, noun, strict=True)]
            tail = {"verb": verb, "noun": noun, "action": either}[name]
            unseen = [person in protocol.unseen_participants for person in people]
            for subset, rows in (("tail", tail), ("unseen", unseen)):
                if any(rows):
                    hits = [hit for hit, inside in zip(right, rows, strict=True) if inside]
                    figures[f"{subset}_{name}_top1"] = share(hits)
        if protocol.name == "egtea":
            values = [recall_slowly(got, want, one) for one in set(want)]
            prefix = "" if name == "action" else f"{name}_"
            figures[f"{prefix}mean_class_accuracy"] = sum(values) / len(values)
    return figures


PROTOCOL_LISTS = {
    "epic55": Protocol("epic55", many_shot_verbs=(0, 2, 3), many_shot_nouns=(1, 2, 5)),
    "epic100": Protocol(
        "epic100", tail_verbs=(1, 4), tail_nouns=(0, 6), unseen_participants=("P2", "P9")
    ),
    "egtea": Protocol(
        "egtea", actions=tuple((v, n) for v in range(V) for n in range(N) if (v + n) % 2)
    ),
    "plain": Protocol(),
}


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(PROTOCOLS),
    levels=st.sampled_from([0, 2]),
    size=st.sampled_from([1, 3, 60]),
)
def test_official_metrics_equal_their_definitions(
    seed: int, name: str, levels: int, size: int
) -> None:
    generator = np.random.default_rng(seed)
    scores = make_scores(generator, size, levels=levels)
    people = [f"P{number}" for number in generator.integers(4, size=size)]
    prior = np.round(generator.random((V, N)), 1)
    found = official_metrics(PROTOCOL_LISTS[name], scores, people, prior)
    expected = official_slowly(PROTOCOL_LISTS[name], scores, people, prior)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_of_many_shot_classes_by_hand() -> None:
    # Verb 0: two of its three segments found, one wrong segment called 0: recall 2/3, precision
    # 2/3. Verb 1: never predicted: 0 and 0. Verb 2 is not many-shot, verb 3 is without segments.
    scores = hand_scores(
        predicted=[(0, 0), (0, 0), (2, 0), (0, 1), (2, 1)],
        labels=[(0, 0), (0, 1), (0, 0), (1, 1), (2, 0)],
    )
    protocol = Protocol("epic55", many_shot_verbs=(0, 1, 3), many_shot_nouns=(0, 1))
    found = official_metrics(protocol, scores, [""] * 5, np.ones((V, N)))
    assert found["verb_class_mean_recall"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["verb_class_mean_precision"] == pytest.approx((2 / 3 + 0) / 2)
    # Noun 0: found 2 of 3, called 3 times: 2/3, 2/3. Noun 1: found 1 of 2, called twice: 1/2, 1/2.
    assert found["noun_class_mean_recall"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["noun_class_mean_precision"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Actions (0,0): found 1 of 2, called twice; (0,1): not found, (1,1): not found.
    assert found["action_class_mean_recall"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert found["action_class_mean_precision"] == pytest.approx((1 / 2 + 0 + 0) / 3)


def test_unseen_participants_and_tail_classes_by_hand() -> None:
    scores = hand_scores(
        predicted=[(0, 0), (1, 1), (1, 2), (3, 3)], labels=[(0, 1), (1, 1), (2, 2), (3, 4)]
    )
    protocol = Protocol("epic100", (), (), (1, 2), (4,), ("P18",))
    found = official_metrics(protocol, scores, ["P18", "P18", "P01", "P01"], np.ones((V, N)))
    assert {name: found[name] for name in found if name not in TOP_K} == {
        "unseen_verb_top1": 1.0,
        "unseen_noun_top1": 0.5,
        "unseen_action_top1": 0.5,
        "tail_verb_top1": 0.5,  # segments 1 and 2
        "tail_noun_top1": 0.0,  # segment 3
        "tail_action_top1": pytest.approx(1 / 3),  # segments 1, 2 and 3
    }


def test_mean_class_accuracy_by_hand() -> None:
    scores = hand_scores(
        predicted=[(0, 0), (0, 0), (0, 0), (1, 0)], labels=[(0, 0), (0, 0), (0, 1), (1, 1)]
    )
    protocol = Protocol("egtea", actions=((0, 0), (0, 1), (1, 1)))
    found = official_metrics(protocol, scores, [""] * 4, np.ones((V, N)))
    assert found["verb_mean_class_accuracy"] == 1.0
    assert found["noun_mean_class_accuracy"] == 0.5
    # (1, 0) is no action: of those that are, (0, 0) and (1, 1) come next. .02 * .9 against
    # .9 * .1 / 6: (0, 0) it is.
    assert found["mean_class_accuracy"] == pytest.approx((1 + 0 + 0) / 3)


def test_figures_over_nothing_are_left_out() -> None:
    scores = make_scores(np.random.default_rng(0), 4)
    for name in ("epic55", "epic100", "plain"):
        assert official_metrics(Protocol(name), scores, ["P1"] * 4, np.ones((V, N))).keys() == TOP_K


def test_logits_are_refused() -> None:
    scores = make_scores(np.random.default_rng(0), 1)
    twice, mixed = scores.verb_scores * 2, np.array([[1.5, -0.5, 0, 0, 0, 0, 0]])
    for field, wrong in (("verb_scores", twice), ("noun_scores", mixed)):
        values = {**vars(scores), field: wrong}
        with pytest.raises(ValueError, match=f"got {field[:4]} scores that are no probabilities"):
            official_metrics(Protocol(), Scores(**values), [""], np.ones((V, N)))


def test_labels_and_participants_are_asked_for() -> None:
    scores = make_scores(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="got 2 participant ids for 3 segments"):
        official_metrics(Protocol(), scores, ["P1"] * 2, np.ones((V, N)))
    values = {**vars(scores), "noun_labels": np.array([0, -1, 0])}
    with pytest.raises(ValueError, match="got segments without labels"):
        official_metrics(Protocol(), Scores(**values), ["P1"] * 3, np.ones((V, N)))


def test_without_an_official_evaluation_nothing_is_listed() -> None:
    assert Protocol() == Protocol("plain", (), (), (), (), (), None)


def test_another_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"got protocol 'epic-55', .*'epic55', 'epic100', 'egtea'"):
        Protocol("epic-55")


def test_protocols_of_equal_lists_are_equal_and_can_be_set_members() -> None:
    one, two = (Protocol("egtea", actions=((0, 0), (0, 1))) for _ in range(2))
    assert len({one, two}) == 1
