"""What `symbio merge` does and shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipeline.config import ExperimentConfig
from pipeline.job_folder import DamagedJobError
from pipeline.job_report import JobReport, TaskReport, in_words, look_at_jobs
from pipeline.merge import merge_jobs
from pipeline.tables import FittingTable, table
from stores.lock import writer_of

__all__ = ["job_table", "print_jobs", "show_merge"]


def show_merge(config: ExperimentConfig, console: Console) -> bool:
    """Take in what jobs left and print how they stand; return whether none of them lost rows."""
    reports = merge_jobs(config.store.path)
    if not reports:
        console.print(Text(f"{config.store.path}: no jobs"))
    for report in reports:
        console.print(job_table(report))
        _print_trouble(console, report)
    tasks = [task for report in reports for task in report.tasks]
    return not any(task.end == "lost" or task.failed for task in tasks)


def print_jobs(console: Console, store: Path) -> None:
    """A line for each job that was not merged yet, or is not over."""
    damaged: list[DamagedJobError] = []
    what_next = "symbio merge takes in what is done"
    if holder := writer_of(store):
        what_next += f" once the store is free, which is held by {holder}"
    for report in look_at_jobs(store, damaged):
        console.print(Text(f"{in_words(report)} ({what_next})"))
    for error in damaged:
        console.print(Text(str(error), style="red"))


def job_table(report: JobReport) -> FittingTable:
    """A line for each task of a job."""
    columns = {"task": "right", "state": "left", "end": "left"}
    columns |= dict.fromkeys(("rows", "stored", "failed", "out", "missing"), "right")
    rows = [(task.number, task.state, task.end, *_counts(task)) for task in report.tasks]
    return table(f"job {report.job.name}", columns, rows)


def _counts(task: TaskReport) -> Sequence[str]:
    out = task.missing if task.end == "running" else 0
    counts = (task.rows, task.stored, task.failed, out, task.missing - out)
    return [f"{count:,}" for count in counts]


def _print_trouble(console: Console, report: JobReport) -> None:
    for task in report.tasks:
        if task.end == "lost":
            logs = ", ".join(map(str, task.logs)) or "none"
            line = f"task {task.number}: {task.reason}; its logs: {logs}"
            console.print(Text(line, style="red"))
    if report.dropped:
        line = f"{report.dropped:,} rows are of generations that were removed meanwhile"
        console.print(Text(line, style="yellow"))
    if any(task.end == "lost" and task.missing for task in report.tasks):
        console.print("symbio run makes the rows that are missing")
