"""What the commands do, between the command line and the pipeline: call, then show."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.config import ExperimentConfig
from pipeline.console import (
    ProgressReporter,
    plan_table,
    print_failures,
    print_missing,
    print_run,
    table,
)
from pipeline.experiment import Experiment, resolve
from pipeline.plan import plan_all, without_absent
from pipeline.run_report import RunReport, write_report
from pipeline.settled import settled_report
from pipeline.stored import open_if_there
from stores.base import Store

__all__ = ["run_stages", "show_plan", "show_status"]


def show_plan(config: ExperimentConfig, console: Console, *, rehash: bool) -> None:
    """Print rows and bytes that a run would make, and why."""
    experiment = resolve(config, rehash=rehash)
    with open_if_there(config.store.path) as store:
        plans = plan_all(experiment, store)
        console.print(plan_table(plans))
        _remember(experiment, store)
    videos = {p.stage.name: p for p in plans if p.stage.name in experiment.video_stages}
    _, gone = without_absent(experiment, videos)
    print_missing(console, [*experiment.missing_videos, *gone])
    _print_boxless(experiment, console)


def run_stages(
    config: ExperimentConfig,
    console: Console,
    *,
    stages: Collection[str],
    retry_failed: bool,
    rehash: bool,
    quiet: bool,
    report_path: Path | None = None,
) -> RunReport:
    """Bring stages up to date, with progress and a summary, and a report for programs."""
    if report_path is not None and not report_path.parent.is_dir():
        raise FileNotFoundError(f"{report_path.parent}: no such folder for the report; make it")
    experiment = resolve(config, rehash=rehash)
    report = settled_report(experiment, stages, retry_failed=retry_failed)
    if report is None:
        from pipeline.run import run_experiment  # with the networks' libraries

        with _stop_on_signals() as stop, ProgressReporter(console, quiet=quiet) as reporter:
            report = run_experiment(
                experiment, stages=stages, retry_failed=retry_failed, reporter=reporter, stop=stop
            )
    print_run(console, report, quiet=quiet)
    if report_path is not None:
        write_report(report, report_path)
    _print_boxless(experiment, console)
    return report


def show_status(config: ExperimentConfig, console: Console) -> None:
    """Print stored, missing and failed rows of an experiment, and why rows failed."""
    experiment = resolve(config)
    with open_if_there(config.store.path) as store:
        plans = plan_all(experiment, store)
        rows = [
            (p.stage.name, p.stage.key[:12], p.wanted, p.present, len(p.todo), p.failed)
            for p in plans
        ]
        columns = {"stage": "left", "key": "left"}
        columns |= dict.fromkeys(("wanted", "present", "missing", "failed"), "right")
        console.print(table(f"{config.name} in {config.store.path}", columns, rows))
        _remember(experiment, store)
    print_failures(console, {p.stage.name: p.failures for p in plans})
    print_missing(console, experiment.missing_videos)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """The first SIGINT, SIGTERM or SIGUSR1 asks for an early end, the second one forces it."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers: list[Callable[..., Any] | int | None] = [signal.signal(s, ask) for s in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)


def _remember(experiment: Experiment, store: Store | None) -> None:
    """Keep what was learnt where there is a store; elsewhere none could be made any more."""
    if store is not None:
        experiment.known.save_if_possible()


def _print_boxless(experiment: Experiment, console: Console) -> None:
    """How many frames have no given boxes: a few are honest, many are a mistake in the file."""
    stage = experiment.aligned.objects
    if stage.boxes is None:
        return
    rows = stage.rows(experiment.table)
    empty = sum(row.boxes is not None and not len(row.boxes.scores) for row in rows)
    if empty:
        line = f"{empty:,} of {len(rows):,} object frames have no boxes in {stage.boxes.path}"
        console.print(Text(line, style="yellow"))
