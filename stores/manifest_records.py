"""The records of the manifest: how they are sealed, and how rows and their counts are kept.

The seal of a record is a crc32c over its other columns. A row has a second one, its `place`, over
what decides which bytes its key leads to, so that loading a generation need not read what its
rows are about. Each shard counts its rows and adds up their places.
"""

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from typing import Any, NamedTuple

from crc32c import crc32c

from stores.manifest_db import ChangedRecordError
from stores.records import Failure, Receipt, RowInfo
from stores.row_keys import pack_keys
from stores.untrusted import parse_json

MAX_SHARDS = 10**12

_KEY_NBYTES = 32
_MAX_KEYS = 500  # in one question; SQLite has taken 999 values since ever
PLACE = struct.Struct("<q32sqq")  # generation, row key, shard, slot


class GenerationRecord(NamedTuple):
    """One generation.

    Attributes:
        path: of its folder, relative to the root.
        next_shard: the first number that was never handed out.
        csv_crc: crc32c of rows.csv; None where that is behind.
    """

    id: int
    stage: str
    key: str
    path: str
    created: str
    next_shard: int
    csv_crc: int | None


class ShardRecord(NamedTuple):
    """One committed shard; `checks` is JSON, `row_count` and `place_sum` are over its rows."""

    generation: int
    shard: int
    nbytes: int
    checks: str
    row_count: int
    place_sum: int

    def checks_by_part(self) -> dict[str, int]:
        """Return part → crc32c of its footer."""
        try:
            return dict(parse_json(self.checks))
        except (ValueError, TypeError) as error:
            raise ChangedRecordError(f"no checks of shard {self.shard}: {error}") from error


def seal(values: Iterable[Any]) -> int:
    """Return the checksum of a record's other columns."""
    return crc32c(ascii(tuple(values)).encode())


