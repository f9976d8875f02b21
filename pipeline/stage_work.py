"""One stage of a run: rows of frames in, batches through the network, shards out.

A batch is full or the last one. On CUDA the next batch is launched before the results of the one
before are fetched, so that the device never waits for copies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extractors.base import ClipExtractor, FrameExtractor, GivenBoxes
from extractors.inference import is_out_of_memory
from pipeline.decode_pass import DecodedRow
from pipeline.rows import VideoRow
from pipeline.shard_thread import ShardThread
from pipeline.stages import VideoStage
from pipeline.timings import Timings
from pipeline.work import Progress, row_failure
from stores.base import Row, ShardWriter

__all__ = ["StageWork"]

Arrays = Mapping[str, npt.NDArray[Any]]


class StageWork:
    """What a worker holds of one stage: its network, its writer and rows not yet on disk.

    Args:
        stage: what is extracted.
        extractor: its network.
        writer: writes shards of its generation.
        rows_per_shard: of a full shard.
        shard_numbers: of shards that nobody else writes.
        commit_seconds: finished rows wait no longer than this for their shard to be full.
        early_shards: how many shards that may be closed for; None is as many as it takes.

    Attributes:
        timings: where the time went so far.
        batch_size: rows per forward pass; halved for good when memory runs out.
    """

    def __init__(
        self,
        stage: VideoStage,
        extractor: ClipExtractor | FrameExtractor,
        writer: ShardWriter,
        *,
        rows_per_shard: int,
        shard_numbers: Iterable[int],
        commit_seconds: float,
        early_shards: int | None = None,
    ) -> None:
        self.stage = stage
        self.extractor = extractor
        self.timings = Timings()
        self.batch_size = stage.batch_size
        self._writer = writer
        self._rows_per_shard = rows_per_shard
        self._shard_numbers = iter(shard_numbers)
        self._commit_seconds = commit_seconds
        self._early_shards = math.inf if early_shards is None else early_shards
        self._batch = _Batch()
        self._in_flight: _InFlight | None = None
        self._done = _ShardRows(rows_per_shard)
        self._full: list[_ShardRows] = []

    def add(self, item: DecodedRow) -> Iterator[Progress]:
        """Take a row in; its frames are copied. A full batch goes through the network."""
        self.timings += item.timings
        self._batch.add(item)
        if len(self._batch) >= self.batch_size:
            yield from self._advance()

    def flush(self) -> Iterator[Progress]:
        """Send what is left of a batch through the network and fetch all results."""
        if len(self._batch):
            yield from self._advance()
        yield from self._collect()

    def write(self, shards: ShardThread, *, everything: bool = False) -> None:
        """Hand full shards to the writer, those that are not when their rows waited long enough."""
        if everything or self._done.is_full:
            self._close_shard()
        elif self._done.age_seconds > self._commit_seconds and self._early_shards > 0:
            self._early_shards -= 1
            self._close_shard()
        for shard in self._full:
            shards.write(self.stage.name, self._writer, self._shard_numbers, shard.rows)
        self._full.clear()

    def _close_shard(self) -> None:
        if self._done.rows:
            self._full.append(self._done)
            self._done = _ShardRows(self._rows_per_shard)

    def _advance(self) -> Iterator[Progress]:
        """Launch the gathered batch, then fetch the results of the one before."""
        batch, self._batch = self._batch, _Batch()
        before, self._in_flight = self._in_flight, None
        try:
            self._in_flight = self._launch(batch)
        except Exception as error:
            yield from self._failed(batch, error)
        if before is not None:
            yield from self._fetch(before)
        if not _is_asynchronous(self.extractor):
            yield from self._collect()

    def _collect(self) -> Iterator[Progress]:
        """Fetch the results of the batch in flight."""
        before, self._in_flight = self._in_flight, None
        if before is not None:
            yield from self._fetch(before)

    def _launch(self, batch: _Batch) -> _InFlight:
        started = time.perf_counter()
        fetch = _launch(self.extractor, batch)
        self.timings.forward_seconds += time.perf_counter() - started
        return _InFlight(batch, fetch)

    def _fetch(self, flying: _InFlight) -> Iterator[Progress]:
        started = time.perf_counter()
        try:
            arrays = flying.fetch()
        except Exception as error:
            yield from self._failed(flying.batch, error)
            return
        finally:
            self.timings.forward_seconds += time.perf_counter() - started
        for position, row in enumerate(flying.batch.rows):
            if self._done.is_full:
                self._close_shard()
            values = {name: array[position] for name, array in arrays.items()}
            self._done.add(row, values, clamped=flying.batch.clamped[position])
        yield Progress(self.stage.name, computed=len(flying.batch))

    def _failed(self, batch: _Batch, error: Exception) -> Iterator[Progress]:
        """Find the row that spoils a batch, or the batch that fits into memory, by halves.

        Raises:
            Exception: the error itself, if it says nothing about rows.
        """
        out_of_memory = is_out_of_memory(error)
        if not (out_of_memory or isinstance(error, ValueError | OverflowError)):
            raise error
        if len(batch) == 1:
            yield Progress(self.stage.name, failures=[row_failure(batch.rows[0], error)])
            return
        if out_of_memory:
            self.batch_size = max(1, min(self.batch_size, len(batch) // 2))
            torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        for half in batch.halves():
            try:
                flying = self._launch(half)
            except Exception as again:
                yield from self._failed(half, again)
            else:
                yield from self._fetch(flying)


class _Batch:
    """Rows that go through the network together; their frames are copies."""

    def __init__(self) -> None:
        self.rows: list[VideoRow] = []
        self.frames: list[npt.NDArray[np.uint8]] = []  # each (n, H, W, C)
        self.clamped: list[bool] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, item: DecodedRow) -> None:
        self.rows.append(item.row)
        self.frames.append(np.array(item.frames))
        self.clamped.append(item.clamped)

    @property
    def boxes(self) -> list[GivenBoxes] | None:
        """Given boxes of each frame, for stages that take them."""
        given = [row.boxes for row in self.rows if row.boxes is not None]
        return given or None

    def halves(self) -> tuple[_Batch, _Batch]:
        middle = len(self) // 2
        first, second = _Batch(), _Batch()
        for half, part in ((first, slice(0, middle)), (second, slice(middle, None))):
            half.rows = self.rows[part]
            half.frames = self.frames[part]
            half.clamped = self.clamped[part]
        return first, second


class _ShardRows:
    """Finished rows of one shard, in one piece of memory for each output.

    Rows of their own, small and kept for long, would lie between the large arrays of each batch and
    keep the heap from ever using that room again: it grew by more than a megabyte a row.
    """

    def __init__(self, rows_per_shard: int) -> None:
        self.rows: list[Row] = []
        self._rows_per_shard = rows_per_shard
        self._memory: dict[str, npt.NDArray[Any]] = {}
        self._begun_at = 0.0

    @property
    def is_full(self) -> bool:
        return len(self.rows) == self._rows_per_shard

    @property
    def age_seconds(self) -> float:
        """Of the oldest row; 0 without any."""
        return time.monotonic() - self._begun_at if self.rows else 0.0

    def add(self, row: VideoRow, values: Arrays, *, clamped: bool) -> None:
        """Copy a row in; `values` are those of the row alone."""
        if not self.rows:
            self._begun_at = time.monotonic()
            for name, array in values.items():
                shape = (self._rows_per_shard, *array.shape)
                self._memory[name] = np.empty(shape, dtype=array.dtype)
        places = {name: memory[len(self.rows), ...] for name, memory in self._memory.items()}
        for name, array in values.items():
            places[name][...] = array
        self.rows.append(Row(row.key, places, row.info(clamped=clamped)))


class _InFlight:
    """A batch that the network works on."""

    def __init__(self, batch: _Batch, fetch: Callable[[], Arrays]) -> None:
        self.batch = batch
        self.fetch = fetch


def _launch(extractor: ClipExtractor | FrameExtractor, batch: _Batch) -> Callable[[], Arrays]:
    """Start a batch; what is returned waits for its results."""
    if isinstance(extractor, ClipExtractor):
        clips = [extractor.prepare(frames) for frames in batch.frames]
        return extractor.launch(_stack(clips, _is_asynchronous(extractor))).collect
    arrays = extractor([frames[0] for frames in batch.frames], batch.boxes)
    return lambda: arrays


def _stack(frames: Sequence[npt.NDArray[Any]], pinned: bool) -> torch.Tensor:
    """(B, T, H, W, C), in memory that CUDA copies from in the background if `pinned`."""
    dtype = getattr(torch, frames[0].dtype.name)  # uint8, or float32 of computed flow
    clips = torch.empty((len(frames), *frames[0].shape), dtype=dtype, pin_memory=pinned)
    for place, frame in zip(clips.numpy(), frames, strict=True):
        place[...] = frame
    return clips


def _is_asynchronous(extractor: ClipExtractor | FrameExtractor) -> bool:
    return isinstance(extractor, ClipExtractor) and extractor.device.type == "cuda"
