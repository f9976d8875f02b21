"""Where videos are decoded: in processes of their own, or in a thread of this one."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Protocol

from pipeline.decode_limits import DecodeLimits
from pipeline.decode_pool import IDLE_SECONDS, DecodePool
from pipeline.decode_videos import Decoded, Geometries, decode_video
from pipeline.prefetch import prefetch
from pipeline.work import VideoWork

__all__ = ["Decoder", "ThreadDecoder", "create_decoder", "default_processes", "usable_cores"]

MOST_PROCESSES = 16
ROWS_AHEAD = 16  # of the thread
LEAST_RING_NBYTES = 64 * 2**20


class Decoder(Protocol):
    """Turns videos into rows of frames."""

    def decode(
        self, works: Iterable[VideoWork | None], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        """Rows and failures as they come; a row's frames are valid until the next is asked for.

        None now and then where nothing comes, so that whoever waits can do other things. Once: what
        it takes ends with the generator.

        Args:
            works: videos; None where there is none yet, which is asked for again.
        """

    def close(self) -> None:
        """Give up processes, if there are any."""


class ThreadDecoder:
    """Decodes one video after the other in a thread: for debugging, and for small work.

    A reader that hangs or crashes takes everything with it.
    """

    def decode(
        self, works: Iterable[VideoWork | None], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        """See `Decoder`."""
        yield from prefetch(_decode_all(works, geometries), depth=ROWS_AHEAD)

    def close(self) -> None:
        """See `Decoder`."""


def create_decoder(
    processes: int, batch_nbytes: Mapping[str, int], *, limits: DecodeLimits, cores: int
) -> Decoder:
    """A decoder for stages with batches of these sizes.

    Args:
        processes: to decode in; 0 decodes in a thread.
        batch_nbytes: of each stage's frames of one batch. Processes may be one batch of every stage
            ahead, so that there is always a next one.
        limits: of each process; a thread has none.
        cores: that the processes may use.
    """
    if processes == 0:
        return ThreadDecoder()
    ahead = sum(batch_nbytes.values()) // processes
    return DecodePool(
        processes=processes,
        ring_nbytes=max(ahead, LEAST_RING_NBYTES),
        num_threads=max(1, cores // processes),
        limits=limits,
    )


def default_processes(device: str, cores: int) -> int:
    """One beside a network that computes on the CPU, else one for each core but one."""
    return 1 if device == "cpu" else max(1, min(MOST_PROCESSES, cores - 1))


def usable_cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _decode_all(
    works: Iterable[VideoWork | None], geometries: Geometries
) -> Iterator[Decoded | None]:
    for work in works:
        if work is None:
            time.sleep(IDLE_SECONDS)
            yield None
        else:
            yield from decode_video(work, geometries)
