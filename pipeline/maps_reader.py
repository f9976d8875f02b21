"""Whole maps as what heads train from: aligned rows made in memory, by the code of that stage.

Nothing of the stage ``aligned`` is read or written. The rows of ``verb``, ``noun`` and ``objects``
suffice, so settings of alignment may change without a row being made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.aligner import Aligner
from pipeline.clip_table import ClipTable
from pipeline.rows import DerivedRow
from pipeline.stage_rows import StageRows, readable
from pipeline.stages import MAP_OUTPUTS, AlignedStage
from stores.base import FeatureReader, MissingRowsError
from stores.checks import allocate, wanted_outputs
from stores.row_keys import key_texts

__all__ = ["MapsReader"]

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
        self._aligner = Aligner(stage, readers, self.specs)
        self._rows = stage.rows(table)
        self._places = {key: place for place, key in enumerate(key_texts(self._rows.keys))}
        self._found: set[str] = set()

    def close(self) -> None:
        """End the threads that align; safe to call twice."""
        self._aligner.close()

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
            self._aligner.fill(self._some(unique), arrays)
            return arrays
        made = allocate(self.specs, len(unique), names, None)
        self._aligner.fill(self._some(unique), made)
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
