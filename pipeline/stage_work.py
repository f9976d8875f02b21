"""One stage of a run: rows of frames in, batches through the network, shards out.

A batch is full or the last one. On CUDA the next batch is launched before the results of the one
before are fetched, so that the device never waits for copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        reserve_shard: gives the number of a shard that nobody else writes.
        commit_seconds: finished rows wait no longer than this for their shard to be full.

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
        reserve_shard: Callable[[], int],
        commit_seconds: float,
    ) -> None:
        self.stage = stage
        self.extractor = extractor
        self.timings = Timings()
        self.batch_size = stage.batch_size
        self._writer = writer
        self._rows_per_shard = rows_per_shard
        self._reserve_shard = reserve_shard
        self._commit_seconds = commit_seconds
        self._batch = _Batch()
        self._in_flight: _InFlight | None = None
        self._done: list[Row] = []
        self._oldest_done_at = 0.0

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
        overdue = time.monotonic() - self._oldest_done_at > self._commit_seconds
        least = 1 if everything or overdue else self._rows_per_shard
        while len(self._done) >= least:
            rows, self._done = (
                self._done[: self._rows_per_shard],
                self._done[self._rows_per_shard :],
            )
            shards.write(self.stage.name, self._writer, self._reserve_shard(), rows)
            self._oldest_done_at = time.monotonic()

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
        if not self._done:
            self._oldest_done_at = time.monotonic()
        self._done += flying.batch.finished(arrays)
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
        self._clamped: list[bool] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, item: DecodedRow) -> None:
        self.rows.append(item.row)
        self.frames.append(np.array(item.frames))
        self._clamped.append(item.clamped)

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
            half._clamped = self._clamped[part]
        return first, second

    def finished(self, arrays: Arrays) -> list[Row]:
        """The rows with what the network made of them."""
        return [
            # A copy of its own: a view would keep the whole batch alive.
            Row(row.key, {n: a[i].copy() for n, a in arrays.items()}, row.info(clamped=clamped))
            for i, (row, clamped) in enumerate(zip(self.rows, self._clamped, strict=True))
        ]


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
