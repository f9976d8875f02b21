"""Batches of a table, made ready while the loop that needs them is busy with the one before.

Threads read or gather the stored rows of the next batches into a few buffers that are used again
and again; the loop's own thread widens them, on the device that the head runs on. Read ahead or
not, resident or not, batches are the same to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.base import Batch
from heads.table import FeatureTable, Indices, as_tensor, batch_dtype

READ_AHEAD = 4
THREADS = 2

Request = tuple[Indices, Indices]
"""Samples and which view of each, as in `FeatureTable.batch`."""

Stored = dict[str, NDArray[Any]]


@contextmanager
def open_batches(
    table: FeatureTable,
    requests: Sequence[Request],
    *,
    device: str | torch.device = "cpu",
    ahead: int | None = None,
) -> Iterator[Iterator[Batch]]:
    """Make batches ready; the threads end with the `with` block, however it ends.

    A batch is good until the next one is asked for: the memory is used again.

    Args:
        table: where the rows come from.
        requests: one for each batch, in the order they come.
        device: where the tensors go; they are widened to float32 there.
        ahead: batches to have ready, which is what bounds the memory; 0 makes each when it is
            asked for. By default 4 where there is something to wait for: the store, or the way to
            a GPU.

    Yields:
        An iterator over what `FeatureTable.batch` gives for each request. It raises what the
        reader raises, at the batch it was reading.
    """
    target = torch.device(device)
    if ahead is None:
        ahead = 0 if table.resident and target.type == "cpu" else READ_AHEAD
    size = max((len(indices) for indices, _ in requests), default=0)
    widener = _Widener(table, size, target)
    slots = [_Slot(table, size, target) for _ in range(max(1, ahead))]
    if not ahead:
        yield (widener.widen(slots[0], slots[0].fill(request)) for request in requests)
        slots[0].wait()
        return
    with ThreadPoolExecutor(min(THREADS, ahead), thread_name_prefix="read-ahead") as pool:
        try:
            yield _read_ahead(pool, slots, widener, requests)
        finally:
            pool.shutdown(cancel_futures=True)
            for slot in slots:
                slot.wait()  # its memory is given back, and others may write there


def _read_ahead(
    pool: ThreadPoolExecutor,
    slots: Sequence[_Slot],
    widener: _Widener,
    requests: Sequence[Request],
) -> Iterator[Batch]:
    """Batches in order; a slot is filled anew as soon as what it held is on its way."""
    waiting = iter(requests)
    filling: deque[tuple[_Slot, Future[Stored]]] = deque()
    for slot, request in zip(slots, waiting, strict=False):
        filling.append((slot, pool.submit(slot.fill, request)))
    while filling:
        slot, filled = filling.popleft()
        batch = widener.widen(slot, filled.result())
        if (following := next(waiting, None)) is not None:
            filling.append((slot, pool.submit(slot.fill, following)))
        yield batch


class _Slot:
    """Memory for the stored rows of one batch."""

    def __init__(self, table: FeatureTable, batch_size: int, device: torch.device) -> None:
        self._table = table
        self._memory = table.buffers(batch_size, pinned=device.type == "cuda")
        self.copied: torch.cuda.Event | None = None
        """On a GPU: has happened once the GPU holds its copy of the rows."""

    def fill(self, request: Request) -> Stored:
        self.wait()
        indices, views = request
        rows = {name: array[: len(indices)] for name, array in self._memory.items()}
        self._table.read_into(indices, views, rows)
        return rows

    def wait(self) -> None:
        """Until nobody copies from this memory any more."""
        if self.copied is not None:
            self.copied.synchronize()


class _Widener:
    """Makes what heads get out of stored rows; on the CPU into the same memory each time."""

    def __init__(self, table: FeatureTable, batch_size: int, device: torch.device) -> None:
        self._device = device
        self._memory: Batch = {}
        if device.type == "cpu":
            for name, array in table.buffers(batch_size).items():
                self._memory[name] = torch.empty(array.shape, dtype=batch_dtype(name))

    def widen(self, slot: _Slot, rows: Stored) -> Batch:
        if self._device.type == "cpu":
            return {
                name: self._memory[name][: len(array)].copy_(as_tensor(array))
                for name, array in rows.items()
            }
        copies = {
            name: as_tensor(array).to(self._device, non_blocking=True)
            for name, array in rows.items()
        }
        if self._device.type == "cuda":
            slot.copied = torch.cuda.Event()
            slot.copied.record(torch.cuda.current_stream(self._device))
        return {name: copy.to(batch_dtype(name)) for name, copy in copies.items()}


def batches_of(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """`order` in pieces of `batch_size`; the last one may be smaller."""
    return np.split(order, range(batch_size, len(order), batch_size))
