"""Processes that decode videos, and the watch over them.

Each works on one video at a time. One that dies, gives no sign of life or takes too long costs the
rows of its video that it has not delivered; another takes its place. What is decoded ahead is
bounded by the shared memory of each process.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import reduction
from multiprocessing.connection import wait
from typing import Any

from pipeline.decode_limits import DecodeLimits, DecoderTimeout
from pipeline.decode_pass import DecodedRow
from pipeline.decode_videos import Decoded, Geometries
from pipeline.decode_worker import Beat, Begun, Done, Free, Job, RowSent, run_worker
from pipeline.frame_ring import create_frame_file, map_frames
from pipeline.processes import start_context, without_main
from pipeline.rows import VideoRow
from pipeline.work import Progress, VideoWork, row_failure

__all__ = ["DecodePool", "DecoderDied", "DecoderHung"]

LOOK_SECONDS = 1.0  # how often silent processes are looked at
JOIN_SECONDS = 10.0
MOST_FALSE_STARTS = 3


class DecoderDied(Exception):
    """The process that decoded a video ended: a crash in a library, or out of memory."""


class DecoderHung(Exception):
    """The process that decoded a video gave no sign of life and was ended."""


class DecodePool:
    """Decodes videos in other processes, which begin to start at once.

    Args:
        processes: how many, at most.
        ring_nbytes: shared memory of each; rows that are larger take a slower way.
        num_threads: of each process's video decoder.
        limits: of each.
    """

    def __init__(
        self, *, processes: int, ring_nbytes: int, num_threads: int, limits: DecodeLimits
    ) -> None:
        if processes < 1:
            raise ValueError(f"got {processes} decode processes, expected 1 or more")
        self._processes = processes
        self._ring_nbytes = ring_nbytes
        self._num_threads = num_threads
        self._limits = limits
        self._false_starts = 0
        self._workers = [self._start_worker() for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [worker.pid for worker in self._workers]

    def decode(
        self, works: Iterable[VideoWork], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        """Rows and failures of all videos, as they come; None where nothing came for a second.

        The frames of a row are valid until the next item is asked for. The processes end with the
        generator: a pool decodes once.

        Raises:
            RuntimeError: a process cannot even start.
        """
        pending = _Pending(works)
        try:
            while pending or any(worker.is_busy for worker in self._workers):
                self._hand_out(pending, geometries)
                yield from self._listen(pending)
                for worker in list(self._workers):
                    error = self._complaint(worker)
                    if error is not None:
                        yield from self._give_up(worker, pending, error)
        finally:
            self.close()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _hand_out(self, pending: _Pending, geometries: Geometries) -> None:
        while pending and len(self._workers) < self._processes:
            self._workers.append(self._start_worker())  # in place of one that was given up
        for worker in self._workers:
            if pending and not worker.is_busy:
                worker.start(Job(pending.take(), geometries))

    def _listen(self, pending: _Pending) -> Iterator[Decoded | None]:
        """One message of each process that has something to say; None if none has."""
        by_connection = {worker.connection: worker for worker in self._workers if worker.is_busy}
        ready = wait(list(by_connection), timeout=LOOK_SECONDS)
        if not ready:
            yield None
        for connection in ready:
            worker = by_connection[connection]
            try:
                message = worker.connection.recv()
            except (EOFError, ConnectionError):
                yield from self._give_up(worker, pending, None)
                continue
            if isinstance(message, Begun):
                self._false_starts = 0
            yield from worker.take(message)

    def _complaint(self, worker: _Worker) -> Exception | None:
        """Why a process must be ended, if it must."""
        limits = self._limits
        if worker.silent_seconds > limits.stall_seconds:
            return DecoderHung(
                f"{worker.work.video.path}: nothing was read for {limits.stall_seconds:g} s, so "
                "the process that decodes it was ended; the file is damaged or its disk is stuck. "
                "Re-encode it, or raise engine.stall_seconds"
            )
        if worker.busy_seconds > limits.video_seconds:
            return DecoderTimeout(
                f"{worker.work.video.path}: got {worker.busy_seconds:,.0f} s of decoding without "
                f"an end, expected at most {limits.video_seconds:g} s, so the process that decodes "
                "it was ended; the file is damaged or very long. Re-encode it, or raise "
                "engine.video_seconds"
            )
        return None

    def _give_up(
        self, worker: _Worker, pending: _Pending, error: Exception | None
    ) -> Iterator[Decoded]:
        """End a process, or find it ended; what of its video it has not delivered has failed."""
        self._workers.remove(worker)
        worker.end()
        if not worker.has_begun:  # its video is not to blame, and waits for another
            self._false_starts += 1
            if self._false_starts == MOST_FALSE_STARTS:
                raise RuntimeError(
                    f"{MOST_FALSE_STARTS} decode processes in turn ended before they began "
                    f"({worker.fate}); run with --set engine.decode_processes=0 to decode in the "
                    "main process and see why"
                )
            pending.put_back(worker.work)
            return
        why = error or DecoderDied(
            f"{worker.work.video.path}: the process that decodes it ended ({worker.fate}); the "
            "file is damaged, or memory ran out. Re-encode it, or try again with --retry-failed"
        )
        for stage, rows in worker.undelivered().items():
            yield Progress(stage, failures=[row_failure(row, why) for row in rows])

    def _start_worker(self) -> _Worker:
        return _Worker(self._ring_nbytes, self._num_threads, self._limits.memory_mib)


class _Pending:
    """Videos that nobody has yet; each is made when somebody can take it."""

    def __init__(self, works: Iterable[VideoWork]) -> None:
        self._works = iter(works)
        self._first: deque[VideoWork] = deque()

    def __bool__(self) -> bool:
        if not self._first:
            self._first.extend(islice(self._works, 1))
        return bool(self._first)

    def take(self) -> VideoWork:
        """The first of them; look before whether there is one."""
        return self._first.popleft()

    def put_back(self, work: VideoWork) -> None:
        """Let another process have a video."""
        self._first.appendleft(work)


class _Worker:
    """The parent's end of one process."""

    def __init__(self, ring_nbytes: int, num_threads: int, memory_mib: int | None) -> None:
        context = start_context()
        self.connection, theirs = context.Pipe()
        descriptor = create_frame_file(ring_nbytes)
        self._memory = map_frames(descriptor, ring_nbytes)
        arguments = (theirs, ring_nbytes, num_threads, memory_mib)
        self._process = context.Process(target=run_worker, args=arguments)
        self._process.daemon = True
        with without_main():
            self._process.start()
        theirs.close()
        reduction.send_handle(self.connection, descriptor, self._process.pid)
        os.close(descriptor)
        self.has_begun = False
        self._work: VideoWork | None = None
        self._left: dict[tuple[str, str], VideoRow] = {}
        self._heard_at = time.monotonic()
        self._busy_seconds = 0.0

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def is_busy(self) -> bool:
        """Whether it has a video."""
        return self._work is not None

    @property
    def work(self) -> VideoWork:
        """Its video.

        Raises:
            RuntimeError: it has none.
        """
        if self._work is None:
            raise RuntimeError("got a decode process without a video, expected a busy one")
        return self._work

    @property
    def silent_seconds(self) -> float:
        """Since it last spoke while it had something to do."""
        if not self.is_busy or self.connection.poll():
            return 0.0
        return time.monotonic() - self._heard_at

    @property
    def busy_seconds(self) -> float:
        """With its video, as it last said; what it waited for whoever takes rows is not counted."""
        return self._busy_seconds if self.is_busy else 0.0

    @property
    def fate(self) -> str:
        """How the process ended, in words."""
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def start(self, job: Job) -> None:
        """Give it a video."""
        self._work = job.work
        self._busy_seconds = 0.0
        self.has_begun = False
        self._left = {(name, row.key): row for name, rows in job.work.rows.items() for row in rows}
        self._heard_at = time.monotonic()
        self._send(job)

    def take(self, message: object) -> Iterator[Decoded]:
        """What a message means."""
        self._heard_at = time.monotonic()
        if isinstance(message, RowSent | Beat):
            self._busy_seconds = message.busy_seconds
        if isinstance(message, RowSent):
            yield self._row(message)
            if message.offset is not None:
                self._send(Free())
            self._heard_at = time.monotonic()  # it may have waited for room until now
        elif isinstance(message, Progress):
            for failure in message.failures:
                del self._left[message.stage, failure.row_key]
            yield message
        elif isinstance(message, Done):
            self._work = None
        elif isinstance(message, Begun):
            self.has_begun = True
        elif not isinstance(message, Beat):
            raise TypeError(f"got a {type(message).__name__} from a decode process")

    def undelivered(self) -> dict[str, list[VideoRow]]:
        """The rows of its video that did not come, by stage."""
        rows: dict[str, list[VideoRow]] = {}
        for (stage, _), row in self._left.items():
            rows.setdefault(stage, []).append(row)
        return rows

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join(JOIN_SECONDS)
        self.connection.close()

    def _row(self, message: RowSent) -> DecodedRow:
        row = self._left.pop((message.stage, message.key))
        frames: Any = message.frames
        if message.offset is not None:
            flat = self._memory[message.offset : message.offset + math.prod(message.shape)]
            frames = flat.reshape(message.shape)
        return DecodedRow(message.stage, row, frames, message.clamped, message.timings)

    def _send(self, message: Job | Free) -> None:
        with suppress(ConnectionError):  # it has died since; listening to it finds out
            self.connection.send(message)
