"""Shard files in HDF5 for tests: written, read with h5py alone, damaged on purpose."""

import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crc32c import crc32c
from store_suite import SPECS, STAGE, make_key, make_rows

from stores import ArraySpec, Row
from stores.hdf5_format import PART, Hdf5Format
from stores.layout import GenerationLayout
from stores.shard_footer import read_footer
from stores.shard_format import ShardTail
from stores.shard_rows import damaged_slots

FORM = Hdf5Format()
ROWS_PER_SHARD = 10
ENTRY_NBYTES = 20
_TRAILER_NBYTES = 20


def make_layout(folder: Path, **changes: Any) -> GenerationLayout:
    """Return the layout of a generation of `SPECS`, with some of its fields changed."""
    fields: dict[str, Any] = {
        "path": folder,
        "stage": STAGE,
        "key": make_key(1000),
        "specs": SPECS,
        "rows_per_shard": ROWS_PER_SHARD,
        "created": "2026-01-02T03:04:05+00:00",
        "provenance": {"weights": "Kinetics-400"},
        "format": "hdf5",
        "compression": "none",
    }
    return GenerationLayout(**{**fields, **changes})


def write_file(layout: GenerationLayout, shard: int, rows: Sequence[Row]) -> Path:
    """Write a shard file and return it."""
    path = FORM.path(layout, PART, shard)
    path.write_bytes(encode(layout, shard, rows))
    return path


def encode(layout: GenerationLayout, shard: int, rows: Sequence[Row]) -> bytes:
    """Return the bytes of a shard file."""
    return b"".join(FORM.encode(layout, PART, shard, rows).blocks)


def write_arrays(folder: Path, specs: dict[str, ArraySpec], *rows: dict[str, Any]) -> Path:
    """Write one shard of rows that only have arrays."""
    layout = make_layout(folder, specs=specs)
    infos = make_rows(*range(len(rows)))
    return write_file(
        layout, 0, [Row(r.key, arrays, r.info) for r, arrays in zip(infos, rows, strict=True)]
    )


def read_tail(layout: GenerationLayout, path: Path) -> ShardTail:
    """Return the checked end of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return FORM.read_tail(layout, PART, path, descriptor)
    finally:
        os.close(descriptor)


def is_whole(layout: GenerationLayout, shard: int, data: bytes) -> bool:
    """Return whether every check of a file finds nothing; DamagedShardError where one raises."""
    with tempfile.NamedTemporaryFile(dir=layout.path) as file:
        file.write(data)
        file.flush()
        path, descriptor = Path(file.name), file.fileno()
        tail = FORM.read_tail(layout, PART, path, descriptor)
        read_footer(layout, PART, shard, path, descriptor, tail)
        return not damaged_slots(layout, descriptor, tail) and FORM.is_rest_intact(descriptor, tail)


def index_start(data: bytes, outputs: int = len(SPECS)) -> int:
    """Return where the index of a file starts."""
    return len(data) - 4 - 4 - outputs * ROWS_PER_SHARD * ENTRY_NBYTES


def with_index(
    data: bytes, output: int, slot: int, *entry: int, outputs: int = len(SPECS)
) -> bytes:
    """Return a file that says another (offset, nbytes, check) of a row, with checksums that hold.

    Args:
        output: its place among the sorted names.
    """
    changed = bytearray(data)
    start = index_start(data, outputs)
    place = start + (output * ROWS_PER_SHARD + slot) * ENTRY_NBYTES
    struct.pack_into("<QQI", changed, place, *entry)
    changed[-4:] = crc32c(changed[start:-4]).to_bytes(4, "little")
    return bytes(changed)


def entry_of(data: bytes, output: int, slot: int) -> tuple[int, int, int]:
    """Return (offset, nbytes, check) of a row, read without our code."""
    place = index_start(data) + (output * ROWS_PER_SHARD + slot) * ENTRY_NBYTES
    offset, nbytes, check = struct.unpack_from("<QQI", data, place)
    return offset, nbytes, check


def with_trailer(data: bytes, footer_nbytes: int, magic: bytes = b"symbio\0\1") -> bytes:
    """Return a file that says another size of its footer."""
    changed = bytearray(data)
    place = index_start(data) - _TRAILER_NBYTES
    _, crc, _ = struct.unpack_from("<QI8s", changed, place)
    struct.pack_into("<QI8s", changed, place, footer_nbytes, crc, magic)
    return bytes(changed)
