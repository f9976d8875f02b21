"""How jobs on a cluster stand: their tasks, and what has become of the rows they were to make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.job_folder import DamagedJobError, Job, find_jobs
from pipeline.job_states import ENDED, is_elsewhere, task_states
from pipeline.task_journal import Event, journals, read_events, settled_keys
from stores.base import FeatureStore, MissingGenerationError, Store
from stores.records import name_some
from stores.registry import open_store

__all__ = [
    "JobReport",
    "TaskReport",
    "count_rows",
    "find_generation",
    "in_words",
    "look_at_jobs",
    "maker_of",
    "report_tasks",
    "rows_of_jobs",
    "rows_out",
    "sound_reports",
]


@dataclass
class TaskReport:
    """How a task stands.

    Attributes:
        state: as the cluster calls it.
        rows: that it was to make.
        stored: of them, in the store now.
        failed: rows that it could not make.
        end: "running" (or queued), "finished", "lost" (it ended before it was done).
        reason: of a lost one, what it said last.
        logs: of a lost one, what it printed.
    """

    number: int
    state: str
    rows: int = 0
    stored: int = 0
    failed: int = 0
    end: str = "running"
    reason: str = ""
    logs: list[Path] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Rows that are neither stored nor failed."""
        return max(0, self.rows - self.stored - self.failed)


@dataclass
class JobReport:
    """How a job stands. ``dropped``: rows whose generation was removed meanwhile."""

    job: Job
    tasks: list[TaskReport]
    dropped: int = 0

    @property
    def running(self) -> bool:
        """Whether some task is still to come or at work."""
        return any(task.end == "running" for task in self.tasks)


def look_at_jobs(path: Path, damaged: list[DamagedJobError]) -> list[JobReport]:
    """How the jobs of a store stand; takes nothing in. Rows are those that are stored by now.

    Args:
        damaged: takes what is wrong with jobs that cannot be read, which are left out.
    """
    reports = [report_tasks(job) for job in find_jobs(path, damaged)]
    if not reports:
        return []
    with open_store(path, mode="r") as store:
        return sound_reports([partial(count_rows, store, report) for report in reports], damaged)


def rows_of_jobs(path: Path) -> dict[str, set[str]]:
    """Rows that jobs of a store are making, by stage key; the store itself is not opened."""
    return rows_out(report_tasks(job) for job in find_jobs(path))


def maker_of(path: Path, key: str, row: str) -> str:
    """Which task makes a row of the generation with a key now, in words; "" for none."""
    for report in map(report_tasks, find_jobs(path)):
        for task in report.tasks:
            if task.end == "running" and row in report.job.rows(task.number).get(key, ()):
                return f"task {task.number} of job {report.job.name}"
    return ""


def rows_out(reports: Iterable[JobReport]) -> dict[str, set[str]]:
    """Rows that tasks will make which are queued or running, by stage key."""
    out: dict[str, set[str]] = {}
    for report in reports:
        for task in report.tasks:
            if task.end == "running":
                for key, rows in report.job.rows(task.number).items():
                    out.setdefault(key, set()).update(rows)
    return out


def in_words(report: JobReport) -> str:
    """One line about a job."""
    tasks = report.tasks
    ends = [
        (end, sum(task.end == end for task in tasks)) for end in ("running", "finished", "lost")
    ]
    told = ", ".join(f"{count:,} {end}" for end, count in ends if count)
    out = sum(task.missing for task in tasks if task.end == "running")
    stored, failed = sum(task.stored for task in tasks), sum(task.failed for task in tasks)
    return (
        f"job {report.job.name}: tasks {told}; rows {stored:,} stored, {failed:,} failed, {out:,} "
        f"out, {sum(task.missing for task in tasks) - out:,} missing{_where(report)}"
    )


def _where(report: JobReport) -> str:
    """Where to merge a job whose tasks cannot be seen from here."""
    if not (report.running and is_elsewhere(report.job)):
        return ""
    return f"; its tasks are processes of {report.job.host}: only symbio merge there sees them end"


def sound_reports(
    actions: Iterable[Callable[[], JobReport]], damaged: list[DamagedJobError]
) -> list[JobReport]:
    """Reports of jobs whose files can be read; what is wrong with others is put down."""
    reports = []
    for action in actions:
        try:
            reports.append(action())
        except DamagedJobError as error:
            damaged.append(error)
    return reports


def report_tasks(job: Job) -> JobReport:
    """How the tasks of a job stand, but for their rows."""
    report = JobReport(job, [TaskReport(n, state) for n, state in enumerate(task_states(job))])
    for task in report.tasks:
        if task.state in ENDED:
            task.end = "finished" if _is_finished(job, task.number) else "lost"
    return report


def count_rows(store: Store, report: JobReport) -> JobReport:
    """Put down what the store has of the rows that each task was to make; return the report."""
    stages = {key: stage for stage, key in report.job.keys.items()}
    for task in report.tasks:
        for key, rows in report.job.rows(task.number).items():
            task.rows += len(rows)
            generation = find_generation(store, stages[key], key)
            if generation is not None:
                missing = set(generation.missing(sorted(rows)))
                task.stored += len(rows) - len(missing)
                task.failed += sum(f.row_key in missing for f in generation.failures())
        if task.end == "lost":
            task.reason = _last_words(report.job, task.number)
    return report


def find_generation(store: Store, stage: str, key: str) -> FeatureStore | None:
    """The generation that rows were made for; None if somebody removed it meanwhile."""
    try:
        return store.generation(stage, key)
    except MissingGenerationError:
        return None


def _all_events(job: Job, task: int) -> list[Event]:
    return [event for path in journals(job.folder, task) for event in read_events(path)[0]]


def _is_finished(job: Job, task: int) -> bool:
    return any(event["event"] == "finished" for event in _all_events(job, task))


def _last_words(job: Job, task: int) -> str:
    events = _all_events(job, task)
    if not events:
        return "it never started"
    last = events[-1]
    if last["event"] == "error":
        return f"{last['error_class']}: {last['message']}"
    if last["event"] == "given_up":
        return f"{last['starts']} starts in a row ended before any row was done"
    if last["event"] == "stopped":
        return f"it was told to end ({last['signal']}) and not started again"
    if last["event"] == "overdue":
        return f"it was told to end ({last['signal']}) and took longer than its grace time"
    videos = list(_at_work(job, task, events))
    return "it ended without a word" + (f", at videos {name_some(videos)}" if videos else "")


def _at_work(job: Job, task: int, events: Iterable[Event]) -> Iterator[str]:
    """Videos of units that were begun and not done."""
    begun = {event["unit"] for event in events if event["event"] == "unit_started"}
    settled = {key for event in events for key in settled_keys(event)}
    for unit in job.units(task):
        rows = {(stage, key) for stage, keys in unit["rows"].items() for key in keys}
        if unit["unit"] in begun and not rows <= settled:
            yield from unit["videos"]
