"""Waiting for a job: what its tasks say becomes progress, and who ended is told of."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.job_folder import JOB_FILE, Job
from pipeline.job_states import ENDED, task_states
from pipeline.journal import Journal
from pipeline.patience import Patience
from pipeline.task_journal import Event, journals, progress_of, read_events
from pipeline.unit_queue import UnitQueue
from pipeline.work import Progress, Unit
from stores.base import StorageUnavailableError, Store

__all__ = ["JobWatch"]

JOURNAL_SECONDS = 2.0
STATE_SECONDS = {"slurm": 20.0, "local": 1.0}


class JobWatch:
    """A job while its driver waits.

    Args:
        tasks: units of each.
        store: whose leases are released as tasks finish.
        journal: of the run.
        tell: is told what a person should know.
        patience: with storage that is gone for a while.
    """

    def __init__(
        self,
        job: Job,
        tasks: Sequence[Sequence[Unit]],
        store: Store,
        journal: Journal,
        tell: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self._job = job
        self._units = {unit.number: unit for units in tasks for unit in units}
        self._tasks = tasks
        self._store = store
        self._journal = journal
        self._tell = tell
        self._patience = replace(patience, tell=tell)
        self._open = set(range(len(tasks)))
        self._finished: set[int] = set()

    def progress(self, queue: UnitQueue, stop: threading.Event) -> Iterator[Progress | None]:
        """What tasks report, until all have ended or the driver is told to leave.

        Raises:
            StorageUnavailableError: the job's folder stayed away; the job goes on.
        """
        looked_at = -float("inf")
        while self._open and not stop.is_set():
            self._patience(self._check_folder)
            ended: list[int] = []
            nearly_over = self._open <= self._finished
            interval = JOURNAL_SECONDS if nearly_over else STATE_SECONDS[self._job.cluster]
            if time.monotonic() - looked_at >= interval:
                looked_at = time.monotonic()
                states = task_states(self._job)  # before the journals are read to their ends
                ended = [task for task in sorted(self._open) if states[task] in ENDED]
            for task in sorted(self._open):
                yield from self._read(task, queue)
            yield None  # whoever got the progress commits it now
            for task in ended:
                self._end(task, states[task])
            self._job.save_merged()
            if self._open:
                stop.wait(JOURNAL_SECONDS)
        if len(self._finished) == len(self._tasks):
            self._job.remove()

    def _check_folder(self) -> None:
        """Where it is gone for a while, tasks must not pass for silent."""
        folder = self._job.folder
        if not (folder / JOB_FILE).exists():
            raise StorageUnavailableError(
                errno.ENOENT, "got no folder of a job that goes on, expected it", str(folder)
            )

    def _read(self, task: int, queue: UnitQueue) -> Iterator[Progress]:
        for path in journals(self._job.folder, task):
            offset = self._job.merged.get(path.name, 0)
            if path.stat().st_size > offset:
                events, self._job.merged[path.name] = read_events(path, offset)
                for event in events:
                    yield from self._take(task, event, queue)

    def _take(self, task: int, event: Event, queue: UnitQueue) -> Iterator[Progress]:
        name, unit = event["event"], self._units.get(event.get("unit", 0))
        if name in ("rows", "summary") and unit is not None:
            progress = progress_of(event)
            queue.note(unit, progress)
            yield progress
        elif name == "unit_finished" and unit is not None:
            queue.done(unit)
        elif name == "finished":
            self._finished.add(task)
        elif name == "error":
            self._tell(f"task {task}: {event['error_class']}: {event['message']}")
        self._log(f"task {task}", event, unit)

    def _log(self, worker: str, event: Event, unit: Unit | None) -> None:
        """Tell the run's journal what a task is at, as other executors tell of their workers."""
        name = event["event"]
        if name == "started":
            self._journal.event(
                "worker_started", worker=worker, pid=event["pid"], host=event["host"]
            )
        elif name == "unit_started" and unit is not None:
            videos = [work.video.video_id for work in unit.videos]
            self._journal.event("unit_started", unit=unit.number, worker=worker, videos=videos)
        elif name == "unit_finished":
            self._journal.event(name, unit=event["unit"], worker=worker)
        elif name in ("finished", "stopped", "error", "overdue", "given_up"):
            reason = {key: value for key, value in event.items() if key != "event"}
            self._journal.event("worker_ended", worker=worker, reason=name, **reason)

    def _end(self, task: int, state: str) -> None:
        self._open.discard(task)
        if task in self._finished:
            self._store.release(self._job.lease(task))
        else:
            self._journal.event("worker_ended", worker=f"task {task}", reason=state)
            self._tell(
                f"task {task} ended before it was done ({state}); its logs: "
                f"{', '.join(map(str, self._job.logs(task))) or 'none'}; "
                "symbio run makes what is missing"
            )
