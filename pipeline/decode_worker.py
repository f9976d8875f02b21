"""What runs in a decode process: videos in, rows of frames out through shared memory.

Nothing here touches a store or a network; a crash or a hang costs one video. The first row of a
video is worked on while the networks run on rows before it.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from threading import Thread

import numpy as np
import numpy.typing as npt
import torch

from extractors import heartbeat
from pipeline.decode_limits import DecoderMemory, limit_memory
from pipeline.decode_pass import DecodedRow
from pipeline.decode_videos import Geometries, decode_video
from pipeline.frame_ring import RingLayout, map_frames
from pipeline.processes import end_with_parent
from pipeline.timings import Timings
from pipeline.work import Progress, VideoWork

__all__ = ["Beat", "Begun", "Done", "Free", "Job", "RowSent", "run_worker"]

BEAT_SECONDS = 1.0
# Each row is answered. What is under way has to fit into the connection both ways, which takes some
# 160 rows and 270 answers: beyond that both sides would wait for room, and neither would read.
MOST_ROWS_AHEAD = 100


@dataclass(frozen=True)
class Job:
    """Parent to child: a video to decode."""

    work: VideoWork
    geometries: Geometries


@dataclass(frozen=True)
class Free:
    """Parent to child: the oldest row in the ring has been taken out."""


@dataclass(frozen=True)
class Begun:
    """Child to parent: from here on, what happens is the video's doing."""


@dataclass(frozen=True)
class Beat:
    """Child to parent: something is being read, though no row is complete.

    ``busy_seconds``: with the video so far, without what it waited for the parent.
    """

    busy_seconds: float


@dataclass(frozen=True)
class Done:
    """Child to parent: the video is finished."""


@dataclass(frozen=True)
class RowSent:
    """Child to parent: a row lies in the ring at `offset`, or came along as it did not fit."""

    stage: str
    key: str
    shape: tuple[int, ...]
    clamped: bool
    timings: Timings
    busy_seconds: float
    offset: int | None
    frames: npt.NDArray[np.uint8] | None = None


def run_worker(
    connection: Connection, ring_nbytes: int, num_threads: int, memory_mib: int | None
) -> None:
    """Decode what the parent sends until it hangs up.

    Args:
        connection: to the parent, who first sends the descriptor of the shared file.
        ring_nbytes: size of that file.
        num_threads: of the video decoder.
        memory_mib: see `DecodeLimits`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)  # beside other processes, threads of its own only get in the way
    try:
        descriptor = reduction.recv_handle(connection)
        outlet = _Outlet(connection, map_frames(descriptor, ring_nbytes))
        os.close(descriptor)
        heartbeat.listen(outlet.beat)
        Thread(target=end_with_parent, name="parent", daemon=True).start()
        if memory_mib is not None:
            limit_memory(memory_mib)
        whole = True
        while whole:
            message = connection.recv()
            if isinstance(message, Free):
                outlet.free()
            else:
                whole = _decode(message, outlet, num_threads, memory_mib)
    except (EOFError, ConnectionError):
        return  # the parent is gone or needs no more


def _decode(job: Job, outlet: _Outlet, num_threads: int, memory_mib: int | None) -> bool:
    """Whether this process is still good for another video: it has not run out of memory."""
    whole = True
    outlet.begin()
    for item in decode_video(
        job.work, job.geometries, num_threads=num_threads, memory_mib=memory_mib
    ):
        if isinstance(item, Progress):
            whole &= all(f.error_class != DecoderMemory.__name__ for f in item.failures)
            outlet.send(item)
        else:
            outlet.send_row(item)
    outlet.send(Done())
    return whole


class _Outlet:
    """The child's end: the connection and the ring."""

    def __init__(self, connection: Connection, memory: npt.NDArray[np.uint8]) -> None:
        self._connection = connection
        self._memory = memory
        self._ring = RingLayout(memory.nbytes)
        self._spoke_at = self._begun_at = time.monotonic()
        self._waited_seconds = 0.0

    def begin(self) -> None:
        """A video begins."""
        self._begun_at, self._waited_seconds = time.monotonic(), 0.0
        self.send(Begun())

    @property
    def busy_seconds(self) -> float:
        """With this video, without what it waited for the parent."""
        return time.monotonic() - self._begun_at - self._waited_seconds

    def send(self, message: object) -> None:
        began = time.monotonic()
        self._connection.send(message)
        self._spoke_at = time.monotonic()
        self._waited_seconds += self._spoke_at - began

    def beat(self) -> None:
        if time.monotonic() - self._spoke_at >= BEAT_SECONDS:
            self.send(Beat(self.busy_seconds))

    def free(self) -> None:
        self._ring.free_oldest()

    def send_row(self, row: DecodedRow) -> None:
        shape = (len(row.frames), *row.frames[0].shape)
        nbytes = int(np.prod(shape))
        fits = nbytes <= self._ring.nbytes
        offset = self._wait_for_room(nbytes) if fits else None
        if offset is not None:
            room = self._memory[offset : offset + nbytes].reshape(shape)
            for place, frame in zip(room, row.frames, strict=True):
                place[...] = frame
        self.send(
            RowSent(
                stage=row.stage,
                key=row.row.key,
                shape=shape,
                clamped=row.clamped,
                timings=row.timings,
                busy_seconds=self.busy_seconds,
                offset=offset,
                frames=None if fits else np.stack(row.frames),
            )
        )

    def _wait_for_room(self, nbytes: int) -> int:
        began = time.monotonic()
        while len(self._ring) >= MOST_ROWS_AHEAD or (offset := self._ring.allocate(nbytes)) is None:
            self._connection.recv()  # while a job runs, only Free comes
            self.free()
        self._waited_seconds += time.monotonic() - began
        return offset
