"""What each row of a shard is, as columns of an HDF5 file: the fields of its RowInfo, its key,
its number. For people without this program; the store itself reads the footer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.layout import GenerationLayout
from stores.records import Row, RowInfo

# Name → units and description. Texts are UTF-8, padded with zero bytes.
COLUMNS = {
    "row": ("", "number of the row in its generation: shard × rows_per_shard + place in this file"),
    "row_key": ("", "sha256 of what the row was made from: video content and frame times"),
    "clip_id": ("", "name of the clip, as annotated"),
    "video_id": ("", "name of the video"),
    "segment_id": ("", "name of the annotated segment"),
    "view": ("", "number of the temporal view of the segment"),
    "first_seconds": ("s", "time of the row's first frame in its video"),
    "last_seconds": ("s", "time of the row's last frame in its video"),
    "flags": ("", "words separated by spaces, such as clamped"),
}
MIN_WIDTH = 8


def make_columns(
    layout: GenerationLayout, shard: int, rows: Sequence[Row]
) -> dict[str, NDArray[Any]]:
    """Return column → values, one per row: little-endian numbers, or bytes of a fixed width."""
    first = shard * layout.rows_per_shard
    columns = {
        "row": np.arange(first, first + len(rows), dtype="<i8"),
        "row_key": _texts([row.key for row in rows]),
    }
    for field in dataclasses.fields(RowInfo):
        values = [getattr(row.info, field.name) for row in rows]
        if isinstance(values[0], str):
            columns[field.name] = _texts(values)
        else:
            columns[field.name] = np.array(values, "<f8" if field.type is float else "<i8")
    return columns


def dtypes_of(columns: Mapping[str, NDArray[Any]]) -> tuple[tuple[str, str], ...]:
    """Return (column, numpy name of its dtype) for each, which can be hashed."""
    return tuple((name, column.dtype.str) for name, column in columns.items())


def _texts(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Return UTF-8 of a common width, one of few, so that shards of a generation look alike."""
    encoded = [value.encode() for value in values]
    longest = max(MIN_WIDTH, *map(len, encoded))
    return np.array(encoded, f"S{1 << (longest - 1).bit_length()}")
