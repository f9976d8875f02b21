"""Figures of scores on a data set: prior, official figures, classes never trained, tables."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from heads.protocols import Protocol, official_metrics
from heads.ranking import rank_classes
from heads.scores import Scores
from pipeline.head_console import print_measured
from pipeline.head_metrics import (
    Measured,
    Untrained,
    measure,
    measure_scores,
    some,
    training_prior,
    write_measured,
)
from pipeline.head_runs import Evaluated
from pipeline.segments import UNLABELLED, Dataset, Segment

VERBS = ("take", "put", "wash")
NOUNS = ("cup", "knife", "pan", "[plate]")


def segment(name: str, verb: int, noun: int, split: str, person: str = "P01") -> Segment:
    return Segment(name, "v", person, 0.0, 1.0, verb, noun, split)


def make_dataset(protocol: Protocol | None = None) -> Dataset:
    return Dataset(
        [
            segment("t0", 0, 0, "train"),
            segment("t1", 0, 1, "train"),
            segment("t2", 1, 1, "train"),
            segment("t3", 0, 0, "train"),
            segment("hidden", UNLABELLED, UNLABELLED, "train"),
            segment("v0", 0, 1, "val", "P18"),
            segment("v1", 1, 3, "val"),
            segment("v2", 2, 0, "val"),
            segment("v3", 2, 3, "val"),
        ],
        VERBS,
        NOUNS,
        protocol=protocol or Protocol(),
    )


def make_scores(dataset: Dataset, split: str = "val") -> Scores:
    """Every segment is taken for take cup (0.6 of each), in an order of the scores' own."""
    found = dataset.split(split)[::-1]
    count = len(found)
    return Scores(
        tuple(one.segment_id for one in found),
        np.tile([0.6, 0.3, 0.1], (count, 1)),
        np.tile([0.6, 0.3, 0.06, 0.04], (count, 1)),
        np.array([one.verb_class for one in found]),
        np.array([one.noun_class for one in found]),
    )


def test_scores_without_labels_need_no_prior_to_be_none() -> None:
    nobody = replace(make_dataset(), segments=[])
    scores = Scores(("a",), np.ones((1, 3)), np.ones((1, 4)), np.array([-1]), np.array([-1]))
    assert measure_scores(nobody, scores, "frequency") is None


def measure_all(dataset: Dataset, prior: NDArray[np.float64]) -> Measured:
    scores = make_scores(dataset)
    return measure(dataset, scores, rank_classes(scores.verb_scores, scores.noun_scores, prior))


def test_segments_that_the_labels_lack_are_named() -> None:
    scores = make_scores(make_dataset())
    ranking = rank_classes(scores.verb_scores, scores.noun_scores, np.ones((3, 4)))
    fewer = replace(make_dataset(), segments=make_dataset().split("train"))
    with pytest.raises(ValueError, match=r"scores of 4 segments \('v3', 'v2', 'v1', 'v0'\), exp"):
        measure(fewer, scores, ranking)


def test_of_many_ids_the_first_are_shown() -> None:
    assert some([str(number) for number in range(1234)]) == (
        "1,234 segments ('0', '1', '2', '3', '4' and 1,229 more)"
    )


