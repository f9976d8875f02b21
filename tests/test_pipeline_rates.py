"""How fast rows are made: shares of time, and time without what comes before the first rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from experiment_fixtures import make_experiment

from pipeline import rates
from pipeline.experiment import resolve
from pipeline.journal import Journal
from pipeline.rates import past_rates, share_out


def test_seconds_are_shared_out_by_what_each_stage_was_busy() -> None:
    assert share_out(30.0, {"verb": 4.0, "noun": 2.0}) == {"verb": 20.0, "noun": 10.0}
    assert share_out(30.0, {"verb": 0.0}) == {"verb": 0.0}
    assert share_out(30.0, {}) == {}


def test_the_time_before_the_first_rows_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 100.0, 130.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = rates._Watch()
    watch.note(0)
    watch.note(4)  # at 100 s
    watch.note(6)
    # Six rows took thirty seconds, so ten take fifty.
    assert watch.seconds == pytest.approx(50.0)


def test_a_single_batch_takes_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 100.0, 101.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = rates._Watch()
    watch.note(4)
    assert watch.seconds == 101.0


def test_logs_without_an_end_tell_nothing(tmp_path: Path) -> None:
    experiment = resolve(make_experiment(tmp_path))
    (tmp_path / "store").mkdir()
    verb = {"stage": "verb", "key": experiment.stages["verb"].key, "rows": 8, "own_seconds": 2.0}
    journal = Journal(tmp_path / "store")
    journal.event("run_finished", device="cpu", stages=[verb])
    journal.event("committed", stage="verb", rows=1, nbytes=1)
    journal.close()
    stages = experiment.stages.values()
    assert past_rates(tmp_path / "store", stages, "cpu") == {}
    journal = Journal(tmp_path / "store")
    journal.event("run_finished", device="cpu", stages=[verb])
    journal.close()
    (rate,) = past_rates(tmp_path / "store", stages, "cpu").values()
    assert (rate.rows_per_second, rate.rows, rate.origin) == (4.0, 8, "past run")
    assert rate.log == journal.path.name if journal.path else None
    assert past_rates(tmp_path / "nowhere", stages, "cpu") == {}
