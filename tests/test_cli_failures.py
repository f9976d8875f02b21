"""`symbio failures`: each row that could not be made, and how to see it fail again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_fixtures import symbio, table_rows, write_experiment

from pipeline.journal_files import read_log, run_logs
from stores.base import Failure
from stores.registry import open_store


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment after a run with one video that is none."""
    config = write_experiment(tmp_path_factory.mktemp("my kitchen"))
    (config.parent / "videos" / "kitchen_b.mp4").write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    return config


def test_rows_that_failed_alike_are_listed_together(config: Path) -> None:
    done = symbio("failures", config)
    assert done.code == 0
    heads = [line for line in done.out.splitlines() if ": unreadable_video: " in line]
    assert [head.split(": unread")[0] for head in heads] == [
        "verb: video kitchen_b: 2 rows",
        "noun: video kitchen_b: 2 rows",
        "objects: video kitchen_b: 5 rows",
    ]
    rows = [line.strip() for line in done.out.splitlines() if line.startswith("    ")]
    assert rows[:2] == ["kitchen_b/b0/0", "kitchen_b/b1/0"]
    assert rows[4:] == [f"kitchen_b@{second}s" for second in ("0", "0.5", "1", "1.5", "2")]
    commands = [line.strip() for line in done.out.splitlines() if "see it again" in line]
    words = shlex.split(commands[0].removeprefix("see it again: "))
    clip = ["--stage", "verb", "--clip", "kitchen_b/b0/0", "--try"]
    assert words == ["symbio", "explain", str(config), *clip]


def test_stages_and_classes_choose(config: Path) -> None:
    override = "device=cpu"
    done = symbio("failures", config, "--set", override, "--stage", "noun", "--json")
    document = json.loads(done.out)
    assert (done.code, document["config"]) == (0, "small")
    found = document["failures"]
    assert [row["clip"] for row in found] == ["kitchen_b/b0/0", "kitchen_b/b1/0"]
    assert {row["class"] for row in found} == {"unreadable_video"}
    assert {row["exception"] for row in found} == {"UnreadableVideo"}
    assert {(row["stage"], row["video"], row["frame"]) for row in found} == {
        ("noun", "kitchen_b", None)
    }
    assert "kitchen_b.mp4" in found[0]["message"]
    assert shlex.split(found[1]["reproduce"])[3:5] == ["--set", override]
    done = symbio("failures", config, "--class", "decode_error", "--class", "truncated_video")
    assert (done.code, done.out.strip()) == (
        0,
        "no row has failed of what --class names, but 9 rows of others: 9 unreadable_video",
    )
    done = symbio("failures", config, "--class", "decode_eror")
    assert done.code == 2
    assert "--class: got decode_eror, expected one of bad_input, decode_error" in done.err


