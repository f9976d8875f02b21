"""What a run's log says at the end: each stage's share of the seconds, unless jobs were queued."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from experiment_fixtures import make_experiment

from pipeline import run_log
from pipeline.config_executor import worker_count
from pipeline.experiment import resolve
from pipeline.journal import Journal
from pipeline.run_log import RunLog
from pipeline.run_report import RunReport, StageReport
from pipeline.timings import Timings
from stores.base import Receipt, RowInfo

RAN = {"verb": 30.0, "noun": 10.0}


def finished(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """What is said of each stage, of a run of 100 seconds."""
    experiment = resolve(make_experiment(folder, overrides))
    (folder / "store").mkdir()
    journal = Journal(folder / "store")
    log = RunLog(journal, experiment, list(RAN), print)
    stages = [
        StageReport(
            name, "ab", 8, 0, made=8, seconds=100.0, batch_size=2, timings=Timings(busy_seconds)
        )
        for name, busy_seconds in RAN.items()
    ]
    stages.append(StageReport("aligned", "ab", 8, 0, made=8, seconds=5.0))
    log.finished(RunReport(stages, [], interrupted=False))
    assert journal.path is not None
    event = json.loads(journal.path.read_text().splitlines()[-1])
    journal.close()
    assert event["event"] == "run_finished"
    assert event["workers"] == worker_count(experiment.config.executor)
    return {stage["stage"]: stage for stage in event["stages"]}


def test_a_stage_is_as_fast_as_it_is_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = resolve(make_experiment(tmp_path))
    now = iter([0.0, 0.0, 100.0, 200.0, 204.0])
    monkeypatch.setattr(run_log, "time", SimpleNamespace(monotonic=lambda: next(now)))
    said: list[dict[str, Any]] = []
    journal = Journal(None)
    monkeypatch.setattr(journal, "live", lambda stages: said.append(stages))
    log = RunLog(journal, experiment, ["verb", "aligned"], print)
    info = RowInfo("kitchen_a/a0/0", "kitchen_a")
    for stage in ("verb", "aligned"):
        log.start(stage, 8)
        slots = {slot: ("ab" * 32, info) for slot in range(8)}
        log.committed(stage, [Receipt(stage, "ab" * 32, 0, slots, 80, {})], [])
    rates = {name: stage["rows_per_second"] for name, stage in said[-1].items()}
    assert rates == {"verb": 0.08, "aligned": 2.0}


def test_seconds_are_shared_out(tmp_path: Path) -> None:
    stages = finished(tmp_path, "executor.workers=3")
    own = {name: stage["own_seconds"] for name, stage in stages.items()}
    assert own == {"verb": 75.0, "noun": 25.0, "aligned": 5.0}


def test_seconds_in_a_queue_are_no_rate(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    stages = finished(tmp_path, "executor={name: slurm, cluster: local}")
    assert {name: stage["own_seconds"] for name, stage in stages.items()} == {
        "verb": 0.0,
        "noun": 0.0,
        "aligned": 5.0,
    }
    assert stages["verb"]["seconds"] == 100.0
