"""Work in this process, or in others of this machine that are watched and replaced."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing.connection import wait

from pipeline.decoder import usable_cores
from pipeline.errors import in_words
from pipeline.journal import Journal
from pipeline.local_worker import Broken, Finished, Ready, Stop, run_local_worker
from pipeline.processes import limit_waiting, start_context, without_main
from pipeline.unit_queue import UnitQueue
from pipeline.work import Progress, Unit
from pipeline.workbench import Setup, Workbench, start_decoder

__all__ = ["InProcess", "LocalWorkers"]

LOOK_SECONDS = 1.0
MOST_MESSAGES = 64  # of one worker before others are heard
STARTING_SECONDS = 600.0  # a worker may take to build its networks
JOIN_SECONDS = 10.0
# Workers in turn that end before they are built, with no unit to blame.
MOST_FALSE_STARTS = 3


class InProcess:
    """One worker, which is this process; all units are one, so that no network waits in between."""

    workers = 1

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `Executor`."""
        unit = queue.take_all()
        decoder = start_decoder(setup, num_videos=len(unit.videos))  # while networks are built
        with closing(decoder):
            yield from Workbench(setup).run(unit, stop, decoder=decoder)


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
            while queue.open:
                if stop.is_set():
                    if not crew.busy:
                        return
                    crew.stop()
                else:
                    crew.hand_out(queue)
                yield from crew.listen(queue)
                yield None


class _Crew:
    """The workers of a run."""

    def __init__(self, setup: Setup, size: int, stall_seconds: float, journal: Journal) -> None:
        self._setups = _shared_out(setup, size)
        self._stall_seconds = stall_seconds
        self._journal = journal
        self._false_starts = 0
        self._workers = {place: self._start(place) for place in range(size)}

    @property
    def busy(self) -> list[_Worker]:
        """Those that have a unit."""
        return [worker for worker in self._workers.values() if worker.unit is not None]

    def hand_out(self, queue: UnitQueue) -> None:
        """Replace who is gone, and give units to who is ready and has none."""
        for place in range(len(self._setups)):
            worth_trying = self._false_starts < MOST_FALSE_STARTS or not self._workers
            if place not in self._workers and len(queue) and worth_trying:
                self._workers[place] = self._start(place)
        for worker in self._workers.values():
            if worker.is_idle and (unit := queue.take()) is not None:
                worker.give(unit)
                self._journal.event(
                    "unit_started",
                    unit=unit.number,
                    worker=worker.name,
                    videos=[work.video.video_id for work in unit.videos],
                )

    def listen(self, queue: UnitQueue) -> Iterator[Progress]:
        """What workers have to say, and the end of those that died."""
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

    def stop(self) -> None:
        """Let everybody end early."""
        for worker in self._workers.values():
            worker.stop()

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in self._workers.values():
            worker.end()
            self._journal.event("worker_ended", worker=worker.name, pid=worker.pid, reason="done")
        self._workers.clear()

    def _hear(self, worker: _Worker, queue: UnitQueue) -> Iterator[Progress]:
        """A worker's next message, or its end."""
        try:
            message = worker.receive()
        except (EOFError, OSError):
            yield from self._give_up(worker, queue)
        else:
            yield from self._take(worker, message, queue)

    def _take(self, worker: _Worker, message: object, queue: UnitQueue) -> Iterator[Progress]:
        if isinstance(message, Broken):
            if message.is_of_the_run:
                raise message.error
            yield from self._give_up(worker, queue, in_words(message.error))
        elif isinstance(message, Ready):
            self._false_starts = 0
        elif isinstance(message, Finished):
            unit = worker.finished()
            queue.done(unit)
            self._journal.event("unit_finished", unit=unit.number, worker=worker.name)
        elif isinstance(message, Progress) and worker.unit is not None:
            queue.note(worker.unit, message)
            yield message

    def _give_up(
        self, worker: _Worker, queue: UnitQueue, reason: str | None = None
    ) -> Iterator[Progress]:
        """End a worker; what is left of its unit is queued again."""
        del self._workers[worker.place]
        worker.end()
        reason = reason or worker.fate
        self._journal.event("worker_ended", worker=worker.name, pid=worker.pid, reason=reason)
        if not worker.was_ready:
            self._false_starts += 1
            others = any(other.was_ready for other in self._workers.values())
            if self._false_starts >= MOST_FALSE_STARTS and not others:
                raise RuntimeError(
                    f"{self._false_starts} workers in turn ended before they began ({reason}); run "
                    "with --set executor.workers=0 to work in the main process and see why, or "
                    "with fewer workers if memory ran out"
                )
        if worker.unit is not None:
            self._journal.event("unit_lost", unit=worker.unit.number, reason=reason)
            yield from queue.lost(worker.unit, reason)

    def _start(self, place: int) -> _Worker:
        worker = _Worker(place, self._setups[place])
        self._journal.event("worker_started", worker=worker.name, pid=worker.pid)
        return worker


class _Worker:
    """The coordinator's end of one process."""

    def __init__(self, place: int, setup: Setup) -> None:
        context = start_context()
        self.place = place
        self.name = f"worker {place}"
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=run_local_worker, args=(theirs, setup))
        with without_main():
            self._process.start()
        theirs.close()
        limit_waiting(self.connection)
        self.was_ready = False
        self.unit: Unit | None = None
        self._stopped = False
        self._heard_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def is_idle(self) -> bool:
        """Whether it can take a unit."""
        return self.was_ready and self.unit is None

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
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def give(self, unit: Unit) -> None:
        """Let it do a unit."""
        self.unit = unit
        self._heard_at = time.monotonic()
        self._send(unit)

    def finished(self) -> Unit:
        """The unit that it has done.

        Raises:
            RuntimeError: it had none.
        """
        unit, self.unit = self.unit, None
        if unit is None:
            raise RuntimeError("got a finished unit from a worker without one, expected none")
        return unit

    def receive(self) -> object:
        """What it says; raise EOFError if it is gone."""
        message = self.connection.recv()
        self._heard_at = time.monotonic()
        self.was_ready = self.was_ready or isinstance(message, Ready)
        return message

    def stop(self) -> None:
        """Let it write what is finished and end its unit; safe to call again and again."""
        if not self._stopped:
            self._stopped = True
            self._send(Stop())

    def end(self) -> None:
        """End the process, whatever it does."""
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
