"""A thread that writes shards, so that networks go on while a disk is slow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

from pipeline.patience import Patience
from pipeline.timings import Timings
from pipeline.work import Progress, row_failure
from stores.base import Failure, Receipt, RefusedRowError, Row, ShardWriter

__all__ = ["ShardThread"]

# Shards that may wait to be written; beyond that the networks wait for the disk.
MOST_WAITING = 2
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class _Written:
    receipt: Receipt | None
    refused: list[Failure]
    seconds: float


class ShardThread:
    """Writes shards in their order and gives the receipts to whoever asks.

    Args:
        timings: of each stage, by name; the seconds of writing are added to them.
        patience: with storage that is gone.
    """

    def __init__(self, timings: dict[str, Timings], patience: Patience) -> None:
        self._timings = timings
        self._patience = patience
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards")
        self._waiting: list[tuple[str, Future[_Written]]] = []

    @property
    def is_idle(self) -> bool:
        """Whether all that was handed in is written and told of."""
        return not self._waiting

    def write(
        self, stage: str, writer: ShardWriter, numbers: Iterator[int], rows: Sequence[Row]
    ) -> None:
        """Hand in a shard; it takes the first of the numbers that is free."""
        future = self._thread.submit(_write, writer, numbers, rows, self._patience)
        self._waiting.append((stage, future))

    def progress(self, *, finish: bool = False) -> Iterator[Progress | None]:
        """What has been written since; waits for all of it with ``finish``, and says None so long.

        Raises:
            OSError, ValueError: a shard could not be written.
        """
        while self._waiting:
            stage, future = self._waiting[0]
            if not (finish or future.done() or len(self._waiting) > MOST_WAITING):
                return
            if not wait([future], timeout=LOOK_SECONDS).done:
                yield None  # the disk is slow, or gone for a while
                continue
            written = future.result()
            del self._waiting[0]
            self._timings[stage].write_seconds += written.seconds
            if written.refused:  # they were counted as computed before
                yield Progress(stage, computed=-len(written.refused), failures=written.refused)
            if written.receipt is not None:
                yield Progress(stage, receipt=written.receipt)

    def close(self) -> None:
        """Wait for what is being written, and forget what has not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _write(
    writer: ShardWriter, numbers: Iterator[int], rows: Sequence[Row], patience: Patience
) -> _Written:
    """Write a shard; rows that the store refuses are left out of it."""
    started = time.perf_counter()
    refused: list[Failure] = []
    left = list(rows)
    receipt = None
    shard = next(numbers)
    while left and receipt is None:
        try:
            receipt = patience(partial(writer.write_shard, shard, left))
        except FileExistsError:  # by a worker that was thought dead, or before a requeue
            shard = next(numbers)
        except RefusedRowError as error:
            (row,) = (row for row in left if row.key == error.row_key)
            left = [other for other in left if other is not row]
            refused.append(row_failure(row, error))
    return _Written(receipt, refused, time.perf_counter() - started)
