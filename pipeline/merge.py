"""Taking in what the tasks of jobs left: rows into the store, finished jobs out of it.

    journals ─► receipts, failures ─► committed          while tasks still run, too
    tasks that ended ─► leases released ─► the store, opened again, takes in whole shards of theirs
    jobs all of whose tasks ended ─► removed; logs of tasks that were lost are kept

All of it may be done again, and by whoever may write to the store. Rows go to the generation that
they were made for, whatever the config says by now.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.job_folder import DamagedJobError, Job, find_jobs, forsaken
from pipeline.job_report import JobReport, count_rows, find_generation, report_tasks, sound_reports
from pipeline.journal import LOGS_FOLDER
from pipeline.task_journal import Event, failures_of, journals, read_events, receipt_of
from stores.base import Failure, Receipt, Store
from stores.leases import LEASES_FOLDER
from stores.registry import open_store

__all__ = ["merge_jobs"]


def merge_jobs(path: Path) -> list[JobReport]:
    """Take in what the tasks of all jobs of a store have done so far.

    Args:
        path: folder of the store; nothing happens where it has no jobs.

    Raises:
        StoreLockedError: a driver waits for the jobs, or another run writes.
        DamagedJobError: a job cannot be read; all others are taken in.
    """
    damaged: list[DamagedJobError] = []
    leased = any((path / LEASES_FOLDER).glob("*.json"))
    if not (find_jobs(path, damaged) or leased):
        _refuse(damaged)
        return []
    damaged.clear()
    with open_store(path, mode="a") as store:
        jobs = find_jobs(path, damaged)
        given_up = forsaken(path, [lease.name for lease in store.leases()])
        for name in given_up:
            store.release(name)
        reports = sound_reports([partial(_merge, store, job) for job in jobs], damaged)
    ended = any(task.end != "running" for report in reports for task in report.tasks)
    # Opening a store is what takes in whole shards that nobody spoke of, where no lease is left.
    with open_store(path, mode="a" if ended or given_up else "r") as store:
        reports = sound_reports([partial(count_rows, store, report) for report in reports], damaged)
    for report in reports:
        _keep_logs(path, report)
        if not report.running:
            report.job.remove()
    _refuse(damaged)
    return reports


def _refuse(damaged: Iterable[DamagedJobError]) -> None:
    if texts := [str(error) for error in damaged]:
        raise DamagedJobError("\n".join(texts))


def _commit(store: Store, job: Job, events: Iterable[Event]) -> int:
    """Commit what events say is on disk or failed; return rows whose generation is gone."""
    receipts: dict[tuple[str, str], list[Receipt]] = {}
    failures: dict[tuple[str, str], list[Failure]] = {}
    for event in events:
        if event["event"] == "rows":
            place = (event["stage"], job.keys[event["stage"]])
            receipt = receipt_of(event)
            receipts.setdefault(place, []).extend([] if receipt is None else [receipt])
            failures.setdefault(place, []).extend(failures_of(event))
    dropped = 0
    for place, found in receipts.items():
        generation = find_generation(store, *place)
        if generation is None:
            dropped += sum(len(receipt.slots) for receipt in found)
        else:
            generation.commit(found, failures[place])
    return dropped


def _merge(store: Store, job: Job) -> JobReport:
    report = report_tasks(job)  # before the journals: what ends meanwhile is looked at next time
    for task in report.tasks:
        events = list(_new_events(job, task.number))
        report.dropped += _commit(store, job, events)
        job.save_merged()
        if task.end != "running":
            store.release(job.lease(task.number))
    return report


def _new_events(job: Job, task: int) -> Iterator[Event]:
    """What was not committed before; counted as committed from now on."""
    for path in journals(job.folder, task):
        events, job.merged[path.name] = read_events(path, job.merged.get(path.name, 0))
        yield from events


def _keep_logs(path: Path, report: JobReport) -> None:
    """Logs of lost tasks outlive the job's folder."""
    for task in report.tasks:
        if task.end == "lost":
            for log in report.job.logs(task.number):
                kept = path / LOGS_FOLDER / f"{report.job.name}-{log.name}"
                with suppress(OSError):
                    kept.parent.mkdir(exist_ok=True)
                    shutil.copyfile(log, kept)
                    task.logs.append(kept)
