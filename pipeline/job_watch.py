"""Waiting for a job: what its tasks say becomes progress, and who ended is told of."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

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
# As file systems say that a folder is not there now.
AWAY = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN)
STATE_SECONDS = {"slurm": 20.0, "local": 1.0}

Result = TypeVar("Result")


def _nothing() -> None:
    """To see whether the folder is there."""


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
            self._patiently(_nothing)
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
            self._patiently(self._job.save_merged)
            if self._open:
                stop.wait(JOURNAL_SECONDS)
        if len(self._finished) == len(self._tasks):
            self._job.remove()

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """Do something that needs the job's folder, again where that was gone before the end.

        Tasks must not pass for silent because nobody sees what they wrote.
        """
        file = self._job.folder / JOB_FILE

        def attempt() -> Result:
            try:
                file.stat()
                result = action()
                file.stat()
            except OSError as error:
                if error.errno not in AWAY:
                    raise
                text = "got no folder of a job that goes on, expected it"
                raise StorageUnavailableError(error.errno, text, str(file.parent)) from error
            return result

        return self._patience(attempt)

    def _read(self, task: int, queue: UnitQueue) -> Iterator[Progress]:
        for name, (events, end) in self._patiently(partial(self._new_events, task)).items():
            self._job.merged[name] = end
            for event in events:
                yield from self._take(task, event, queue)

    def _new_events(self, task: int) -> dict[str, tuple[list[Event], int]]:
        """What journals of a task say that was not read before, and where that ends."""
        merged = self._job.merged
        return {
            path.name: read_events(path, merged.get(path.name, 0))
            for path in journals(self._job.folder, task)
            if path.stat().st_size > merged.get(path.name, 0)
        }

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
            self._patiently(partial(self._store.release, self._job.lease(task)))
        else:
            self._journal.event("worker_ended", worker=f"task {task}", reason=state)
            self._tell(
                f"task {task} ended before it was done ({state}); its logs: "
                f"{', '.join(map(str, self._job.logs(task))) or 'none'}; "
                "symbio run makes what is missing"
            )
