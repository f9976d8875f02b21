"""The index at the end of an HDF5 shard file, which says where rows lie and what they sum up to.

    (u64 offset, u64 nbytes, u32 crc32c) × rows per shard × outputs, sorted by name
    u32 crc32c of everything before the footer that is no row

All ones means that there is no row in the slot. Rows are where HDF5 put them: nothing is known
of their order, but no reader has to ask HDF5 for it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.compression import max_stored_nbytes
from stores.layout import GenerationLayout
from stores.shard_footer import read_index
from stores.shard_format import CRC_NBYTES, EMPTY, ChunkTable, DamagedShardError, ShardTail

_FIELDS = ("offset", "nbytes", "check")
_ENTRY = np.dtype(list(zip(_FIELDS, ("<u8", "<u8", "<u4"), strict=True)))
_PIECE_NBYTES = 2**20


@dataclass(frozen=True)
class Hdf5Tail(ShardTail):
    """Also knows `rest_crc`, the crc32c of everything before the footer that is no row."""

    rest_crc: int


class ShardIndex:
    """The index while a file is written."""

    def __init__(self, layout: GenerationLayout) -> None:
        outputs = sorted(layout.specs)
        empty = bytearray(b"\xff" * (len(outputs) * layout.rows_per_shard * _ENTRY.itemsize))
        self._table: NDArray[Any] = np.frombuffer(empty, _ENTRY).reshape(len(outputs), -1)
        self._tables = dict(zip(outputs, self._table, strict=True))
        self.rest_crc = 0

    def tables(self, rows: int) -> list[ChunkTable]:
        """Return where the first `rows` rows of each output lie."""
        return [_chunk_table(entries[:rows]) for entries in self._table]

    @property
    def nbytes(self) -> int:
        """Size of the encoded index."""
        return self._table.nbytes + CRC_NBYTES

    def set(self, output: str, slot: int, offset: int, nbytes: int, check: int) -> None:
        """Note where a row lies, or will, and the crc32c of its stored values."""
        self._tables[output][slot] = offset, nbytes, check

    def encode(self) -> bytes:
        """Return the bytes of the index."""
        return self._table.tobytes() + self.rest_crc.to_bytes(CRC_NBYTES, "little")


def read_hdf5_tail(layout: GenerationLayout, path: Path, descriptor: int) -> Hdf5Tail:
    """Read and check the end of a file; believe none of its sizes unchecked.

    Raises:
        DamagedShardError: it is not the end of a shard file of this generation.
    """
    outputs = sorted(layout.specs)
    table_nbytes = len(outputs) * layout.rows_per_shard * _ENTRY.itemsize
    nbytes = table_nbytes + CRC_NBYTES
    data, footer_start, footer_nbytes, footer_crc = read_index(path, descriptor, nbytes)
    index = np.frombuffer(data[:table_nbytes], _ENTRY).reshape(len(outputs), -1)
    used = index["nbytes"] != EMPTY
    count = int(used[0].sum())
    if not used[:, :count].all() or used[:, count:].any():
        raise DamagedShardError(path, "the index is not that of rows filled one after another")
    chunks = {}
    for output, entries in zip(outputs, index[:, :count], strict=True):
        chunks[output] = _checked(layout, output, path, entries, footer_start)
    rest_crc = int.from_bytes(data[table_nbytes:], "little")
    return Hdf5Tail(chunks, footer_start, footer_nbytes, footer_crc, rest_crc)


def _checked(
    layout: GenerationLayout, output: str, path: Path, entries: NDArray[Any], end: int
) -> ChunkTable:
    """Return the rows of an output, all of which have to lie before `end`."""
    size = layout.specs[output].row_nbytes
    sizes, offsets = entries["nbytes"], entries["offset"]
    fits = sizes == size
    if layout.compression != "none":
        fits = (sizes > 0) & (sizes <= max_stored_nbytes(size))
    if not fits.all():
        raise DamagedShardError(path, f"the index is not that of rows of {size:,} bytes")
    # No sums of what the file says: they might wrap around.
    if (sizes > end).any() or (offsets > np.uint64(end) - sizes).any():
        raise DamagedShardError(path, "the index is of rows that lie outside the file")
    return _chunk_table(entries)


def _chunk_table(entries: NDArray[Any]) -> ChunkTable:
    return ChunkTable(*(entries[field].tolist() for field in _FIELDS))


def is_rest_intact(descriptor: int, tail: Hdf5Tail) -> bool:
    """Read what lies between the rows of a file; return whether it is what was written."""
    check = 0
    for start, end in between_rows(tail.chunks.values(), tail.footer_start):
        for piece in range(start, end, _PIECE_NBYTES):
            data = os.pread(descriptor, min(_PIECE_NBYTES, end - piece), piece)
            check = crc32c(data, check)
    return check == tail.rest_crc


def between_rows(tables: Iterable[ChunkTable], end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is no row, from the start of the file up to `end`."""
    rows = [row for table in tables for row in zip(table.offsets, table.nbytes, strict=True)]
    position = 0
    for offset, nbytes in sorted(rows):
        if offset > position:
            yield position, offset
        position = max(position, offset + nbytes)
    if position < end:
        yield position, end
