"""How fast rows are made: shares of time, and time without what comes before the first rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from experiment_fixtures import make_experiment

from pipeline import rates
from pipeline.experiment import Experiment, resolve
from pipeline.journal import Journal
from pipeline.rates import Rate, last_rates, past_rates, share_out


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
    assert past_rates(tmp_path / "store", stages, "cpu", 1) == {}
    journal = Journal(tmp_path / "store")
    journal.event("run_finished", device="cpu", stages=[verb])
    journal.close()
    (rate,) = past_rates(tmp_path / "store", stages, "cpu", 1).values()
    assert (rate.rows_per_second, rate.rows, rate.origin) == (4.0, 8, "past run")
    assert rate.log == journal.path.name if journal.path else None
    assert past_rates(tmp_path / "nowhere", stages, "cpu", 1) == {}


def run_with(store: Path, experiment: Experiment, device: str, workers: int, rows: int) -> None:
    """A log of a run that made a row a second in each stage, for each worker."""
    stages = [
        {"stage": name, "key": stage.key, "rows": rows, "own_seconds": rows / workers}
        for name, stage in experiment.stages.items()
    ]
    journal = Journal(store)
    journal.event("run_finished", device=device, workers=workers, stages=stages)
    journal.close()


def test_a_rate_grows_with_gpus_only(tmp_path: Path) -> None:
    experiment = resolve(make_experiment(tmp_path))
    store = tmp_path / "store"
    store.mkdir()
    for device in ("cpu", "cuda"):
        run_with(store, experiment, device, workers=2, rows=90)
        run_with(store, experiment, device, workers=4, rows=10)

    def rates(device: str, workers: int) -> dict[str, Rate]:
        return past_rates(store, experiment.stages.values(), device, workers)

    verb = rates("cuda", 8)["verb"]
    assert (verb.rows_per_second, verb.workers, verb.scaled_to) == (8.0, 2, 8)
    assert str(verb) == "as a past run of 2 workers tells (as 8 workers would)"
    # The main process makes these, however many make the others.
    aligned = rates("cuda", 8)["aligned"]
    assert (aligned.rows_per_second, aligned.scaled_to) == (2.0, None)
    # On a CPU that of a run with as many workers, else of the largest run, as it is.
    assert [rates("cpu", n)["verb"].rows_per_second for n in (2, 4, 8)] == [2.0, 4.0, 2.0]
    assert str(rates("cpu", 8)["verb"]) == "as a past run of 2 workers tells"


def test_the_last_rate_is_that_of_the_last_runs_table(tmp_path: Path) -> None:
    experiment = resolve(make_experiment(tmp_path))
    stages = experiment.stages.values()
    assert last_rates(tmp_path / "store", stages) == {}
    (tmp_path / "store").mkdir()
    key = experiment.stages["verb"].key
    made = {"stage": "verb", "key": key, "rows": 8, "seconds": 4.0, "own_seconds": 1.0}
    # The largest run, the last, one of which nothing was made, and one with other settings.
    for ran in (
        {**made, "rows": 800},
        made,
        {**made, "rows": 0},
        {**made, "key": "old", "rows": 99},
    ):
        journal = Journal(tmp_path / "store")
        journal.event("run_finished", device="cuda", stages=[ran])
        journal.close()
    assert last_rates(tmp_path / "store", stages) == {"verb": 2.0}
