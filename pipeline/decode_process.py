"""One decode process as its pool sees it: what it was given, what it has said, how it ended."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import reduction
from typing import Any

from pipeline.decode_pass import DecodedRow
from pipeline.decode_videos import Decoded
from pipeline.decode_worker import Beat, Begun, Done, Free, Job, RowSent, run_worker
from pipeline.frame_ring import create_frame_file, map_frames
from pipeline.processes import exit_in_words, limit_waiting, start_context, without_main
from pipeline.rows import VideoRow
from pipeline.work import Progress, VideoWork

__all__ = ["DecodeProcess"]

JOIN_SECONDS = 10.0


class DecodeProcess:
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
        limit_waiting(self.connection)
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
        return exit_in_words(self._process.exitcode)

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
        with suppress(OSError):  # it has died since, or hangs; listening to it finds out
            self.connection.send(message)
