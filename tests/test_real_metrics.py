"""Official figures on the whole validation splits, against code that sorts everything.

The reference follows the official evaluations step by step, for all segments at once: scores sorted
by `argsort()[::-1]`, the products of the best hundred verbs and nouns sorted likewise, cut to a
hundred and sorted again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heads.metrics import action_prior, softmax
from heads.protocols import official_metrics
from heads.scores import Scores
from pipeline.dataset_egtea import load_egtea
from pipeline.dataset_epic55 import load_epic55
from pipeline.dataset_epic100 import load_epic100
from pipeline.segments import Dataset

Logits = NDArray[np.floating]


def labels_of(dataset: Dataset, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    segments = dataset.split(split)
    verbs = np.array([segment.verb_class for segment in segments])
    return verbs, np.array([segment.noun_class for segment in segments])


def make_logits(
    labels: NDArray[np.int64], classes: int, *, scale: float, levels: bool, seed: int
) -> Logits:
    """Random, with some regard for the label; `levels`: of few values, so full of ties."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += 2.5
    return np.round(logits * 2) if levels else (logits * scale).astype(np.float32)


def ranks_of(logits: Logits) -> NDArray[np.int64]:
    return logits.argsort(axis=-1)[:, ::-1]


def best_actions_of(verbs: Logits, nouns: Logits, prior: NDArray[np.float64]) -> NDArray[np.int64]:
    """The best five as `verb * N + noun`."""
    best = np.empty((len(verbs), 5), dtype=np.int64)
    for row, (verb, noun) in enumerate(zip(softmax(verbs), softmax(nouns), strict=True)):
        v, n = verb.argsort()[::-1][:100], noun.argsort()[::-1][:100]
        products = (verb[v][:, None] * noun[n][None, :] * prior[v][:, n]).ravel()
        chosen = products.argsort()[::-1][:100]
        chosen = chosen[products[chosen].argsort()[::-1]][:5]
        best[row] = v[chosen // 100] * nouns.shape[1] + n[chosen % 100]
    return best


def scores_of(dataset: Dataset, verbs: Logits, nouns: Logits) -> Scores:
    ids = tuple(segment.segment_id for segment in dataset.split("val"))
    return Scores(ids, softmax(verbs), softmax(nouns), *labels_of(dataset, "val"))


def accuracies(ranks: NDArray[np.int64], labels: NDArray[np.int64], name: str) -> dict[str, float]:
    return {
        f"{name}_top{k}": float((ranks[:, :k] == labels[:, None]).any(axis=1).mean())
        for k in (1, 5)
    }


CASES = [
    pytest.param(1.0, False, id="plain"),
    pytest.param(30.0, False, id="peaky", marks=pytest.mark.slow),
    pytest.param(1.0, True, id="ties"),
]


@pytest.mark.parametrize(("scale", "levels"), CASES)
@pytest.mark.parametrize("kind", [pytest.param("none", marks=pytest.mark.slow), "frequency"])
def test_epic_55(kind: str, scale: float, levels: bool, test_data: Path) -> None:
    dataset = load_epic55(test_data / "annotations" / "epic55")
    verb, noun = labels_of(dataset, "val")
    verbs = make_logits(verb, 125, scale=scale, levels=levels, seed=1)
    nouns = make_logits(noun, 352, scale=scale, levels=levels, seed=2)
    prior = action_prior(kind, *labels_of(dataset, "train"), 125, 352)
    many = dataset.protocol.many_shot_verbs, dataset.protocol.many_shot_nouns
    action = verb * 352 + noun
    many_actions = action[np.isin(verb, many[0]) & np.isin(noun, many[1])]
    expected = {}
    for name, ranks, labels, classes in (
        ("verb", ranks_of(verbs), verb, np.intersect1d(many[0], verb)),
        ("noun", ranks_of(nouns), noun, np.intersect1d(many[1], noun)),
        ("action", best_actions_of(verbs, nouns, prior), action, np.unique(many_actions)),
    ):
        expected |= accuracies(ranks, labels, name)
        best = ranks[:, 0]
        recalls = [float((best[labels == one] == one).mean()) for one in classes]
        precisions = [float((labels[best == one] == one).mean()) for one in classes if one in best]
        expected[f"{name}_class_mean_recall"] = sum(recalls) / len(classes)
        expected[f"{name}_class_mean_precision"] = sum(precisions) / len(classes)
    people = [segment.participant_id for segment in dataset.split("val")]
    found = official_metrics(dataset.protocol, scores_of(dataset, verbs, nouns), people, prior)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "levels"), CASES)
def test_epic_100(scale: float, levels: bool, test_data: Path) -> None:
    dataset = load_epic100(test_data / "annotations" / "epic100", splits=["val"])
    verb, noun = labels_of(dataset, "val")
    verbs = make_logits(verb, 97, scale=scale, levels=levels, seed=1)
    nouns = make_logits(noun, 300, scale=scale, levels=levels, seed=2)
    prior = np.ones((97, 300))
    protocol = dataset.protocol
    people = [segment.participant_id for segment in dataset.split("val")]
    unseen = np.isin(people, protocol.unseen_participants)
    tail_verb, tail_noun = np.isin(verb, protocol.tail_verbs), np.isin(noun, protocol.tail_nouns)
    expected = {}
    for name, ranks, labels, tail in (
        ("verb", ranks_of(verbs), verb, tail_verb),
        ("noun", ranks_of(nouns), noun, tail_noun),
        ("action", best_actions_of(verbs, nouns, prior), verb * 300 + noun, tail_verb | tail_noun),
    ):
        expected |= accuracies(ranks, labels, name)
        for subset, rows in (("unseen", unseen), ("tail", tail)):
            expected[f"{subset}_{name}_top1"] = float((ranks[rows, 0] == labels[rows]).mean())
    found = official_metrics(protocol, scores_of(dataset, verbs, nouns), people, prior)
    assert found == pytest.approx(expected, abs=1e-9)


def test_egtea(test_data: Path) -> None:
    dataset = load_egtea(test_data / "annotations" / "egtea", split=1, clips="full")
    verb, noun = labels_of(dataset, "val")
    verbs = make_logits(verb, 19, scale=1.0, levels=False, seed=1)
    nouns = make_logits(noun, 53, scale=1.0, levels=False, seed=2)
    pairs = dataset.protocol.actions
    assert pairs is not None
    v, n = np.array(pairs).T
    predicted = (softmax(verbs)[:, v] * softmax(nouns)[:, n]).argmax(axis=1)
    labels = np.array([pairs.index(pair) for pair in zip(verb, noun, strict=True)])
    people = [segment.participant_id for segment in dataset.split("val")]
    scores = scores_of(dataset, verbs, nouns)
    found = official_metrics(dataset.protocol, scores, people, np.ones((19, 53)))
    for name, best, truth, count in (
        ("mean_class_accuracy", predicted, labels, 106),
        ("verb_mean_class_accuracy", verbs.argmax(axis=1), verb, 19),
        ("noun_mean_class_accuracy", nouns.argmax(axis=1), noun, 51),
    ):
        recalls = [float((best[truth == one] == one).mean()) for one in sorted({*truth.tolist()})]
        assert len(recalls) == count
        assert found[name] == pytest.approx(sum(recalls) / count, abs=1e-9)
    assert found["action_top1"] == float((predicted == labels).mean())
