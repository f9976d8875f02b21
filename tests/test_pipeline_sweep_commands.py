"""What a sweep says while it trains."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from experiment_fixtures import make_experiment
from rich.console import Console

from heads.training_log import EpochReport
from pipeline.sweep import Outcome
from pipeline.sweep_commands import SweepProgress
from pipeline.sweep_plan import SweepRun

METRICS = {"verb_top1": 0.577, "noun_top1": 0.348, "action_top1": 0.2571}


@pytest.fixture
def runs(tmp_path: Path) -> list[SweepRun]:
    """Three seeds of ten epochs."""
    config = make_experiment(tmp_path, ["train.epochs=10"])
    return [SweepRun("saoa", seed, config, tmp_path / str(seed)) for seed in range(3)]


def report(epoch: int, seconds: float) -> EpochReport:
    return EpochReport(epoch, 10, 0.1, 1.0, 0.5, 0.5, seconds, None, True)


def said(runs: list[SweepRun], *, terminal: bool = False, quiet: bool = False) -> str:
    """One run was finished before, one trains half and fails, one trains, one is left."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120)
    with SweepProgress(console, 4, quiet=quiet) as progress:
        progress.end(Outcome("pooled", 0, Path("pooled"), METRICS))
        progress.start(runs)
        for epoch in range(1, 6):
            progress.epoch(report(epoch, 9.0))
        progress.end(Outcome.of(runs[0], error="got a loss of nan"))
        for epoch in range(1, 11):
            progress.epoch(report(epoch, 4.5))
        progress.end(Outcome.of(runs[1], metrics=METRICS, seconds=46.25))
    return file.getvalue()


def test_a_line_per_run_with_the_time_that_is_left(runs: list[SweepRun]) -> None:
    numbers = "verb 57.7 %, noun 34.8 %, action 25.7 %"
    # Twenty epochs of 9 s are left; then ten, of (5 × 9 + 10 × 4.5) / 15 = 6 s.
    assert said(runs).splitlines() == [
        f"1/4  pooled, seed 0: {numbers}, finished before",
        "2/4  saoa, seed 0: failed, see below, about 0:03:00 left",
        f"3/4  saoa, seed 1: {numbers}, 46.2 s, about 0:01:00 left",
    ]


def test_a_terminal_has_a_bar_as_well(runs: list[SweepRun]) -> None:
    text = said(runs, terminal=True)
    assert "15/25" in text  # the five epochs that the failed run did not need are not waited for
    assert "about 0:01:00 left" in text


def test_a_quiet_sweep_says_nothing_meanwhile(runs: list[SweepRun]) -> None:
    assert said(runs, quiet=True, terminal=True) == ""
