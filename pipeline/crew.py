"""Workers that are watched and replaced, wherever they are: what all ways of having them share."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

from pipeline.errors import in_words
from pipeline.journal import Journal
from pipeline.local_worker import Broken, Ready, Stop
from pipeline.unit_queue import UnitQueue
from pipeline.work import Finished, Progress, Unit

__all__ = ["MOST_FALSE_STARTS", "Crew", "Worker"]

# Workers in turn that end before they are ready, with no unit to blame, while no other works.
MOST_FALSE_STARTS = 3
MOST_UNITS = 2  # that a worker has: one that it works on, and the next


class Worker(ABC):
    """The coordinator's end of one worker.

    Attributes:
        place: which of the crew it is; whoever replaces it has the same.
        name: for people.
        units: what it works on, and what comes next, by number.
        was_ready: whether its networks were ever built.
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.name = f"worker {place}"
        self.units: dict[int, Unit] = {}
        self.was_ready = False
        self._stopped = False
        self._heard_at = time.monotonic()

    @property
    @abstractmethod
    def whereabouts(self) -> dict[str, object]:
        """Its process and, if that is not this one, its machine, for the journal."""

    @abstractmethod
    def end(self) -> None:
        """End the process, whatever it does."""

    @abstractmethod
    def _send(self, message: Unit | Stop) -> None: ...

    @property
    def is_idle(self) -> bool:
        """Whether it is ready and has nothing to do."""
        return self.was_ready and not self.units

    def give(self, unit: Unit) -> None:
        """Let it do a unit."""
        if not self.units:
            self._heard_at = time.monotonic()
        self.units[unit.number] = unit
        self._send(unit)

    def stop(self) -> None:
        """Let it write what is finished and end its units; safe to call again and again."""
        if not self._stopped:
            self._stopped = True
            self._send(Stop())


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class Crew(ABC, Generic[AnyWorker]):
    """The workers of a run: who has which unit, and what becomes of those that end.

    Args:
        journal: is told about units and workers.
        size: how many workers there are to be.
    """

    def __init__(self, journal: Journal, size: int) -> None:
        self._journal = journal
        self._size = size
        self._workers: dict[int, AnyWorker] = {}
        self._false_starts = 0

    @abstractmethod
    def _fill(self, queue: UnitQueue) -> None:
        """Replace who is gone, where it is worth while."""

    @abstractmethod
    def _listen(self, queue: UnitQueue) -> Iterator[Progress]:
        """What workers have to say, and the end of those that died; waits a moment."""

    @abstractmethod
    def _cannot_begin(self, reason: str) -> Exception:
        """What to raise where worker after worker ends before it is ready."""

    def work(self, queue: UnitQueue, stop: threading.Event) -> Iterator[Progress | None]:
        """Have all units done, as `Executor.run` says."""
        while queue.open:
            if stop.is_set():
                if not self._busy:
                    return
                for worker in self._workers.values():
                    worker.stop()
            else:
                self._fill(queue)
                self._hand_out(queue)
            yield from self._listen(queue)
            yield None

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in self._workers.values():
            worker.end()
            self._ended(worker, "done")
        self._workers.clear()

    @property
    def _busy(self) -> list[AnyWorker]:
        """Those that have a unit."""
        return [worker for worker in self._workers.values() if worker.units]

    def _hand_out(self, queue: UnitQueue) -> None:
        """Give units to who has none, and to who has one the next, so that it need not wait.

        The last ones are kept for who has none.
        """
        for worker in self._workers.values():
            if worker.is_idle and (unit := queue.take()) is not None:
                self._give(worker, unit)
        for worker in self._busy:
            if len(worker.units) < MOST_UNITS and len(queue) > self._size:
                unit = queue.take_beside(worker.units.values())
                if unit is not None:
                    self._give(worker, unit)

    def _give(self, worker: AnyWorker, unit: Unit) -> None:
        worker.give(unit)
        videos = [work.video.video_id for work in unit.videos]
        self._journal.event("unit_started", unit=unit.number, worker=worker.name, videos=videos)

    def _take(self, worker: AnyWorker, message: object, queue: UnitQueue) -> Iterator[Progress]:
        if isinstance(message, Broken):
            if message.is_of_the_run:
                raise self._seen_here(message.error, worker)
            yield from self._give_up(worker, queue, in_words(message.error))
        elif isinstance(message, Ready):
            self._false_starts = 0
        elif isinstance(message, Finished):
            queue.done(worker.units.pop(message.unit))
            self._journal.event("unit_finished", unit=message.unit, worker=worker.name)
        elif isinstance(message, Progress):
            queue.note(worker.units[message.unit], message)
            yield message

    def _seen_here(self, error: Exception, worker: AnyWorker) -> Exception:
        """A worker's error as it is to be raised by the run."""
        return error

    def _give_up(self, worker: AnyWorker, queue: UnitQueue, reason: str) -> Iterator[Progress]:
        """End a worker; what is left of its units is queued again."""
        del self._workers[worker.place]
        worker.end()
        self._ended(worker, reason)
        if not worker.was_ready:
            self._false_start(worker, reason)
        for unit in reversed(worker.units.values()):  # the first of them is the next to be taken
            self._journal.event("unit_lost", unit=unit.number, reason=reason)
            yield from queue.lost(unit, reason)

    def _false_start(self, worker: AnyWorker, reason: str) -> None:
        self._false_starts += 1
        others = any(other.was_ready for other in self._workers.values())
        if self._false_starts >= MOST_FALSE_STARTS and not others:
            raise self._cannot_begin(reason)

    def _ended(self, worker: AnyWorker, reason: str) -> None:
        self._journal.event("worker_ended", worker=worker.name, **worker.whereabouts, reason=reason)
