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

from pipeline.checks import check_config, check_holder, refuse
from pipeline.config import ExperimentConfig
from pipeline.console import (
    ProgressReporter,
    print_boxless,
    print_run,
)
from pipeline.error_classes import Retry, of_classes
from pipeline.executor_checks import check_executor
from pipeline.experiment import resolve
from pipeline.input_checks import look_at_inputs
from pipeline.reproduce import ConfigSource
from pipeline.run_report import RunReport, write_report
from pipeline.settled import settled_report
from pipeline.stages import STAGE_NAMES
from pipeline.stored import open_if_there, recorded_failures

__all__ = ["run_stages"]


def run_stages(
    config: ExperimentConfig,
    console: Console,
    *,
    stages: Collection[str],
    retry_failed: Retry,
    source: ConfigSource | None = None,
    rehash: bool,
    quiet: bool,
    report_path: Path | None = None,
) -> RunReport:
    """Bring stages up to date, with progress and a summary, and a report for programs.

    Args:
        stages: none are those that the config has a use for.

    Raises:
        ConfigError: something is in the way of a run, or there is no such class of errors.
    """
    if report_path is not None and not report_path.parent.is_dir():
        raise FileNotFoundError(f"{report_path.parent}: no such folder for the report; make it")
    if problems := check_config(config):
        problems += [*check_executor(config), *check_holder(config.store.path)]
        refuse([*problems, *look_at_inputs(config)[0]])
    if not isinstance(retry_failed, bool):
        with open_if_there(config.store.path) as store:
            of_classes(recorded_failures(store), retry_failed)  # which there are
    experiment = resolve(config, rehash=rehash)
    unread = not stages and config.train.features == "maps"
    stages = stages or [name for name in STAGE_NAMES if not (unread and name == "aligned")]
    report = settled_report(experiment, stages, retry_failed=retry_failed)
    if report is None:
        refuse([*check_executor(config), *check_holder(config.store.path)])
        from pipeline.run import run_experiment  # with the networks' libraries

        with _stop_on_signals() as stop, ProgressReporter(console, quiet=quiet) as reporter:
            report = run_experiment(
                experiment,
                stages=stages,
                retry_failed=retry_failed,
                reporter=reporter,
                stop=stop,
                source=source,
            )
    print_run(console, report, quiet=quiet)
    if unread:
        console.print(
            "aligned: skipped, as train.features: maps makes its rows in memory; "
            "--stage aligned makes them"
        )
    if report_path is not None:
        write_report(report, report_path)
    print_boxless(console, experiment)
    return report


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