def text_of(found: Evaluated) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_measured(console, "runs/one", found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_prior_counts_every_labelled_training_segment() -> None:
    prior = training_prior(make_dataset(), "frequency")
    assert prior.tolist() == [[0.5, 0.25, 0, 0], [0, 0.25, 0, 0], [0] * 4]


def test_pairs_that_are_no_action_have_no_prior() -> None:
    actions = Protocol("egtea", actions=((0, 0), (2, 3)))
    prior = training_prior(make_dataset(actions), "none")
    assert prior.tolist() == [[1, 0, 0, 0], [0] * 4, [0, 0, 0, 1]]


def test_participants_are_found_by_segment_id() -> None:
    dataset = make_dataset(Protocol("epic100", unseen_participants=("P18",), tail_nouns=(3,)))
    prior = training_prior(dataset, "none")
    measured = measure_all(dataset, prior)
    assert measured.official["unseen_verb_top1"] == 1.0
    assert measured.official["unseen_noun_top1"] == 0.0
    assert measured.official["tail_noun_top1"] == 0.0
    people = ["P01", "P01", "P01", "P18"]
    assert measured.official == official_metrics(
        dataset.protocol, make_scores(dataset), people, prior
    )
    assert measured.metrics.verb_top1 == measured.official["verb_top1"] == 0.25


def test_classes_that_training_never_showed_are_named_and_counted() -> None:
    dataset = make_dataset()
    untrained = measure_all(dataset, np.ones((3, 4))).untrained
    assert (untrained.verbs, untrained.nouns) == (("wash",), ("[plate]",))
    assert untrained.num_segments == 3  # v1 for its noun, v2 for its verb, v3 for both


def test_without_training_labels_no_class_is_called_untrained() -> None:
    dataset = make_dataset()
    dataset = replace(dataset, segments=[*dataset.split("val"), segment("t", -1, -1, "train")])
    assert measure_all(dataset, np.ones((3, 4))).untrained == Untrained((), (), 0)


def test_files_hold_figures_by_class_and_what_was_never_trained(tmp_path: Path) -> None:
    dataset = make_dataset()
    scores = make_scores(dataset)
    measured = measure_all(dataset, np.ones((3, 4)))
    write_measured(tmp_path, scores, measured, {"split": "val"})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written) == ["metrics", "official", "classes", "details"]
    assert written["metrics"]["num_segments"] == 4
    assert written["official"]["verb_top1"] == 0.25
    assert written["classes"]["verb"] == [
        {
            "id": 0,
            "name": "take",
            "num_segments": 1,
            "num_predicted": 4,
            "recall": 1.0,
            "precision": 0.25,
        },
        {
            "id": 1,
            "name": "put",
            "num_segments": 1,
            "num_predicted": 0,
            "recall": 0.0,
            "precision": None,
        },
        {
            "id": 2,
            "name": "wash",
            "num_segments": 2,
            "num_predicted": 0,
            "recall": 0.0,
            "precision": None,
        },
    ]
    assert [row["name"] for row in written["classes"]["noun"]] == ["cup", "knife", "[plate]"]
    assert written["details"] == {
        "split": "val",
        "untrained_classes": {"verbs": ["wash"], "nouns": ["[plate]"], "num_segments": 3},
    }


def test_without_labels_nothing_is_measured(tmp_path: Path) -> None:
    dataset = make_dataset()
    scores = make_scores(dataset, "train")
    write_measured(tmp_path, scores, None, {"split": "train"})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == {
        "metrics": None,
        "official": None,
        "classes": None,
        "details": {"split": "train"},
    }
    assert "without labels: scores are written" in text_of(Evaluated("train", None, 5))


@pytest.mark.parametrize(
    ("protocol", "header", "action"),
    [
        (Protocol(), "top-1 % top-5 %", "action 0.0 50.0"),
        (
            Protocol("epic55", many_shot_verbs=(0,), many_shot_nouns=(0, 1)),
            "top-1 % top-5 % many-shot precision % many-shot recall %",
            "action 0.0 50.0 0.0 0.0",
        ),
        (
            Protocol("epic100", unseen_participants=("P18",), tail_verbs=(2,)),
            "top-1 % top-5 % unseen top-1 % tail top-1 %",
            "action 0.0 50.0 0.0 0.0",
        ),
        (
            Protocol("egtea", actions=((0, 1), (2, 0), (2, 3), (1, 3))),
            "top-1 % top-5 % class mean %",
            "action 25.0 100.0 25.0",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Protocol) else "",
)
def test_the_table_has_the_columns_of_the_data_set(
    protocol: Protocol, header: str, action: str
) -> None:
    dataset = make_dataset(protocol)
    measured = measure_all(dataset, training_prior(dataset, "none"))
    lines = [" ".join(line.split()) for line in text_of(Evaluated("val", measured, 4)).splitlines()]
    assert lines[0] == "runs/one: val, 4 segments"
    assert header in lines
    assert action in lines


def test_a_figure_that_is_not_there_is_a_dash() -> None:
    dataset = make_dataset(Protocol("epic100", tail_verbs=(2,)))
    measured = measure_all(dataset, training_prior(dataset, "none"))
    lines = [" ".join(line.split()) for line in text_of(Evaluated("val", measured, 4)).splitlines()]
    assert next(line for line in lines if line.startswith("noun")).endswith("–")


def test_untrained_classes_are_shown_as_they_are_called() -> None:
    dataset = make_dataset()
    measured = measure_all(dataset, np.ones((3, 4)))
    text = " ".join(text_of(Evaluated("val", measured, 4, skipped=2)).split())
    assert "val, 4 segments, 2 skipped" in text
    assert (
        "segments with classes that no training segment has: 3: verbs wash; nouns [plate]" in text
    )
