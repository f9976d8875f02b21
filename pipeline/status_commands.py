"""`symbio status` of an experiment, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.live import Live

from pipeline.config import ExperimentConfig
from pipeline.console import print_failures, print_missing
from pipeline.experiment import resolve
from pipeline.merge_commands import print_jobs
from pipeline.plan import plan_all
from pipeline.status_view import Status, look, look_again, render
from pipeline.stored import open_if_there, remember

__all__ = ["show_status", "watch_status"]

REFRESH_SECONDS = 2.0


def show_status(config: ExperimentConfig, console: Console) -> Status:
    """Print what is stored, missing and failed, why rows failed, and who works on it."""
    experiment = resolve(config)
    with open_if_there(config.store.path) as store:
        plans = plan_all(experiment, store)
        status = look(experiment, store, plans)
        remember(experiment, store)
    console.print(render(status))
    print_jobs(console, config.store.path)
    print_failures(console, {p.stage.name: p.failures for p in plans})
    print_missing(console, experiment.missing_videos)
    return status


def watch_status(
    config: ExperimentConfig,
    console: Console,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Show the status and keep it up to date until Ctrl-C; once where nobody can watch.

    Args:
        pause: waits so many seconds.
    """
    status = show_status(config, console)
    if not console.is_terminal:
        return
    try:
        with Live(render(status), console=console, auto_refresh=False, screen=True) as live:
            while True:
                pause(REFRESH_SECONDS)
                with suppress(OSError), open_if_there(config.store.path) as store:
                    status = look_again(status, store)  # storage that is away comes back
                live.update(render(status), refresh=True)
    except KeyboardInterrupt:
        console.print(render(status))
