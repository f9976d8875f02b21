"""`symbio plan`: rows that a run would leave out, and who else writes to the store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_fixtures import ALL_ROWS, by_stage, planned, symbio, write_experiment

from pipeline.config_file import load_config
from pipeline.experiment import resolve
from stores.registry import open_store


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def test_a_store_that_somebody_writes_to(config: Path) -> None:
    with open_store(config.parent / "store", mode="a"):
        (problem,) = planned(config, code=2)["problems"]
        assert problem["name"] == "store_held"
        assert f"held by process {os.getpid()} on " in problem["text"]
        assert "{" not in problem["text"]
        run = symbio("run", config)
        assert (run.code, run.err) == (2, symbio("plan", config).err)
        both = ("--set", "stages.verb.weights=nowhere.pt", "--set", "stages.verb.weights_seed=null")
        run = symbio("run", config, *both)
        assert (run.code, run.err) == (2, symbio("plan", config, *both).err)
        assert "2 things are in the way" in run.err
    planned(config)


def test_what_a_dead_writer_left_stops_nobody(config: Path) -> None:
    open_store(config.parent / "store", mode="a").close()
    left = json.dumps({"pid": 12345, "host": "dead-node"})
    (config.parent / "store" / ".lock").write_text(left)
    planned(config)
    assert symbio("run", config, "--quiet").code == 0


def test_rows_that_would_be_left_out(config: Path) -> None:
    video = config.parent / "videos" / "kitchen_b.mp4"
    aside = video.rename(config.parent / "aside.mp4")
    document = planned(config, code=1)
    ((missing),) = document["missing_videos"]
    assert (missing["video_id"], missing["clips"]) == ("kitchen_b", 2)
    done = symbio("plan", config)
    assert (done.code, str(video) in done.out) == (1, True)
    aside.rename(video)
    planned(config)
    video.write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    failed = {"verb": 2, "noun": 2, "objects": 5, "aligned": 0}
    document = planned(config, code=1)
    assert by_stage(document, "failed") == failed
    # Nor would a run make what is aligned from them.
    assert by_stage(document, "missing") == dict.fromkeys(ALL_ROWS, 0)
    assert by_stage(document, "waiting") == {**dict.fromkeys(ALL_ROWS, 0), "aligned": 2}
    why = "2 rows wait for rows that failed"
    assert by_stage(document, "reason")["aligned"] == why


def test_aligned_rows_wait_for_a_video_that_is_gone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.identity.RACY_NANOSECONDS", 0)
    assert symbio("run", config, "--quiet").code == 0  # which remembers the content of videos
    (config.parent / "videos" / "kitchen_b.mp4").unlink()
    document = planned(config, "--set", "stages.verb.clip.stride=1", code=1)
    for name in ("verb", "aligned"):
        assert (by_stage(document, "missing")[name], by_stage(document, "waiting")[name]) == (4, 2)
    reason = by_stage(document, "reason")["verb"]
    assert reason == "first run with these settings; 2 rows wait for missing videos"
    assert by_stage(document, "reason")["aligned"] == reason


def test_aligned_rows_wait_for_what_jobs_are_making(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = by_stage(planned(config), "key")
    experiment = resolve(load_config(config, ()))
    rows = {stage.key: [*stage.rows(experiment.table)] for stage in experiment.stages.values()}
    out = {key: {row.key for row in rows[key]} for key in (keys["verb"], keys["noun"])}
    monkeypatch.setattr("pipeline.plan_commands.rows_of_jobs", lambda path: out)
    document = planned(config)
    assert by_stage(document, "out") == {"verb": 6, "noun": 6, "objects": 0, "aligned": 0}
    assert by_stage(document, "waiting")["aligned"] == ALL_ROWS["aligned"]
    assert by_stage(document, "reason") == {
        "verb": "jobs are making them",
        "noun": "jobs are making them",
        "objects": "first run with these settings",
        "aligned": "6 rows wait for rows that jobs are making",
    }
    (config.parent / "videos" / "kitchen_b.mp4").write_text("not a video")
    assert symbio("run", config, "--stage", "objects", "--quiet").code == 1
    experiment = resolve(load_config(config, ()))
    verb = experiment.stages["verb"]
    out = {verb.key: {row.key for row in verb.rows(experiment.table)}}
    assert by_stage(planned(config, code=1), "reason")["aligned"] == (
        "2 rows wait for rows that failed; 4 rows wait for rows that jobs are making"
    )
