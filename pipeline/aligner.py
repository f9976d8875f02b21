"""Aligned rows made from stored ones, many at a time, by the code of the stage ``aligned``.

    rows ─► upstream rows read, each once ─► rows aligned by threads ─► one array per output
                                             while the next are read

Clips are aligned one by one, several at a time: RoIAlign on a CPU is no faster for a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from numpy.typing import NDArray

from pipeline.align import Stored, aligned_outputs, read_by
from pipeline.rows import DerivedRow
from pipeline.stages import MAP_OUTPUTS, AlignedStage
from stores.base import ArraySpec, FeatureReader

__all__ = ["Aligner"]

ROWS_AT_ONCE = 16  # in memory with their maps; 1 MiB a map at the papers' size

Arrays = Mapping[str, NDArray[Any]]


class Aligner:
    """Makes aligned rows, and hands out the whole maps that they are made from.

    Args:
        stage: how rows are aligned.
        readers: the opened generations of the stages it reads, by name.
        specs: of the outputs that will be asked for.
    """

    def __init__(
        self,
        stage: AlignedStage,
        readers: Mapping[str, FeatureReader],
        specs: Mapping[str, ArraySpec],
    ) -> None:
        self._stage = stage
        self._readers = readers
        self._specs = specs
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="align")

    def close(self) -> None:
        """End the threads; safe to call twice."""
        self._pool.shutdown()

    def fill(self, rows: Sequence[DerivedRow], arrays: Arrays) -> None:
        """Make rows. Nothing is written to the arrays any more when this returns or raises.

        Args:
            rows: all of whose upstream rows are stored.
            arrays: (len(rows), ...) of each output wanted, or of `MAP_OUTPUTS`; filled.

        Raises:
            MissingRowsError: upstream rows that are not stored.
            OverflowError: a value that the dtype of its output cannot hold; names output and clip.
        """
        aligning: list[Future[None]] = []
        try:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                some = list(rows[start : start + ROWS_AT_ONCE])
                places = {
                    name: values[start : start + len(some)] for name, values in arrays.items()
                }
                stored = self._read(some, places)
                _finish(aligning)
                aligning = self._align_all(some, stored, places)
            _finish(aligning)
        finally:
            wait(aligning)

    def _align_all(
        self, rows: Sequence[DerivedRow], stored: Sequence[Stored], arrays: Arrays
    ) -> list[Future[None]]:
        made = {name: values for name, values in arrays.items() if name not in MAP_OUTPUTS}
        if not made:
            return []
        return [
            self._pool.submit(
                self._align, row, stored[i], {name: values[i] for name, values in made.items()}
            )
            for i, row in enumerate(rows)
        ]

    def _align(self, row: DerivedRow, stored: Stored, arrays: Arrays) -> None:
        specs = {name: self._specs[name] for name in arrays}
        for name, values in aligned_outputs(self._stage, row, stored, specs).items():
            arrays[name][...] = values

    def _read(self, rows: Sequence[DerivedRow], arrays: Arrays) -> list[Stored]:
        """What each row is made from. Whole maps that are asked for are read into place."""
        needed = read_by(arrays.keys() - MAP_OUTPUTS)
        maps = {}
        for output, name in MAP_OUTPUTS.items():
            if output in arrays or name in needed:
                keys = [row.upstream[name][0] for row in rows]
                out = {"map": arrays[output]} if output in arrays else None
                maps[name] = self._readers[name].read(keys, ["map"], out)["map"]
        frames = dict.fromkeys(key for row in rows for key in row.upstream["objects"])
        objects = {}
        if "objects" in needed:
            objects = self._readers["objects"].read(list(frames), needed["objects"])
        place = {key: i for i, key in enumerate(frames)}
        windows = [[place[key] for key in row.upstream["objects"]] for row in rows]
        return [
            {
                **{name: {"map": values[i]} for name, values in maps.items()},
                "objects": {name: values[window] for name, values in objects.items()},
            }
            for i, window in enumerate(windows)
        ]


def _finish(aligning: Sequence[Future[None]]) -> None:
    for future in aligning:
        future.result()
