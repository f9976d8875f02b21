"""What runs on a node: a task does its units, and writes down what it did.

    start ─► what earlier starts left ─► units ─► all done ─► end
                                           └► told to end ─► finished rows written ─► requeued
                                                                └► or cancelled ─► end

A task never opens the store: it writes shard files, and its journal says which. Whoever waits for
the job, or merges it, commits them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipeline.job_folder import JOB_FILE, load_work
from pipeline.job_states import RUNNING, slurm_states
from pipeline.processes import die_with_parent
from pipeline.task_journal import TaskJournal, journals, read_events, settled_keys

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from pipeline.work import Unit, VideoWork
    from pipeline.workbench import Setup

__all__ = ["Task", "remaining"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Of the grace time; what is left is for the requeue.
GRACE_SHARE = 0.8
# Starts in a row that get no row done; one more would not either.
MOST_IDLE_STARTS = 3

Settled = Collection[tuple[str, str]]


@dataclass(frozen=True)
class Task:
    """What submitit calls on a node. Plain data: it is pickled by name, and again for a requeue.

    Attributes:
        folder: of the job.
        number: of the task within it.
        grace_seconds: it may take so long to end once it is told to.
    """

    folder: str
    number: int
    grace_seconds: int

    def __call__(self) -> None:
        """Do what is left.

        Raises:
            ConfigError: weights changed since the job was planned.
            OSError: a shard or the journal could not be written.
        """
        folder = Path(self.folder)
        if not (folder / JOB_FILE).exists():
            print(f"{folder}: this job is over or was given up; nothing to do", flush=True)
            return
        if _is_local():
            die_with_parent(int(os.environ["SUBMITIT_LOCAL_JOB_ID"]))
        journal = TaskJournal(folder, self.number)
        try:
            with _told_to_end() as order:
                with _overdue_is_ended(self.grace_seconds * GRACE_SHARE, order, journal):
                    left = self._work(order, journal)
                if left:
                    order.requeue()
        except (Exception, KeyboardInterrupt) as error:
            journal.write("error", error_class=type(error).__name__, message=str(error))
            raise
        finally:
            journal.close()

    def checkpoint(self) -> DelayedSubmission:
        """What is submitted again: the same, as its journal says what is done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _work(self, order: _Order, journal: TaskJournal) -> bool:
        """Do what is left; return whether another start should go on."""
        folder = Path(self.folder)
        settled, idle_starts = _history(folder, self.number)
        where = {"host": socket.gethostname(), "pid": os.getpid()}
        journal.write("started", **where, job=os.environ.get("SLURM_JOB_ID", ""))
        setup, units = load_work(folder, self.number)
        left = [unit for unit in (remaining(u, settled) for u in units) if unit.videos]
        before = len(settled)
        if left and not order.stop.is_set():
            _run_units(_for_this_node(setup), left, order.stop, journal, settled)
        rows_left = _count(units, settled)
        if not rows_left:
            journal.write("finished")
            return False
        journal.write("stopped", signal=order.signal_name, left=rows_left)
        if len(settled) == before and idle_starts + 1 >= MOST_IDLE_STARTS:
            journal.write("given_up", starts=idle_starts + 1)
            return False
        return True


class _Order:
    """That the task is to end, and who may start it again."""

    def __init__(self, requeue: Callable[[int, None], Any] | None) -> None:
        self.stop = threading.Event()
        self.signal_name = ""
        self._requeue = requeue
        self._cancelled = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self._cancelled |= number == signal.SIGTERM and _is_local()
        self.signal_name = self.signal_name or signal.Signals(number).name
        self.stop.set()

    def requeue(self) -> None:
        """Have the task started again later, unless the cluster itself ends it; does not return.

        A task that was cancelled must not come back, and one that Slurm requeues already need not.
        """
        if self._requeue is not None and not self._cancelled and _is_left_alone():
            self._requeue(signal.SIGUSR2, None)


@contextmanager
def _told_to_end() -> Iterator[_Order]:
    """Signals set the order's event; what submitit would have done on them can still be called."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handler = before[signal.SIGUSR2]
    order = _Order(handler if callable(handler) else None)
    for number in SIGNALS:
        signal.signal(number, order.take)
    try:
        yield order
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _overdue_is_ended(seconds: float, order: _Order, journal: TaskJournal) -> Iterator[None]:
    """Requeue a task that is still in the middle of a batch so long after it was told to end."""
    over = threading.Event()

    def watch() -> None:
        while not order.stop.is_set():
            if over.wait(1.0):
                return
        if over.wait(seconds):
            return
        journal.write("overdue", signal=order.signal_name)
        code = 1
        try:
            order.requeue()
        except SystemExit as end:  # by which a requeue ends a process, but not from a thread
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code & 0xFF)

    threading.Thread(target=watch, name="grace", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def remaining(unit: Unit, settled: Settled) -> Unit:
    """What is left of a unit: videos with rows that are neither stored nor failed.

    Its shard numbers stay: those that are taken are passed over when shards are written.
    """
    videos = (_remaining_video(work, settled) for work in unit.videos)
    return replace(unit, videos=tuple(work for work in videos if work.rows))


def _remaining_video(work: VideoWork, settled: Settled) -> VideoWork:
    rows = {
        stage: [row for row in found if (stage, row.key) not in settled]
        for stage, found in work.rows.items()
    }
    return replace(work, rows={stage: found for stage, found in rows.items() if found})


def _history(folder: Path, task: int) -> tuple[set[tuple[str, str]], int]:
    """What earlier starts settled, and how many in a row up to now settled nothing."""
    settled: set[tuple[str, str]] = set()
    idle = 0
    for path in journals(folder, task):
        events, _ = read_events(path)
        if not events:
            continue  # of this start
        keys = {key for event in events for key in settled_keys(event)}
        idle = 0 if keys else idle + 1
        settled |= keys
    return settled, idle


def _run_units(
    setup: Setup,
    units: Sequence[Unit],
    stop: threading.Event,
    journal: TaskJournal,
    settled: set[tuple[str, str]],
) -> None:
    from pipeline.work import Finished
    from pipeline.workbench import Workbench

    with closing(Workbench(setup)) as bench:
        for said in bench.run(_begun(units, stop, journal), stop):
            if isinstance(said, Finished):
                if not stop.is_set():
                    journal.write("unit_finished", unit=said.unit)
            elif said is not None:
                settled |= journal.note(said)


def _begun(units: Iterable[Unit], stop: threading.Event, journal: TaskJournal) -> Iterator[Unit]:
    """Units as they are come to, each written down."""
    for unit in units:
        if stop.is_set():
            return
        journal.write("unit_started", unit=unit.number)
        yield unit


def _for_this_node(setup: Setup) -> Setup:
    """With the cores that Slurm gave the task."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return replace(setup, cores=int(cores)) if cores.isdigit() else setup


def _is_local() -> bool:
    """Whether submitit's stand-in runs the task on this machine, where nobody preempts it."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "local"


def _is_left_alone() -> bool:
    """Whether the cluster lets the task run, so that it may requeue itself."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return True
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        return slurm_states(["--jobs", job]).popitem()[1] == RUNNING
    return False


def _count(units: Sequence[Unit], settled: Settled) -> dict[str, int]:
    """Rows left by stage."""
    counts: dict[str, int] = {}
    for unit in units:
        for work in remaining(unit, settled).videos:
            for stage, rows in work.rows.items():
                counts[stage] = counts.get(stage, 0) + len(rows)
    return counts
