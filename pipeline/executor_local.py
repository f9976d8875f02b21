"""Work in this process, or in others of this machine that are watched and replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing.connection import wait

from pipeline.crew import MOST_FALSE_STARTS, Crew, Worker
from pipeline.decoder import usable_cores
from pipeline.journal import Journal
from pipeline.local_worker import Ready, Stop, run_local_worker
from pipeline.processes import exit_in_words, limit_waiting, start_context, without_main
from pipeline.unit_queue import UnitQueue
from pipeline.work import Finished, Progress, Unit
from pipeline.workbench import Setup, Workbench

__all__ = ["InProcess", "LocalWorkers"]

LOOK_SECONDS = 1.0
MOST_MESSAGES = 64  # of one worker before others are heard
STARTING_SECONDS = 600.0  # a worker may take to build its networks
JOIN_SECONDS = 10.0


class InProcess:
    """One worker, which is this process; all units are one, so that no network waits in between."""

    workers = 1

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `Executor`."""
        unit = queue.take_all()
        with closing(Workbench(setup)) as bench:
            for said in bench.run([unit], stop):
                if not isinstance(said, Finished):
                    yield said


class LocalWorkers:
    """Worker processes.

    Args:
        workers: how many, at most.
        stall_seconds: one that says nothing for so long is ended.
    """

    def __init__(self, workers: int, *, stall_seconds: float) -> None:
        self.workers = workers
        self._stall_seconds = stall_seconds

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `Executor`."""
        crew = _Crew(setup, min(self.workers, len(queue)), self._stall_seconds, journal)
        with closing(crew):
            yield from crew.work(queue, stop)


class _Crew(Crew["_Process"]):
    """The workers of a run, on this machine."""

    def __init__(self, setup: Setup, size: int, stall_seconds: float, journal: Journal) -> None:
        super().__init__(journal, size)
        self._setups = _shared_out(setup, size)
        self._stall_seconds = stall_seconds

    def _fill(self, queue: UnitQueue) -> None:
        for place, setup in enumerate(self._setups):
            worth_trying = self._false_starts < MOST_FALSE_STARTS or not self._workers
            if place not in self._workers and len(queue) and worth_trying:
                worker = self._workers[place] = _Process(place, setup)
                self._journal.event("worker_started", worker=worker.name, pid=worker.pid)

    def _listen(self, queue: UnitQueue) -> Iterator[Progress]:
        by_connection = {worker.connection: worker for worker in self._workers.values()}
        for connection in wait(list(by_connection), timeout=LOOK_SECONDS):
            worker = by_connection[connection]
            for _ in range(MOST_MESSAGES):
                if self._workers.get(worker.place) is not worker or not worker.has_spoken:
                    break
                yield from self._hear(worker, queue)
        for worker in list(self._workers.values()):
            patience_seconds = self._stall_seconds if worker.was_ready else STARTING_SECONDS
            if worker.silent_seconds > patience_seconds:
                reason = f"no sign of life for {patience_seconds:g} s"
                yield from self._give_up(worker, queue, reason)

    def _hear(self, worker: _Process, queue: UnitQueue) -> Iterator[Progress]:
        """A worker's next message, or its end."""
        try:
            message = worker.receive()
        except (EOFError, OSError):
            worker.end()  # how it ended is known then
            yield from self._give_up(worker, queue, worker.fate)
        else:
            yield from self._take(worker, message, queue)

    def _cannot_begin(self, reason: str) -> Exception:
        return RuntimeError(
            f"{self._false_starts} workers in turn ended before they began ({reason}); run with "
            "--set executor.workers=0 to work in the main process and see why, or with fewer "
            "workers if memory ran out"
        )


class _Process(Worker):
    """The coordinator's end of one process."""

    def __init__(self, place: int, setup: Setup) -> None:
        super().__init__(place)
        context = start_context()
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=run_local_worker, args=(theirs, setup))
        with without_main():
            self._process.start()
        theirs.close()
        limit_waiting(self.connection)

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def whereabouts(self) -> dict[str, object]:
        """See `Worker`."""
        return {"pid": self.pid}

    @property
    def has_spoken(self) -> bool:
        """Whether there is a message of it, or its end."""
        return bool(self.connection.poll())

    @property
    def silent_seconds(self) -> float:
        """Since it last spoke while it had something to do."""
        if self.is_idle or self.has_spoken:
            return 0.0
        return time.monotonic() - self._heard_at

    @property
    def fate(self) -> str:
        """How the process ended, in words."""
        return exit_in_words(self._process.exitcode)

    def receive(self) -> object:
        """What it says; raise EOFError if it is gone."""
        message = self.connection.recv()
        self._heard_at = time.monotonic()
        self.was_ready = self.was_ready or isinstance(message, Ready)
        return message

    def end(self) -> None:
        """See `Worker`; safe to call twice."""
        self._process.kill()
        self._process.join(JOIN_SECONDS)
        self.connection.close()

    def _send(self, message: Unit | Stop) -> None:
        with suppress(OSError):  # it has died since, or hangs; listening to it finds out
            self.connection.send(message)


def _shared_out(setup: Setup, size: int) -> list[Setup]:
    """A setup for each worker: its share of the cores, and on CUDA a GPU in turn."""
    cores = max(1, (setup.cores or usable_cores()) // size)
    devices = [setup.device]
    if setup.device == "cuda":
        import torch

        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or devices
    return [
        replace(setup, cores=cores, device=devices[place % len(devices)]) for place in range(size)
    ]
