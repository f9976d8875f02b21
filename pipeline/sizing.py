"""How many bytes rows take on disk: the shards that a store would make of them, counted.

A shard is more than its rows: checksums, a footer that lists the rows, an index, and in HDF5 all
that makes it a file of HDF5. So the store's own encoders are asked for whole shards of zeros, which
costs next to nothing, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stores.checks import rows_per_shard
from stores.compression import compress, max_stored_nbytes
from stores.formats import DEFAULT_FORMAT, shard_format
from stores.layout import GenerationLayout, generation_folder
from stores.records import ArraySpec, Row, RowInfo
from stores.shard_format import ShardFormat

__all__ = ["Size", "future_layout", "stored_size"]

ANY_KEY = "0" * 64


@dataclass(frozen=True)
class Size:
    """What rows take on disk.

    Attributes:
        nbytes: of all shards; the most there can be where rows are compressed.
        shards: how many, if all but the last are full.
        at_most: whether they may turn out smaller.
    """

    nbytes: int
    shards: int
    at_most: bool


def stored_size(layout: GenerationLayout, rows: int, infos: Sequence[RowInfo]) -> Size:
    """What so many new rows of a generation take.

    Args:
        layout: of the generation.
        rows: how many.
        infos: of some of them, for the length of their names; none are needed without rows.
    """
    full, rest = divmod(rows, layout.rows_per_shard)
    nbytes = full * _shard_nbytes(layout, layout.rows_per_shard, infos) if full else 0
    nbytes += _shard_nbytes(layout, rest, infos) if rest else 0
    return Size(nbytes, full + bool(rest), at_most=layout.compression != "none")


def future_layout(
    store: Path,
    stage: str,
    key: str,
    specs: Mapping[str, ArraySpec],
    provenance: Mapping[str, Any],
    *,
    format: str | None,
    shard_mib: float,
    compression: str,
) -> GenerationLayout:
    """The layout of a generation that is not there yet; arguments as for `Store.generation`."""
    return GenerationLayout(
        path=generation_folder(store, stage, key),
        stage=stage,
        key=key,
        specs=specs,
        rows_per_shard=rows_per_shard(specs, shard_mib),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        provenance=provenance,
        format=format or DEFAULT_FORMAT,
        compression=compression,
    )


def _shard_nbytes(layout: GenerationLayout, count: int, infos: Sequence[RowInfo]) -> int:
    zeros = {
        name: np.broadcast_to(np.zeros((), spec.numpy_dtype), spec.shape)
        for name, spec in layout.specs.items()
    }
    rows = [Row(ANY_KEY, zeros, infos[i % len(infos)]) for i in range(count)]
    form = shard_format(layout.format)
    return sum(_part_nbytes(layout, form, part, rows) for part in form.parts(layout))


def _part_nbytes(
    layout: GenerationLayout, form: ShardFormat, part: str, rows: Sequence[Row]
) -> int:
    content = form.encode(layout, part, 0, rows)
    if layout.compression == "none":
        return content.nbytes
    # Zeros compress well: their bytes are taken off again, and the most there can be put in place.
    nbytes = sum(memoryview(block).nbytes for block in content.blocks)
    for output in form.parts(layout)[part]:
        raw = layout.specs[output].row_nbytes
        nbytes += len(rows) * (max_stored_nbytes(raw) - len(compress(bytes(raw))))
    return nbytes
