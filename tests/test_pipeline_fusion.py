"""Fusing the scores of runs, whatever order their segments are in, and refusing what cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_fixtures import symbio
from experiment_fixtures import write_labels
from saved_scores_fixtures import LABELS, make_evaluated_run

from heads.scores import Scores, load_scores, save_scores
from pipeline.fusion import fuse_runs, fuse_scores
from pipeline.saved_scores import open_scores


def by_id(scores: Scores) -> dict[str, tuple[list[float], list[float], int, int]]:
    return {
        segment_id: (
            scores.verb_scores[row].tolist(),
            scores.noun_scores[row].tolist(),
            int(scores.verb_labels[row]),
            int(scores.noun_labels[row]),
        )
        for row, segment_id in enumerate(scores.segment_ids)
    }


def test_scores_are_averaged_segment_by_segment(tmp_path: Path) -> None:
    one, two = (make_evaluated_run(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert one.segment_ids != two.segment_ids  # another order, or this tests little
    fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out", weights=[3, 1])
    fused = load_scores(tmp_path / "out" / "scores.npz")
    assert fused.segment_ids == one.segment_ids
    for segment_id, (verbs, nouns, verb, noun) in by_id(fused).items():
        first, second = by_id(one)[segment_id], by_id(two)[segment_id]
        assert verbs == pytest.approx(
            [0.75 * a + 0.25 * b for a, b in zip(first[0], second[0], strict=True)]
        )
        assert nouns == pytest.approx(
            [0.75 * a + 0.25 * b for a, b in zip(first[1], second[1], strict=True)]
        )
        assert (verb, noun) == (first[2], first[3])


def test_without_weights_every_run_counts_the_same(tmp_path: Path) -> None:
    runs = [tmp_path / str(seed) for seed in range(3)]
    scores = [make_evaluated_run(run, seed=seed) for seed, run in enumerate(runs)]
    fuse_runs(runs, tmp_path / "out")
    fused = by_id(load_scores(tmp_path / "out" / "scores.npz"))
    means = np.mean([by_id(one)["v1"][0] for one in scores], axis=0)
    assert fused["v1"][0] == pytest.approx(means.tolist())


def test_a_fusion_says_what_it_was_made_of(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    (tmp_path / "2" / "head.safetensors").write_bytes(b"weights")
    found = fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out", weights=[1, 3])
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found.measured is not None
    assert written["official"] == found.measured.official
    details = written["details"]
    assert (details["split"], details["action_prior"]) == ("val", "frequency")
    assert [(one["run"], one["weight"]) for one in details["fused"]] == [
        (str(tmp_path / "1"), 0.25),
        (str(tmp_path / "2"), 0.75),
    ]
    assert [one["checkpoint_sha256"] for one in details["fused"]] == [
        None,
        sha256(b"weights").hexdigest(),
    ]
    assert details["fused"][0]["stages"] == {"verb": "k"}


def test_a_fusion_can_be_fused_again(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "pair")
    fuse_runs([tmp_path / "pair", tmp_path / "3"], tmp_path / "all", weights=[2, 1])
    fuse_runs([tmp_path / str(seed) for seed in (1, 2, 3)], tmp_path / "flat")
    twice, once = (by_id(load_scores(tmp_path / name / "scores.npz")) for name in ("all", "flat"))
    assert twice["v0"][0] == pytest.approx(once["v0"][0])
    details = json.loads((tmp_path / "all" / "metrics.json").read_text())["details"]
    assert [len(one.get("fused", [])) for one in details["fused"]] == [2, 0]


def test_another_split_is_fused_into_a_folder_of_its_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / str(seed), seed=seed, split="train")
    found = fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out", split="train")
    assert found.split == "train"
    assert set(open_scores(tmp_path / "out").scores.segment_ids) == {"t0", "t1"}


def test_segments_without_labels_are_fused_and_not_measured(tmp_path: Path) -> None:
    for seed in (1, 2):
        scores = make_evaluated_run(tmp_path / str(seed), seed=seed)
        hidden = replace(scores, verb_labels=np.full(3, -1), noun_labels=np.full(3, -1))
        save_scores(tmp_path / str(seed) / "scores.npz", hidden)
    found = fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert found.measured is None
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["official"] is None


def small(ids: str, *, verbs: int = 2, label: int = 0) -> Scores:
    count = len(ids)
    return Scores(
        tuple(ids),
        np.full((count, verbs), 1 / verbs),
        np.full((count, 3), 1 / 3),
        np.full(count, label),
        np.zeros(count, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (small("ab"), r"two: got no scores of 1 segment \('c'\), which one has"),
        (small("abcd"), r"two: got scores of 1 segment \('d'\), which one lacks"),
        (small("abc", verbs=3), "two: got verb_scores of 3 classes, expected 2 as in one"),
        (small("cba", label=1), r"two: got other labels than one for 3 segments \('a', 'b', 'c'\)"),
        (small("abc", label=-1), r"two: got no labels, unlike one for 3 segments"),
    ],
)
def test_runs_over_other_segments_are_refused(second: Scores, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_scores([small("abc"), second], [0.5, 0.5], names=["one", "two"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "got 1 weights for 2 runs"),
        ([1, 0], r"got weights \[1, 0\], expected positive numbers"),
        ([1, float("nan")], "expected positive numbers"),
    ],
)
def test_weights_that_are_none_are_refused(
    weights: list[float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out", weights=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": "train"},
            r"different splits: val \(.*1\), train \(.*2\); name one with --split",
        ),
        ({"overrides": ["evaluate.action_prior=none"]}, "action priors: frequency .*, none "),
    ],
)
def test_runs_that_were_measured_otherwise_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "split" in options:
        options["overrides"] = ["evaluate.split=train"]
    make_evaluated_run(tmp_path / "1")
    make_evaluated_run(tmp_path / "2", **options)
    with pytest.raises(ValueError, match=message):
        fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_shows_the_table(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    done = symbio(
        "fuse", tmp_path / "1", tmp_path / "2", "--weights", "0.6,0.4", "--out", tmp_path / "out"
    )
    assert done.code == 0
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["official"]
    lines = [line.split() for line in done.out.splitlines()]
    assert ["noun", *(f"{100 * figures[f'noun_top{k}']:.1f}" for k in (1, 5))] in lines
    assert f"fused 2 runs: {tmp_path / 'out'}" in done.out.replace("\n", "")


def test_what_cannot_be_fused_is_said(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    one, two, out = (tmp_path / name for name in ("1", "2", "out"))

    def error(*arguments: str | Path) -> str:
        done = symbio("fuse", *arguments)
        assert done.code == 2
        assert not out.exists()
        return " ".join(done.err.split())

    assert "got 1 run, expected two or more" in error(one, "--out", out)
    assert "got the same run twice" in error(one, two, one / ".", "--out", out)
    assert "got --weights a,b, expected numbers" in error(
        one, two, "--weights", "a,b", "--out", out
    )
    assert "one of the runs to fuse" in error(one, two, "--out", two)
    assert "no scores.npz of split 'train'; run `symbio evaluate" in error(
        one, two, "--split", "train", "--out", out
    )
    assert "got no config.yaml, expected the folder of" in error(one, tmp_path, "--out", out)
    (two / "head.safetensors").touch()
    three = tmp_path / "3"
    make_evaluated_run(three)
    assert "holds something that is no fusion" in error(one, three, "--out", two)
    (one / "metrics.json").write_text("[]")
    assert "metrics.json: got a file that no evaluation wrote" in error(one, two, "--out", out)


def test_a_fusion_is_replaced_by_a_later_one(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    out = tmp_path / "out"
    fuse_runs([tmp_path / "1", tmp_path / "2"], out)
    before = (out / "scores.npz").read_bytes()
    fuse_runs([tmp_path / "1", tmp_path / "3"], out)
    assert (out / "scores.npz").read_bytes() != before


def test_labels_that_changed_since_are_said(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / str(seed), seed=seed)
    write_labels(tmp_path / "labels.csv", LABELS[:-1])
    with pytest.raises(ValueError, match=r"got scores of 1 segment \('v2'\), expected segments"):
        fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
