"""Worker processes: the same rows to the byte, and what becomes of a worker that ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from experiment_fixtures import Silent, make_experiment
from run_fixtures import TWO_WORKERS, Contents, contents, events, make_five_videos, run

from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.stages import STAGE_NAMES


def test_workers_make_the_same_rows_to_the_byte(tmp_path: Path, undisturbed: Contents) -> None:
    report = run(tmp_path, TWO_WORKERS)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    workers = {event["worker"] for event in events(tmp_path, "worker_started")}
    assert workers == {"worker 0", "worker 1"}
    units = events(tmp_path, "unit_started")
    assert len(units) == 2
    assert {
        event["worker"] for event in units
    } <= workers  # one may be done before the other begins
    verb = next(stage for stage in report.stages if stage.stage == "verb")
    assert verb.batch_size == verb.batch_size_wanted
    assert verb.timings.decode_seconds > 0


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, undisturbed: Contents) -> None:
    def kill() -> None:
        started = events(tmp_path, "worker_started")
        os.kill(started[0]["pid"], signal.SIGKILL)

    report = run(tmp_path, TWO_WORKERS, act=kill)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert len(events(tmp_path, "worker_started")) >= 2
    ends = [event["reason"] for event in events(tmp_path, "worker_ended")]
    assert "signal SIGKILL" in ends


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_replaced(tmp_path: Path, undisturbed: Contents) -> None:
    stopped: list[int] = []

    def freeze() -> None:
        stopped.append(events(tmp_path, "worker_started")[0]["pid"])
        os.kill(stopped[0], signal.SIGSTOP)

    report = run(tmp_path, TWO_WORKERS, "executor.worker_stall_seconds=6", act=freeze)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert not Path(f"/proc/{stopped[0]}/exe").exists()


def test_a_run_that_is_told_to_stop_keeps_what_is_finished(
    tmp_path: Path, undisturbed: Contents
) -> None:
    stop = threading.Event()
    report = run(tmp_path, TWO_WORKERS, act=stop.set, stop=stop)
    assert report.interrupted
    kept = sum(len(rows) for rows in contents(tmp_path).values())
    assert 0 < kept < sum(len(rows) for rows in undisturbed.values())
    assert run(tmp_path, TWO_WORKERS).complete
    assert contents(tmp_path) == undisturbed


def test_workers_that_cannot_begin_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = resolve(make_experiment(tmp_path, [TWO_WORKERS]))
    from pipeline import run_setup

    def other_weights(stage: object) -> Sequence[tuple[Path, str]]:
        return [(tmp_path / "weights.pt", "ab" * 32)]

    monkeypatch.setattr(run_setup, "_weights", other_weights)
    with pytest.raises(ConfigError, match=r"weights\.pt: got other weights than when"):
        run_experiment(
            experiment,
            stages=STAGE_NAMES,
            retry_failed=False,
            reporter=Silent(),
            stop=threading.Event(),
        )


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_worker_has_the_next_unit_beside_its_own(tmp_path: Path, how: str) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        make_five_videos(folder)
    assert run(folders[0]).complete
    undisturbed, folder = contents(folders[0]), folders[1]
    stop = threading.Event()

    def kill() -> None:
        os.kill(events(folder, "worker_started")[0]["pid"], signal.SIGKILL)

    report = run(
        folder, "executor.workers=1", act=stop.set if how == "stopped" else kill, stop=stop
    )
    first, second = events(folder, "unit_started")[:2]
    ends = events(folder, "unit_finished") + events(folder, "unit_lost")
    assert second["time"] <= min(event["time"] for event in ends)
    assert first["worker"] == second["worker"]
    if how == "killed":
        assert report.complete
        assert [event["unit"] for event in events(folder, "unit_lost")] == [2, 1]
    else:
        assert report.interrupted
        assert len(events(folder, "unit_finished")) == 2  # both are told of, begun or not
        assert run(folder, "executor.workers=1").complete
    assert contents(folder) == undisturbed
    rows = sum(map(len, undisturbed.values()))
    committed = sum(event["rows"] for event in events(folder, "committed"))
    assert committed == rows