def test_without_a_store_nothing_has_failed(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    assert symbio("failures", config).out.strip() == "no row has failed"
    assert json.loads(symbio("failures", config, "--json").out)["failures"] == []
    assert not (tmp_path / "store").exists()


def failed(config: Path, *options: str) -> dict[str, int]:
    rows = table_rows(symbio("run", config, *options).out, ["made", "failed", "skipped"])
    return {stage: int(row["failed"]) for stage, row in rows.items()}


def tried(config: Path, *options: str) -> dict[str, int]:
    """Rows of each stage that failed once more, of those that had failed before."""
    report = config.parent / "report.json"
    assert symbio("run", config, *options, "--quiet", "--report", report).code == 1
    stages = json.loads(report.read_text())["stages"]
    assert sum(stage["failed_before"] + len(stage["failures"]) for stage in stages) == 9
    return {stage["stage"]: len(stage["failures"]) for stage in stages if stage["failures"]}


def test_classes_choose_what_is_tried_again(config: Path) -> None:
    assert tried(config) == {}
    others = ("--class", "decode_error", "--class", "truncated_video")
    assert tried(config, "--retry-failed", *others) == {}
    all_failed = {"verb": 2, "noun": 2, "objects": 5}
    assert tried(config, "--retry-failed", *others, "--class", "unreadable_video") == all_failed
    assert tried(config, "--retry-failed") == all_failed
    done = symbio("run", config, "--retry-failed", "--class", "unreadable_vide")
    assert (done.code, "--class: got unreadable_vide, expected one of" in done.err) == (2, True)
    done = symbio("run", config, "--class", "unreadable_video")
    assert (done.code, "--class goes with --retry-failed" in done.err) == (2, True)


def test_derived_rows_that_failed_are_left_alone_like_others(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    assert symbio("run", config, "--quiet").code == 0
    with open_store(tmp_path / "store", mode="a") as store:
        (info,) = (info for info in store.generations() if info.stage == "aligned")
        aligned = store.generation("aligned", info.key)
        key = aligned.keys()[0]
        clip_id = aligned.infos([key])[0].clip_id
        aligned.forget([key])
        failure = Failure(key, clip_id, "kitchen_a", "OverflowError", "too large")
        aligned.commit([], [failure])
    assert failed(config)["aligned"] == 1
    (found,) = json.loads(symbio("failures", config, "--json").out)["failures"]
    assert (found["stage"], found["clip"], found["class"]) == ("aligned", clip_id, "not_finite")
    again = symbio("run", config, "--retry-failed", "--class", "not_finite").out
    assert "1 row that had failed before was tried again, 1 of them made" in again
    assert failed(config)["aligned"] == 0
    assert symbio("failures", config).out.strip() == "no row has failed"


def test_a_log_has_each_failure_with_its_command(config: Path) -> None:
    log = run_logs(config.parent / "store")[-1]
    events = list(read_log(log))
    assert events[0]["event"] == "run_started"
    assert events[-1]["event"] == "run_finished"
    found = [event for event in events if event["event"] == "failure"]
    assert len(found) == 9
    listed = json.loads(symbio("failures", config, "--json").out)["failures"]
    there = f"cd {shlex.quote(str(Path.cwd()))} && "
    assert {event["reproduce"] for event in found} == {there + row["reproduce"] for row in listed}


def test_a_logged_command_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my kitchen"
    config = write_experiment(folder)
    config.write_text(config.read_text().replace(f"{folder}/", ""))
    (folder / "videos" / "kitchen_b.mp4").write_text("not a video")
    with monkeypatch.context() as there:
        there.chdir(folder)
        assert symbio("run", "small.yaml", "--stage", "verb", "--quiet").code == 1
        assert "see it again: symbio explain small.yaml " in symbio("failures", "small.yaml").out
    (log,) = run_logs(folder / "store")
    reproduce = next(event["reproduce"] for event in read_log(log) if event["event"] == "failure")
    program = tmp_path / "symbio"
    program.write_text(f"#!{sys.executable}\nfrom cli import main\nmain()\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    python_path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    done = subprocess.run(
        ["sh", "-c", reproduce],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "tried now: it fails: unreadable_video: " in done.stdout, done.stderr


def test_one_video_can_be_run_alone_and_its_rows_are_found(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    only = ("--set", "data.only.video_ids=[kitchen_b]")
    assert symbio("run", config, *only, "--quiet").code == 0
    rows = table_rows(symbio("run", config).out, ["made", "failed", "skipped"])
    assert {stage: int(row["made"]) for stage, row in rows.items()} == {
        "verb": 4,
        "noun": 4,
        "objects": 5,
        "aligned": 4,
    }


def test_a_retry_says_how_many_were_tried_and_made(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    video = tmp_path / "videos" / "kitchen_b.mp4"
    video.write_text("not a video")
    assert "tried again, " not in symbio("run", config).out
    again = symbio("run", config, "--retry-failed").out
    assert "9 rows that had failed before were tried again, 0 of them made" in again
    with open_store(tmp_path / "store", mode="a") as store:
        for info in store.generations():
            generation = store.generation(info.stage, info.key)
            found = generation.failures()
            generation.clear_failures(failure.row_key for failure in found)
            if info.stage == "verb":  # as if one of its rows had not failed for its video
                generation.commit([], [replace(found[0], error_class="ValueError"), found[1]])
    report = tmp_path / "report.json"
    options = ("--stage", "verb", "--retry-failed", "--class", "unreadable_video")
    again = symbio("run", config, *options, "--report", report).out
    assert "1 row that had failed before was tried again, 0 of them made" in again
    (stage,) = json.loads(report.read_text())["stages"]
    assert (stage["retried"], stage["retried_made"], stage["failed_before"]) == (1, 0, 1)
