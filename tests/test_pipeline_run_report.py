"""What a run says of itself: as JSON, and in the summary."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from cli_fixtures import symbio
from experiment_fixtures import make_experiment, settings


def config(folder: Path, **engine: float) -> Path:
    make_experiment(folder)
    values = {**settings(folder), "engine": engine}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_report_says_what_was_done_and_where_the_time_went(tmp_path: Path) -> None:
    path = config(tmp_path)
    (tmp_path / "videos" / "kitchen_b.mp4").write_bytes(b"no video")
    report = tmp_path / "report.json"
    result = symbio("run", str(path), "--report", str(report))
    assert result.code == 1
    found = json.loads(report.read_text())
    assert (found["complete"], found["interrupted"], found["missing_videos"]) == (False, False, [])
    assert found["peak_resident_bytes"] > 50 * 2**20
    stages = {stage["stage"]: stage for stage in found["stages"]}
    verb = stages["verb"]
    assert (verb["wanted"], verb["made"], verb["present"]) == (6, 4, 0)
    assert len(verb["failures"]) == 2
    assert verb["failures"][0]["error_class"] == "UnreadableVideo"
    assert verb["failures"][0]["video_id"] == "kitchen_b"
    assert verb["written_bytes"] > 0
    for seconds in ("decode", "transform", "forward", "write", "waiting"):
        assert verb["timings"][f"{seconds}_seconds"] > 0, seconds
    assert stages["aligned"]["timings"]["write_seconds"] > 0
    assert "Seconds spent" in result.out
    assert (stages["aligned"]["skipped"], stages["aligned"]["left"]) == (2, 0)
    assert "still to be made" not in result.out


def test_a_report_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    result = symbio("run", str(config(tmp_path)), "--report", str(tmp_path / "no" / "r.json"))
    assert result.code == 2
    assert "no such folder for the report" in result.err
    assert not (tmp_path / "store").exists()
