"""What `symbio sweep` does: plan, train with a line per run, show and write the table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from heads.training_log import EpochReport
from pipeline import tables as shown
from pipeline.sweep import Outcome, run_sweep
from pipeline.sweep_plan import Sweep, SweepRun, plan_sweep
from pipeline.sweep_table import (
    PAPER,
    Table,
    failure_lines,
    official_measures,
    shown_table,
    summarize,
    write_tables,
)

# Between the columns of a table.
GAP = 3

__all__ = ["SweepProgress", "print_table", "sweep_heads", "train_sweep"]


def sweep_heads(
    config: Path,
    console: Console,
    *,
    overrides: Sequence[str],
    grids: Sequence[str],
    seeds: str | None,
    name: str | None,
    official: bool,
    skip_missing: bool,
    quiet: bool,
) -> bool:
    """Train and compare many heads; False if a run failed."""
    sweep = plan_sweep(config, overrides=overrides, grids=grids, seeds=seeds, name=name)
    outcomes = train_sweep(
        sweep, console, official=official, skip_missing=skip_missing, quiet=quiet
    )
    summaries = summarize(sweep, outcomes)
    print_table(console, shown_table(sweep, summaries, _measures(sweep, outcomes, official)))
    failed = failure_lines(outcomes)
    if official and len(failed) < len(outcomes) and not _official(sweep, outcomes):
        console.print("--official: this data set's evaluation has no other figures")
    for line in failed:
        console.print(Text(line, style="red"))
    console.print(f"tables and run folders: {sweep.folder}")
    return not failed


def train_sweep(
    sweep: Sweep, console: Console, *, official: bool, skip_missing: bool, quiet: bool
) -> list[Outcome]:
    """Train with a line per run. Files of tables are of what is finished, also meanwhile."""
    outcomes: list[Outcome] = []
    with SweepProgress(console, len(sweep.rows) * len(sweep.seeds), quiet=quiet) as progress:

        def note(outcome: Outcome) -> None:
            outcomes.append(outcome)
            write_tables(sweep, outcomes, _measures(sweep, outcomes, official))
            progress.end(outcome)

        return run_sweep(
            sweep,
            skip_missing=skip_missing,
            on_start=progress.start,
            on_epoch=progress.epoch,
            on_outcome=note,
        )


def _measures(sweep: Sweep, outcomes: Sequence[Outcome], official: bool) -> list[str]:
    """The columns."""
    more = _official(sweep, outcomes) if official else []
    return [*sweep.measures, *(name for name in more if name not in sweep.measures)]


def _official(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[str]:
    return official_measures(summarize(sweep, outcomes))


def print_table(console: Console, table: Table) -> None:
    """The table on the terminal; in parts, one below the other, where it is too wide."""
    widths = [
        GAP + max(len(cell) for cell in cells)
        for cells in zip(table.columns, *table.rows, strict=True)
    ]
    pairs: list[list[int]] = []  # a measure, and what the paper says of it
    for column, name in enumerate(table.columns):
        if name == PAPER:
            pairs[-1].append(column)
        elif column:
            pairs.append([column])
    parts: list[list[int]] = [[]]
    for pair in pairs:
        taken = GAP + sum(widths[one] for one in (0, *parts[-1], *pair))
        if parts[-1] and taken > console.width:
            parts.append([])
        parts[-1] += pair
    for number, part in enumerate(parts):
        names = [("", "left"), *((table.columns[one], "right") for one in part)]
        rows = [[row[one] for one in (0, *part)] for row in table.rows]
        console.print(shown.table("" if number else table.title, names, rows))


class SweepProgress:
    """A line per run that ends, and below it, on a terminal, a bar of all epochs."""

    def __init__(self, console: Console, num_runs: int, *, quiet: bool) -> None:
        self._console, self._quiet, self._num_runs = console, quiet, num_runs
        self._num_ended = 0
        self._epochs_left: dict[Path, int] = {}
        self._epoch_seconds: list[float] = []
        self._last = time.perf_counter()
        self._bar = Progress(
            TextColumn("epochs"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def start(self, runs: Sequence[SweepRun]) -> None:
        """These are not finished."""
        self._epochs_left = {run.folder: run.config.train.epochs for run in runs}
        self._bar.update(self._task, total=sum(self._epochs_left.values()))

    def epoch(self, report: EpochReport) -> None:
        """One more."""
        now = time.perf_counter()
        # What an epoch says of itself leaves out its files, which is much of a short one.
        self._epoch_seconds.append(max(report.seconds, now - self._last))
        self._last = now
        self._bar.advance(self._task)

    def end(self, outcome: Outcome) -> None:
        """A run has ended; epochs that it did not need are no longer waited for."""
        self._num_ended += 1
        self._epochs_left.pop(outcome.folder, None)
        left = sum(self._epochs_left.values())
        self._bar.update(self._task, total=len(self._epoch_seconds) + left)
        if self._quiet:
            return
        line = f"{self._num_ended}/{self._num_runs}  {outcome.label}, seed {outcome.seed}: "
        if outcome.error:
            line += "failed, see below"
        else:
            line += ", ".join(
                f"{name} {100 * outcome.metrics[f'{name}_top1']:.1f} %"
                for name in ("verb", "noun", "action")
            )
            took = outcome.seconds
            line += ", finished before" if took is None else f", {took:.1f} s"
        seconds = round(left * mean(self._epoch_seconds or [0.0]))
        if seconds:
            line += f", about {timedelta(seconds=seconds)} left"
        self._console.print(Text(line))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
