"""Row key → row number for a generation, from the manifest and what was kept of it in index.bin.

Each shard counts its rows in the manifest and adds up their places: checksums over generation,
key, shard and slot. Rows are believed, wherever they were read, if those of their shard agree
with that. So an index that is behind, or that was taken from elsewhere, is of use for just those
shards that it is right about.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.index_file import DamagedIndexError, read_index
from stores.manifest_db import ChangedRecordError
from stores.manifest_records import PLACE, ShardRecord
from stores.row_index import RowIndex
from stores.row_keys import KEY_DTYPE

_ROWS_AT_ONCE = 2**14
_MAX_SHARDS_ASKED = 10_000  # more are not worth a long question

# shard → count of its rows, sum of their places
Totals = dict[int, tuple[int, int]]


class PlacedRows(NamedTuple):
    """Rows and where they lie: packed keys (n,) of S32, and i64 numbers of shard and slot."""

    keys: NDArray[np.bytes_]
    shards: NDArray[np.int64]
    slots: NDArray[np.int64]

    def only(self, chosen: slice | NDArray[np.bool_]) -> "PlacedRows":
        return PlacedRows(self.keys[chosen], self.shards[chosen], self.slots[chosen])


def load_index(
    connection: sqlite3.Connection,
    generation: int,
    shards: Mapping[int, ShardRecord],
    per_shard: int,
    folder: Path | None,
) -> tuple[RowIndex, bool]:
    """Return row key → row number, and whether index.bin says just that.

    Args:
        folder: of the generation, where index.bin may be; None to ask the manifest alone.

    Raises:
        ChangedRecordError: the rows are not those that were committed.
    """
    known = {s: (r.row_count, r.place_sum) for s, r in shards.items() if r.row_count}
    kept, is_whole = _kept_rows(folder, generation, known, per_shard)
    behind: set[int] | None = known.keys() - set(np.unique(kept.shards).tolist())
    if not behind:
        return RowIndex.of_sorted(kept.keys, _numbers(kept, per_shard)), is_whole
    if not len(kept.keys) or len(behind) > _MAX_SHARDS_ASKED:
        kept, behind = _NO_ROWS, None
    rows = _read_rows(connection, generation, behind)
    expected = known if behind is None else {shard: known[shard] for shard in behind}
    if ((rows.slots < 0) | (rows.slots >= per_shard)).any():
        raise ChangedRecordError("a row in a slot beyond its shard")
    if _totals(generation, rows)[0] != expected:
        raise ChangedRecordError("other rows than were committed")
    index = RowIndex.of_sorted(kept.keys, _numbers(kept, per_shard))
    index.add(rows.keys.tobytes(), _numbers(rows, per_shard))
    return index, False


def places_of(generation: int, rows: PlacedRows) -> NDArray[np.int64]:
    """Return the checksum of each row's `PLACE`, (n,)."""
    start = crc32c(PLACE.pack(generation, b"", 0, 0))
    places = np.full(len(rows.keys), start, np.uint32)
    table = np.empty(len(rows.keys), _ROW_DTYPE)
    table["key"], table["shard"], table["slot"] = rows
    for at, values in enumerate(table.view(np.uint8).reshape(-1, _ROW_DTYPE.itemsize).T):
        if values.any():
            places ^= _byte_checks()[at][values]
    return places.astype(np.int64)


@cache
def _byte_checks() -> NDArray[np.uint32]:
    """Return what each value of each byte does to a row's checksum, (bytes, 256).

    A CRC is linear: what single bits do to it adds up by exclusive or.
    """
    size, skipped = _ROW_DTYPE.itemsize, PLACE.size - _ROW_DTYPE.itemsize
    nothing = crc32c(bytes(PLACE.size))
    checks, values = np.zeros((size, 256), np.uint32), np.arange(256)
    for at in range(size):
        for bit in range(8):
            message = bytearray(PLACE.size)
            message[skipped + at] = 1 << bit
            checks[at, values & 1 << bit != 0] ^= crc32c(message) ^ nothing
    return checks


def _kept_rows(
    folder: Path | None, generation: int, known: Totals, per_shard: int
) -> tuple[PlacedRows, bool]:
    """Return the rows in index.bin that the manifest agrees with, and whether these are all."""
    known_rows = sum(count for count, _ in known.values())
    try:
        found = None if folder is None else read_index(folder, known_rows)
    except DamagedIndexError:
        found = None
    if found is None:
        return _NO_ROWS, False
    keys, numbers = found
    rows = PlacedRows(keys, *np.divmod(numbers, per_shard))
    totals, which = _totals(generation, rows)
    right = np.array([known.get(shard) == both for shard, both in totals.items()], bool)
    if right.all():
        return rows, True
    return rows.only(right[which]), False


def _totals(generation: int, rows: PlacedRows) -> tuple[Totals, NDArray[np.int64]]:
    """Return shard → totals, and for each row which of these it belongs to."""
    used, which, counts = np.unique(rows.shards, return_inverse=True, return_counts=True)
    sums = np.zeros(len(used), np.int64)
    for start in range(0, len(rows.keys), _ROWS_AT_ONCE):  # which bounds memory
        some = slice(start, start + _ROWS_AT_ONCE)
        np.add.at(sums, which[some], places_of(generation, rows.only(some)))
    both = zip(counts.tolist(), sums.tolist(), strict=True)
    return dict(zip(used.tolist(), both, strict=True)), which


def _read_rows(
    connection: sqlite3.Connection, generation: int, shards: Iterable[int] | None
) -> PlacedRows:
    """Return the rows of some shards, or of all."""
    query = "SELECT row_key, shard, slot, place FROM rows WHERE generation = ?"
    values: list[Any] = [generation]
    if shards is not None:
        query += " AND shard IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(sorted(shards)))
    found = connection.execute(query, values)
    pieces = [_NO_ROWS]
    while rows := found.fetchmany(_ROWS_AT_ONCE):
        columns = list(zip(*rows, strict=True))
        try:
            keys = np.frombuffer(b"".join(columns[0]), KEY_DTYPE)
            numbers, slots, places = (np.array(column, np.int64) for column in columns[1:])
            piece = PlacedRows(keys, numbers, slots)
            changed = len(keys) != len(rows) or (places_of(generation, piece) != places).any()
        except (TypeError, ValueError, OverflowError) as error:  # not even of the right types
            raise ChangedRecordError("a changed row") from error
        if changed:
            raise ChangedRecordError("a changed row")
        pieces.append(piece)
    return PlacedRows(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def _numbers(rows: PlacedRows, per_shard: int) -> NDArray[np.int64]:
    return rows.shards * per_shard + rows.slots


_ROW_DTYPE = np.dtype([("key", KEY_DTYPE), ("shard", "<i8"), ("slot", "<i8")])
_NO_ROWS = PlacedRows(np.empty(0, KEY_DTYPE), np.empty(0, np.int64), np.empty(0, np.int64))
