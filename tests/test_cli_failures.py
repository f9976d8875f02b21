"""`symbio failures`: each row that could not be made, and how to see it fail again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from cli_fixtures import symbio, write_experiment


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
    assert (done.code, done.out.strip()) == (0, "no row has failed")
    done = symbio("failures", config, "--class", "decode_eror")
    assert done.code == 2
    assert "--class: got decode_eror, expected one of bad_input, decode_error" in done.err


def test_without_a_store_nothing_has_failed(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    assert symbio("failures", config).out.strip() == "no row has failed"
    assert json.loads(symbio("failures", config, "--json").out)["failures"] == []
    assert not (tmp_path / "store").exists()
