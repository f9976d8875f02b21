"""Whole maps as what heads train from: aligned rows made in memory, by the code of that stage.

Nothing of the stage ``aligned`` is read or written. The rows of ``verb``, ``noun`` and ``objects``
suffice, so settings of alignment may change without a row being made again.

Clips are aligned one by one, several at a time: RoIAlign on a CPU is no faster for a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.align import Stored, aligned_outputs, read_by, readable
from pipeline.clip_table import ClipTable
from pipeline.rows import DerivedRow
from pipeline.stage_rows import StageRows
from pipeline.stages import MAP_OUTPUTS, AlignedStage
from stores.base import FeatureReader, MissingRowsError
from stores.checks import allocate, wanted_outputs
from stores.row_keys import key_texts

__all__ = ["MapsReader"]

ROWS_AT_ONCE = 32  # in memory with their maps; 1 MiB a map at the papers' size
ROWS_PER_LOOK = 1024  # rows are looked up by this many, which bounds their names in memory


class MapsReader(FeatureReader):
    """Serves aligned rows, `noun_roi` always, and `verb_map` and `noun_map` with them.

    Row keys are those of the stage ``aligned``, and values are those that it would store, to the
    bit. Only what is asked for is made; object rows that clips of a batch share are read once.
    Close it when it is no longer used.

    Args:
        stage: how rows are aligned.
        table: the clips whose rows can be asked for.
        readers: the opened generations of the stages it reads, by name.
    """

    def __init__(
        self,
        stage: AlignedStage,
        table: ClipTable,
        readers: Mapping[str, FeatureReader],
    ) -> None:
        upstream = {name: reader.specs for name, reader in readers.items()}
        self.specs = stage.derived_specs(upstream) | {
            output: replace(upstream[name]["map"], description=f"{name} map")
            for output, name in MAP_OUTPUTS.items()
        }
        self._stage, self._readers = stage, readers
        self._rows = stage.rows(table)
        self._places = {key: place for place, key in enumerate(key_texts(self._rows.keys))}
        self._found: set[str] = set()
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="align")

    def close(self) -> None:
        """End the threads that align; safe to call twice."""
        self._pool.shutdown()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """See `FeatureReader.missing`: unknown clips, and those with an upstream row missing."""
        asked = list(dict.fromkeys(keys))
        self._find([key for key in asked if key in self._places])
        return [key for key in asked if key not in self._found]

    def keys(self) -> list[str]:
        """See `FeatureReader.keys`; the order is that of the clips."""
        self._find(list(self._places))
        return [key for key in self._places if key in self._found]

    def __len__(self) -> int:
        return len(self.keys())

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `FeatureReader.read`; ``outputs``: by default all, whole maps among them.

        Raises:
            MissingRowsError: unknown clips, or upstream rows that are not stored.
            OverflowError: a value that ``stages.aligned.dtype`` cannot hold; names the clip.
        """
        unknown = [key for key in dict.fromkeys(keys) if key not in self._places]
        if unknown:
            raise MissingRowsError(self._stage.name, unknown)
        names = wanted_outputs(self.specs, outputs, out)
        arrays = allocate(self.specs, len(keys), names, out)
        unique = list(dict.fromkeys(keys))
        if len(unique) == len(keys):
            self._make(unique, arrays)
            return arrays
        made = allocate(self.specs, len(unique), names, None)
        self._make(unique, made)
        place = {key: i for i, key in enumerate(unique)}
        for name, values in arrays.items():
            values[...] = made[name][[place[key] for key in keys]]
        return arrays

    def _find(self, keys: Sequence[str]) -> None:
        """Look for the upstream rows of keys whose rows were not found before."""
        new = [key for key in keys if key not in self._found]
        for start in range(0, len(new), ROWS_PER_LOOK):
            rows = self._some(new[start : start + ROWS_PER_LOOK])
            self._found.update(key_texts(rows.take(readable(rows, self._readers)).keys))

    def _some(self, keys: Sequence[str]) -> StageRows[DerivedRow]:
        places = [self._places[key] for key in keys]
        return self._rows.take(np.array(places, dtype=np.int64))

    def _make(self, keys: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill (len(keys), ...) arrays. While some rows are aligned, the next ones are read."""
        aligning: Iterator[None] = iter(())
        for start in range(0, len(keys), ROWS_AT_ONCE):
            rows = list(self._some(keys[start : start + ROWS_AT_ONCE]))
            some = {name: values[start : start + len(rows)] for name, values in arrays.items()}
            stored = self._read(rows, some)
            deque(aligning, maxlen=0)  # wait
            if some.keys() - MAP_OUTPUTS:
                made = [
                    {name: values[i] for name, values in some.items()} for i in range(len(rows))
                ]
                aligning = self._pool.map(self._align, rows, stored, made)
        deque(aligning, maxlen=0)

    def _read(self, rows: Sequence[DerivedRow], arrays: Mapping[str, NDArray[Any]]) -> list[Stored]:
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

    def _align(self, row: DerivedRow, stored: Stored, arrays: Mapping[str, NDArray[Any]]) -> None:
        specs = {name: self.specs[name] for name in arrays if name not in MAP_OUTPUTS}
        for name, values in aligned_outputs(self._stage, row, stored, specs).items():
            arrays[name][...] = values
