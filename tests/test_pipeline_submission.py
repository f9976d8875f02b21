"""Submissions as files: what the challenges ask for, in bytes that depend on nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from cli_fixtures import symbio
from ranking_fixtures import best_actions_slowly
from saved_scores_fixtures import NUM_NOUNS, NUM_VERBS, Run, make_epic_run, make_evaluated_run

from heads.metrics import softmax
from heads.scores import load_scores, save_scores
from pipeline.fusion import fuse_runs
from pipeline.head_metrics import training_prior
from pipeline.submission import Supervision, write_submission

LEVELS = Supervision(2, 4, 3)


def members(path: Path) -> dict[str, dict[str, object]]:
    with ZipFile(path) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def numbers(found: dict[str, float], count: int) -> list[float]:
    assert list(found) == [str(number) for number in range(count)]
    return list(found.values())


def check_results(results: dict[str, dict[str, dict[str, float]]], run: Run, split: str) -> None:
    scores = run.scores[split]
    assert list(results) == [segment.segment_id for segment in run.dataset.split(split)]
    prior = training_prior(run.dataset, "frequency")
    for row, one in enumerate(scores.segment_ids):
        verbs = numbers(results[one]["verb"], NUM_VERBS)
        nouns = numbers(results[one]["noun"], NUM_NOUNS)
        np.testing.assert_allclose(softmax(np.array(verbs)), scores.verb_scores[row], rtol=1e-8)
        np.testing.assert_allclose(softmax(np.array(nouns)), scores.noun_scores[row], rtol=1e-8)
        best = best_actions_slowly(scores.verb_scores[row], scores.noun_scores[row], prior)
        assert list(results[one]["action"]) == [f"{verb},{noun}" for verb, noun in best]
        verb, noun = best[0]
        product = scores.verb_scores[row, verb] * scores.noun_scores[row, noun] * prior[verb, noun]
        assert results[one]["action"][f"{verb},{noun}"] == pytest.approx(np.log(product))


def test_both_test_splits_of_epic_55_in_one_zip(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["test_s1", "test_s2"])
    assert write_submission(run.folder, tmp_path / "a.zip") == ["test_s1", "test_s2"]
    found = members(tmp_path / "a.zip")
    assert list(found) == ["seen.json", "unseen.json"]
    for name, split in (("seen.json", "test_s1"), ("unseen.json", "test_s2")):
        results = found[name].pop("results")
        assert found[name] == {"version": "0.1", "challenge": "action_recognition"}
        check_results(results, run, split)  # type: ignore[arg-type]


def test_epic_100_says_its_levels_of_supervision(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic100", ["test"])
    write_submission(run.folder, tmp_path / "a.zip", supervision=LEVELS)
    found = members(tmp_path / "a.zip")
    assert list(found) == ["test.json"]
    results = found["test.json"].pop("results")
    assert found["test.json"] == {
        "version": "0.2",
        "challenge": "action_recognition",
        "sls_pt": 2,
        "sls_tl": 4,
        "sls_td": 3,
    }
    check_results(results, run, "test")  # type: ignore[arg-type]


def test_equal_scores_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run = make_epic_run(tmp_path / name, "epic100", ["test", "val"])
        write_submission(run.folder, tmp_path / f"{name}.zip", supervision=LEVELS)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with ZipFile(tmp_path / "one.zip") as archive:  # whenever it was written
        assert [info.date_time for info in archive.infolist()] == [(1980, 1, 1, 0, 0, 0)]


def test_one_split_as_plain_json(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val", "test_s2"])
    write_submission(run.folder, tmp_path / "a.json", splits=["val"])
    check_results(json.loads((tmp_path / "a.json").read_text())["results"], run, "val")
    write_submission(run.folder, tmp_path / "a.zip", splits=["val", "test_s2"])
    assert list(members(tmp_path / "a.zip")) == ["val.json", "unseen.json"]


def test_a_probability_of_zero_is_a_number(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val"])
    scores = run.scores["val"]
    scores.verb_scores[0] = np.eye(NUM_VERBS)[3]
    save_scores(run.folder / "scores.npz", scores)
    write_submission(run.folder, tmp_path / "a.json", splits=["val"])
    found = json.loads((tmp_path / "a.json").read_text())["results"][scores.segment_ids[0]]
    assert (found["verb"]["3"], found["verb"]["0"]) == (0, pytest.approx(-744.44, abs=0.01))
    assert np.isfinite(list(found["action"].values())).all()


def test_a_fusion_is_submitted_like_a_run(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_epic_run(tmp_path / str(seed), "epic55", ["test_s1"], seed=seed)
    fuse_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "both", split="test_s1")
    done = symbio("submit", tmp_path / "both")
    assert done.code == 0
    path = tmp_path / "both" / "submission.zip"
    assert f"submission of test_s1: {path}" in done.out.replace("\n", "")
    fused = load_scores(tmp_path / "both" / "scores.npz")
    found = members(path)["seen.json"]["results"][fused.segment_ids[0]]["verb"]  # type: ignore[index]
    np.testing.assert_allclose(softmax(np.array(list(found.values()))), fused.verb_scores[0])


def test_what_cannot_be_submitted_is_said(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val", "test_s1", "test_s2"])
    no_tests = make_epic_run(tmp_path / "only-val", "epic55", ["val"])
    other = make_epic_run(tmp_path / "other", "epic100", ["val"])
    make_evaluated_run(tmp_path / "plain")

    def error(*arguments: str | Path) -> str:
        done = symbio("submit", *arguments)
        assert done.code == 2
        return " ".join(done.err.split())

    assert "got --out a.txt, expected a name that ends in .zip or .json" in error(
        run.folder, "--out", "a.txt"
    )
    assert "got splits test_s1, test_s2 for one JSON file" in error(
        run.folder, "--out", tmp_path / "a.json"
    )
    assert "expected one of data.kind epic55 or epic100" in error(tmp_path / "plain")
    assert "got a data set without test_s1 or test_s2; add them to data.splits" in error(
        no_tests.folder
    )
    assert "got none of --sls-pt, --sls-tl and --sls-td, the levels of supervision" in error(
        other.folder, "--split", "val"
    )
    levels = ("--sls-pt", "2", "--sls-tl", "3", "--sls-td", "3")
    assert "got some of --sls-pt" in error(other.folder, "--split", "val", *levels[:2])
    assert "got some of --sls-pt" in error(run.folder, *levels)
    assert "got no config.yaml" in error(tmp_path)
    (run.folder / "test_s2" / "scores.npz").unlink()
    assert f"run `symbio evaluate {run.folder} --split test_s2` first" in error(run.folder)
    with pytest.raises(ValueError, match="got sls_td 6, expected 0 to 5"):
        Supervision(2, 3, 6)


def test_every_segment_of_the_split_must_have_scores(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["test_s1"])
    scores = run.scores["test_s1"]
    fewer = type(scores)(
        scores.segment_ids[1:], *(array[1:] for array in list(vars(scores).values())[1:])
    )
    save_scores(run.folder / "test_s1" / "scores.npz", fewer)
    with pytest.raises(ValueError, match=rf"no scores of 1 segment \('{scores.segment_ids[0]}'\)"):
        write_submission(run.folder, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
