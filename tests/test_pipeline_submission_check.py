"""Submissions read back: valid ones measure like the run they are of, others say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from cli_fixtures import symbio
from saved_scores_fixtures import NUM_NOUNS, NUM_VERBS, Run, make_epic_run

from heads.metrics import recognition_metrics
from pipeline.errors import SubmissionError
from pipeline.submission import Supervision, write_submission
from pipeline.submission_check import check_submission
from pipeline.submission_json import MAX_JSON_BYTES, parse_object, read_files

Edit = Callable[[dict[str, Any]], None]


def official_of(run: Run) -> dict[str, float]:
    written: dict[str, float] = json.loads((run.folder / "metrics.json").read_text())["official"]
    return written


@pytest.mark.parametrize("kind", ["epic55", "epic100"])
def test_a_file_measures_like_the_run_it_is_of(kind: str, tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", kind, ["val"])
    levels = Supervision(2, 3, 3) if kind == "epic100" else None
    write_submission(run.folder, tmp_path / "a.zip", splits=["val"], supervision=levels)
    (found,) = check_submission(tmp_path / "a.zip", run.dataset)
    assert (found.name, found.split, found.num_segments) == ("val.json", "val", 9)
    assert found.has_actions
    assert found.measured is not None
    assert found.measured.official == official_of(run)
    assert 0 < found.measured.official["noun_top5"] < 1  # a comparison of zeros shows nothing


def submission(tmp_path: Path, kind: str = "epic55") -> tuple[Run, dict[str, Any]]:
    run = make_epic_run(tmp_path / "run", kind, ["val"])
    levels = Supervision(2, 3, 3) if kind == "epic100" else None
    write_submission(run.folder, tmp_path / "val.json", splits=["val"], supervision=levels)
    return run, json.loads((tmp_path / "val.json").read_text())


def test_without_actions_they_are_the_products_of_verbs_and_nouns(tmp_path: Path) -> None:
    run, content = submission(tmp_path)
    for entry in content["results"].values():
        del entry["action"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    (found,) = check_submission(tmp_path / "val.json", run.dataset)
    assert not found.has_actions
    assert found.measured is not None
    scores = run.scores["val"]
    assert found.measured.metrics == recognition_metrics(
        scores.verb_scores,
        scores.noun_scores,
        scores.verb_labels,
        scores.noun_labels,
        np.ones((NUM_VERBS, NUM_NOUNS)),
    )


def test_classes_may_stand_in_any_order_and_scores_be_any_numbers(tmp_path: Path) -> None:
    run, content = submission(tmp_path)
    for entry in content["results"].values():
        for kind in ("verb", "noun"):
            entry[kind] = {key: value + 1000 for key, value in reversed(entry[kind].items())}
    content["results"] = dict(reversed(content["results"].items()))
    (tmp_path / "val.json").write_text(json.dumps(content))
    (found,) = check_submission(tmp_path / "val.json", run.dataset)
    assert found.measured is not None
    assert found.measured.official == official_of(run)


def test_fewer_actions_than_five_rank_what_is_there(tmp_path: Path) -> None:
    run, content = submission(tmp_path, "epic100")
    for segment in run.dataset.split("val"):
        right = f"{segment.verb_class},{segment.noun_class}"
        content["results"][segment.segment_id]["action"] = {"0,0": 1e-3, right: 2}
    (tmp_path / "val.json").write_text(json.dumps(content))
    (found,) = check_submission(tmp_path / "val.json", run.dataset)
    assert found.measured is not None
    assert found.measured.official["action_top1"] == 1.0


def entry_of(content: dict[str, Any], one: str = "100") -> dict[str, Any]:
    entry: dict[str, Any] = content["results"][one]
    return entry


def shift(numbers: dict[str, float], old: str, new: str) -> None:
    numbers[new] = numbers.pop(old)


BROKEN: dict[str, tuple[Edit, str]] = {
    "version": (lambda c: c.update(version="0.2"), "got version '0.2', expected '0.1'"),
    "number for version": (lambda c: c.update(version=0.1), "got version 0.1, expected '0.1'"),
    "challenge": (
        lambda c: c.update(challenge="action_anticipation"),
        "got challenge 'action_anticipation', expected 'action_recognition'",
    ),
    "levels": (lambda c: c.update(sls_pt=2), "unknown key 'sls_pt'"),
    "no results": (lambda c: c.pop("results"), "results: expected an object of segments"),
    "list": (lambda c: c.update(results=[]), "results: expected an object of segments"),
    "missing": (
        lambda c: [c["results"].pop(one) for one in ("103", "105")],
        "segments that are missing: 2 segments ('103', '105')",
    ),
    "unknown": (
        lambda c: c["results"].update(P99={}),
        "segments that the split has not: 1 segment ('P99')",
    ),
    "no noun": (
        lambda c: entry_of(c).pop("noun"),
        "noun: expected an object of numbers, one per class: 1 segment ('100')",
    ),
    "text for a number": (
        lambda c: entry_of(c)["verb"].update({"3": "0.5"}),
        "verb: expected an object of numbers, one per class: 1 segment ('100')",
    ),
    "true for a number": (
        lambda c: entry_of(c)["verb"].update({"3": True}),
        "verb: expected an object of numbers",
    ),
    "class missing": (
        lambda c: entry_of(c)["verb"].pop("11"),
        "verb: classes missing of 0 to 11: 1 segment ('100')",
    ),
    "class too many": (
        lambda c: entry_of(c)["noun"].update({"10": 0}),
        "noun: classes that are not 0 to 9: 1 segment ('100')",
    ),
    "class spelt otherwise": (
        lambda c: shift(entry_of(c)["noun"], "7", "07"),
        "noun: classes that are not 0 to 9",
    ),
    "not finite": (
        lambda c: entry_of(c)["noun"].update({"7": 10**400}),
        "noun: numbers that are not finite: 1 segment ('100')",
    ),
    "action not finite": (
        lambda c: entry_of(c)["action"].update({next(iter(entry_of(c)["action"])): -(10**400)}),
        "action: numbers that are not finite: 1 segment ('100')",
    ),
    "unknown entry": (
        lambda c: entry_of(c).update(verbs={}),
        "key 'verbs' is unknown or occurs twice: 1 segment ('100')",
    ),
    "action out of range": (
        lambda c: shift(entry_of(c)["action"], next(iter(entry_of(c)["action"])), "12,0"),
        'action: keys that are not "verb,noun" of known classes: 1 segment',
    ),
    "action of one number": (
        lambda c: shift(entry_of(c)["action"], next(iter(entry_of(c)["action"])), "12"),
        'action: keys that are not "verb,noun"',
    ),
    "99 actions": (
        lambda c: entry_of(c)["action"].popitem(),
        "action: expected 100: 1 segment ('100')",
    ),
    "actions of some": (
        lambda c: entry_of(c).pop("action"),
        "got actions of 8 of 9 segments, expected all",
    ),
    "no actions": (
        lambda c: entry_of(c).update(action={}),
        'action: expected an object of numbers under "verb,noun"',
    ),
    "a segment of nothing": (
        lambda c: c["results"].update({"100": 5}),
        'expected an object with "verb" and "noun": 1 segment',
    ),
}


@pytest.mark.parametrize("edit", BROKEN)
def test_everything_wrong_is_said_with_its_segments(edit: str, tmp_path: Path) -> None:
    run, content = submission(tmp_path)
    change, message = BROKEN[edit]
    change(content)
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(SubmissionError) as error:
        check_submission(tmp_path / "val.json", run.dataset)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'val.json'}: val.json, split 'val':\n- ")


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    run, content = submission(tmp_path, "epic100")
    content |= {"sls_td": 9, "version": "0.1", **{f"more{number}": 0 for number in range(30)}}
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(SubmissionError) as error:
        check_submission(tmp_path / "val.json", run.dataset)
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "- and 12 more"


def test_epic_100_takes_up_to_a_hundred_actions(tmp_path: Path) -> None:
    run, content = submission(tmp_path, "epic100")
    actions = entry_of(content)["action"]
    pairs = (f"{verb},{noun}" for verb in range(NUM_VERBS) for noun in range(NUM_NOUNS))
    actions[next(pair for pair in pairs if pair not in actions)] = 0
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(SubmissionError, match="action: expected up to 100: 1 segment"):
        check_submission(tmp_path / "val.json", run.dataset)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"101": {', '"100": {', r"segments that occur twice: 1 segment \('100'\)"),
        ('"version": "0.1"', '"version": "0.1", "version": "0.1"', "key 'version' occurs twice"),
        ('"verb": {"0"', '"verb": {"1"', r"verb: classes that occur twice: 9 segments \('100'"),
        ('"noun": {', '"noun": {}, "noun": {', "key 'noun' is unknown or occurs twice"),
    ],
)
def test_keys_that_occur_twice_are_found(old: str, new: str, message: str, tmp_path: Path) -> None:
    run, _ = submission(tmp_path)
    text = (tmp_path / "val.json").read_text()
    assert old in text
    (tmp_path / "val.json").write_text(text.replace(old, new))
    with pytest.raises(SubmissionError, match=message):
        check_submission(tmp_path / "val.json", run.dataset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got no valid JSON"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": 1e', "got no valid JSON"),
        (b"\xff\xfe{}", "got no valid JSON"),
        (b"[" * 200_000, "got no valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "got no valid JSON"),
        (b"[]", "got JSON that is no submission, expected an object"),
        (b'{"a": 1}', "got JSON that is no submission"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"x: {message}|{message}"):
        parse_object("x", content)


def test_zip_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("seen.json", b" " * 5000)
    monkeypatch.setattr("pipeline.submission_json.MAX_JSON_BYTES", 4999)
    with pytest.raises(ValueError, match=r"got more than 4,999 bytes in seen\.json"):
        read_files(path)
    monkeypatch.setattr("pipeline.submission_json.MAX_JSON_BYTES", MAX_JSON_BYTES)
    assert read_files(path) == {"seen.json": b" " * 5000}
    whole = bytearray(path.read_bytes())
    whole[45] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="got a zip file that cannot be read"):
        read_files(path)
    end = whole.rindex(b"PK\x05\x06")
    whole[end + 16 : end + 20] = (2**31).to_bytes(4, "little")  # where the list of files is not
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="got a zip file that cannot be read"):
        read_files(path)
    with ZipFile(path, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.json", b"{}")
    with pytest.raises(ValueError, match="got 5 files in the zip, expected one or two"):
        read_files(path)
    (tmp_path / "large.json").write_bytes(b" " * 50)
    monkeypatch.setattr("pipeline.submission_json.MAX_JSON_BYTES", 49)
    with pytest.raises(ValueError, match=r"large\.json: got more than 49 bytes"):
        read_files(tmp_path / "large.json")
    with pytest.raises(ValueError, match="no such file"):
        read_files(tmp_path)


def test_the_command_checks_both_test_splits(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val", "test_s1", "test_s2"])
    path, config = tmp_path / "a.zip", run.folder / "config.yaml"
    assert symbio("submit", run.folder, "--out", path).code == 0
    done = symbio("check-submission", path, config)
    assert done.code == 0
    assert "seen.json: valid, 5 segments, with actions" in done.out
    assert "split test_s2 has no labels: nothing to measure" in done.out
    assert "as well" not in done.out
    one = symbio("check-submission", path, config, "--split", "test_s2")
    assert "unseen.json: valid" in one.out
    assert "\nseen.json" not in f"\n{one.out}"


def test_the_command_measures_where_labels_are(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val"])
    path, config = tmp_path / "a.zip", run.folder / "config.yaml"
    assert symbio("submit", run.folder, "--split", "val", "--out", path).code == 0
    done = symbio("check-submission", path, config)
    figures = official_of(run)
    lines = [line.split() for line in done.out.splitlines()]
    assert ["verb", *(f"{100 * figures[f'verb_top{k}']:.1f}" for k in (1, 5))] == next(
        line[:3] for line in lines if line[:1] == ["verb"]
    )
    assert "as well" not in done.out


def test_a_zip_with_one_of_two_test_splits_is_not_all(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val", "test_s1"])
    path, config = tmp_path / "a.zip", run.folder / "config.yaml"
    assert symbio("submit", run.folder, "--out", path).code == 0
    done = symbio("check-submission", path, config)
    assert "the challenge wants unseen.json in the zip as well" in done.out


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    run = make_epic_run(tmp_path / "run", "epic55", ["val", "test_s1"])
    path, config = tmp_path / "a.zip", run.folder / "config.yaml"
    assert symbio("submit", run.folder, "--out", path).code == 0

    def error(*arguments: str | Path) -> str:
        done = symbio("check-submission", *arguments)
        assert done.code == 2
        return " ".join(done.err.split())

    assert "got seen.json for split 'test_s2', expected one of train, val, test_s1" in error(
        path, config, "--split", "test_s2"
    )
    assert "segments that are missing: 9 segments ('100', '101'" in error(
        path, config, "--split", "val"
    )
    assert "a.json: no such file" in error(tmp_path / "a.json", config)
    both = make_epic_run(tmp_path / "both", "epic55", ["test_s1", "test_s2"])
    assert symbio("submit", both.folder, "--out", path).code == 0
    assert "got no val.json in the zip" in error(path, config, "--split", "val")