def look_over(connection: sqlite3.Connection) -> None:
    """Check the whole file, but for the records of shards and rows: who loads those checks them.

    Raises:
        ChangedRecordError: it is not what was written.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise ChangedRecordError(repr(found))
    for generation in all_generations(connection):
        find_failures(connection, generation.id)
    find_descriptions(connection)


def unseal(what: str, record: Sequence[Any]) -> Sequence[Any]:
    """Return a record without its seal, which comes last; raise ChangedRecordError."""
    if record[-1] != seal(record[:-1]):
        raise ChangedRecordError(f"a changed {what}")
    return record[:-1]


# ---- generations


def all_generations(connection: sqlite3.Connection) -> list[GenerationRecord]:
    """Return all generations, by stage and age."""
    query = "SELECT * FROM generations ORDER BY stage, created, key"
    return [_as_generation(record) for record in connection.execute(query)]


def find_generation(connection: sqlite3.Connection, stage: str, key: str) -> GenerationRecord:
    """Return one generation; raise LookupError where it is unknown."""
    query = "SELECT * FROM generations WHERE stage = ? AND key = ?"
    record = connection.execute(query, (stage, key)).fetchone()
    if record is None:
        raise LookupError(
            f"got stage {stage!r} with key {key}, which the manifest does not know; open the "
            "store for writing once to take it in"
        )
    return _as_generation(record)


def insert_generation(
    connection: sqlite3.Connection, stage: str, key: str, path: str, created: str, document: bytes
) -> None:
    """Record a new generation and its stage.json; what is there already stays as it is."""
    query = "SELECT COALESCE(MAX(id), 0) + 1 FROM generations"
    (number,) = connection.execute(query).fetchone()
    record = GenerationRecord(number, stage, key, path, created, 0, None)
    connection.execute(
        "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*record, seal(record)),
    )
    description = (find_generation(connection, stage, key).id, document)
    connection.execute(
        "INSERT OR IGNORE INTO descriptions VALUES (?, ?, ?)", (*description, seal(description))
    )


def find_descriptions(connection: sqlite3.Connection) -> list[tuple[str, str, bytes]]:
    """Return stage, key and the text of stage.json of each generation, by stage and age."""
    found = connection.execute("SELECT * FROM descriptions")
    texts = {generation: text for generation, text in (unseal("description", r) for r in found)}
    return [
        (generation.stage, generation.key, texts[generation.id])
        for generation in all_generations(connection)
        if generation.id in texts
    ]


def update_generation(connection: sqlite3.Connection, record: GenerationRecord) -> None:
    """Record what may change about a generation: `next_shard` and `csv_crc`."""
    connection.execute(
        "UPDATE generations SET next_shard = ?, csv_crc = ?, seal = ? WHERE id = ?",
        (record.next_shard, record.csv_crc, seal(record), record.id),
    )


def _as_generation(record: Sequence[Any]) -> GenerationRecord:
    found = GenerationRecord(*unseal("generation", record))
    if type(found.next_shard) is not int or not 0 <= found.next_shard <= MAX_SHARDS:
        raise ChangedRecordError(f"shard number {found.next_shard!r}")
    return found


# ---- shards and rows


def find_shards(connection: sqlite3.Connection, generation: int) -> dict[int, ShardRecord]:
    """Return the committed shards of a generation by number."""
    found = connection.execute("SELECT * FROM shards WHERE generation = ?", (generation,))
    records = (ShardRecord(*unseal("shard", record)) for record in found)
    return {record.shard: record for record in records}


def insert_shard(connection: sqlite3.Connection, generation: int, receipt: Receipt) -> None:
    """Record a shard and its rows; what is there already stays.

    Raises:
        ValueError: the shard is there already, and made of other files.
        ChangedRecordError: a row is there already, and the shard that it lies in is not.
    """
    rows = _new_rows(connection, generation, receipt)  # first, for it asks for shards
    checks = json.dumps(dict(receipt.checks))
    record = ShardRecord(generation, receipt.shard, receipt.nbytes, checks, 0, 0)
    connection.execute(
        "INSERT OR IGNORE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?)", (*record, seal(record))
    )
    if _find_shard(connection, generation, receipt.shard).checks_by_part() != dict(receipt.checks):
        raise ValueError(f"got a receipt for another shard {receipt.shard} than there is; drop it")
    marks = ", ".join("?" * (6 + len(fields(RowInfo))))
    connection.executemany(f"INSERT INTO rows VALUES ({marks})", rows)
    _count(connection, generation, receipt.shard, len(rows), sum(row[4] for row in rows))


def _new_rows(
    connection: sqlite3.Connection, generation: int, receipt: Receipt
) -> list[tuple[Any, ...]]:
    """Return the records of those rows of a receipt that are not there yet."""
    packed = pack_keys(key for key, _ in receipt.slots.values())
    keys = [packed[start : start + _KEY_NBYTES] for start in range(0, len(packed), _KEY_NBYTES)]
    held: dict[bytes, int] = {}
    for start in range(0, len(keys), _MAX_KEYS):
        some = keys[start : start + _MAX_KEYS]
        marks = ", ".join("?" * len(some))
        query = f"SELECT row_key, shard FROM rows WHERE generation = ? AND row_key IN ({marks})"
        held.update(connection.execute(query, (generation, *some)).fetchall())
    for shard in set(held.values()):
        _find_shard(connection, generation, shard)
    rows = []
    for row_key, (slot, (_, info)) in zip(keys, receipt.slots.items(), strict=True):
        if row_key not in held:
            held[row_key] = receipt.shard
            names = (generation, row_key, receipt.shard, slot)
            values = (*names, crc32c(PLACE.pack(*names)), *info.to_json())
            rows.append((*values, seal(values)))
    return rows


def delete_rows(connection: sqlite3.Connection, generation: int, row_keys: Iterable[bytes]) -> None:
    """Take rows out; unknown keys are fine."""
    delete = "DELETE FROM rows WHERE generation = ? AND row_key = ? RETURNING shard, place"
    gone: dict[int, list[int]] = defaultdict(list)
    for row_key in row_keys:
        for shard, place in connection.execute(delete, (generation, row_key)).fetchall():
            gone[shard].append(place)
    for shard, places in gone.items():
        _count(connection, generation, shard, -len(places), -sum(places))


def _find_shard(connection: sqlite3.Connection, generation: int, shard: int) -> ShardRecord:
    query = "SELECT * FROM shards WHERE generation = ? AND shard = ?"
    record = connection.execute(query, (generation, shard)).fetchone()
    if record is None:
        raise ChangedRecordError(f"rows of shard {shard}, which is not there,")
    return ShardRecord(*unseal("shard", record))


def _count(
    connection: sqlite3.Connection, generation: int, shard: int, count: int, place_sum: int
) -> None:
    """Add to the totals of a shard."""
    record = _find_shard(connection, generation, shard)
    record = record._replace(
        row_count=record.row_count + count, place_sum=record.place_sum + place_sum
    )
    connection.execute(
        "UPDATE shards SET row_count = ?, place_sum = ?, seal = ? "
        "WHERE generation = ? AND shard = ?",
        (record.row_count, record.place_sum, seal(record), generation, shard),
    )


# ---- failures


def find_failures(connection: sqlite3.Connection, generation: int) -> list[Failure]:
    """Return the failures of a generation by row key."""
    query = "SELECT * FROM failures WHERE generation = ? ORDER BY row_key"
    found = connection.execute(query, (generation,))
    records = (unseal("failure", record) for record in found)
    return [Failure(row_key.hex(), *values) for _, row_key, *values in records]


def has_failures(connection: sqlite3.Connection, generation: int) -> bool:
    """Return whether a generation has any failures."""
    query = "SELECT 1 FROM failures WHERE generation = ? LIMIT 1"
    return connection.execute(query, (generation,)).fetchone() is not None


def insert_failure(connection: sqlite3.Connection, generation: int, failure: Failure) -> None:
    """Record a failure in place of an earlier one of the same row."""
    values = (generation, pack_keys([failure.row_key]), *astuple(failure)[1:])
    connection.execute(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, seal(values))
    )
