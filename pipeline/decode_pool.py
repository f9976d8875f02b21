"""Processes that decode videos, and the watch over them.

Each works on one video at a time. One that dies, gives no sign of life or takes too long costs the
rows of its video that it has not delivered; another takes its place. What is decoded ahead is
bounded by the shared memory of each process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from multiprocessing.connection import wait

from pipeline.decode_limits import DecodeLimits, DecoderTimeout
from pipeline.decode_process import DecodeProcess
from pipeline.decode_videos import Decoded, Geometries
from pipeline.decode_worker import Begun, Job
from pipeline.work import Progress, VideoWork, row_failure

__all__ = ["IDLE_SECONDS", "DecodePool", "DecoderDied", "DecoderHung"]

LOOK_SECONDS = 1.0  # how often silent processes are looked at
IDLE_SECONDS = 0.05  # how often it is asked for videos where there is none to decode
MOST_FALSE_STARTS = 3


class DecoderDied(Exception):
    """The process that decoded a video ended: a crash in a library, or out of memory."""


class DecoderHung(Exception):
    """The process that decoded a video gave no sign of life and was ended."""


class DecodePool:
    """Decodes videos in other processes: the first starts at once, others when they are needed.

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
        self._workers = [self._start_worker()]

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [worker.pid for worker in self._workers]

    def decode(
        self, works: Iterable[VideoWork | None], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        """Rows and failures of all videos, as they come; None where nothing came for a second.

        The frames of a row are valid until the next item is asked for. The processes end with the
        generator: a pool decodes once.

        Args:
            works: videos; None where there is none yet, which is asked for again.

        Raises:
            RuntimeError: a process cannot even start.
        """
        pending = _Pending(works)
        try:
            while pending.may_come or any(worker.is_busy for worker in self._workers):
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
        for worker in self._workers:
            if pending and not worker.is_busy:
                worker.start(Job(pending.take(), geometries))
        while pending and len(self._workers) < self._processes:
            self._workers.append(self._start_worker())
            self._workers[-1].start(Job(pending.take(), geometries))

    def _listen(self, pending: _Pending) -> Iterator[Decoded | None]:
        """One message of each process that has something to say; None if none has."""
        by_connection = {worker.connection: worker for worker in self._workers if worker.is_busy}
        ready = wait(list(by_connection), LOOK_SECONDS if by_connection else IDLE_SECONDS)
        if not ready:
            yield None
        for connection in ready:
            worker = by_connection[connection]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._give_up(worker, pending, None)
                continue
            if isinstance(message, Begun):
                self._false_starts = 0
            yield from worker.take(message)

    def _complaint(self, worker: DecodeProcess) -> Exception | None:
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
        self, worker: DecodeProcess, pending: _Pending, error: Exception | None
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

    def _start_worker(self) -> DecodeProcess:
        return DecodeProcess(self._ring_nbytes, self._num_threads, self._limits.memory_mib)


class _Pending:
    """Videos that nobody has yet; each is made when somebody can take it."""

    def __init__(self, works: Iterable[VideoWork | None]) -> None:
        self._works = iter(works)
        self._first: deque[VideoWork] = deque()
        self._has_ended = False

    def __bool__(self) -> bool:
        """Whether there is one now."""
        if not (self._first or self._has_ended):
            try:
                work = next(self._works)
            except StopIteration:
                self._has_ended = True
            else:
                self._first.extend([] if work is None else [work])
        return bool(self._first)

    @property
    def may_come(self) -> bool:
        """Whether there is one, or may be later."""
        return bool(self) or not self._has_ended

    def take(self) -> VideoWork:
        """The first of them; look before whether there is one."""
        return self._first.popleft()

    def put_back(self, work: VideoWork) -> None:
        """Let another process have a video."""
        self._first.appendleft(work)
