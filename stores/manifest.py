"""The manifest: one SQLite file per store that says which rows exist.

It is an index over the shards and can be rebuilt from them. What only it knows is lost then:
the recorded failures, whose rows are tried again, and which shard numbers were handed out and
never used. One process writes (`ManifestWriter`, guarded by the store's lock), any number read
(`Manifest`). Every read opens its own short connection, so a reader may be forked or pickled at
any time.

SQLite must lie on a local disk: its locks do not hold on network file systems.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stores.base import GenerationInfo
from stores.layout import generation_folder
from stores.manifest_db import ChangedRecordError, connect_for_reading, naming_damage
from stores.manifest_index import load_index
from stores.manifest_records import (
    GenerationRecord,
    all_generations,
    find_descriptions,
    find_failures,
    find_generation,
    find_shards,
    look_over,
    unseal,
)
from stores.records import Failure, RowInfo
from stores.row_index import RowIndex
from stores.row_keys import pack_keys


@dataclass(frozen=True)
class StoredRow:
    """One row as the manifest names it."""

    row_key: str
    shard: int
    slot: int
    info: RowInfo


class LoadedRows(NamedTuple):
    """What a generation holds.

    Attributes:
        rows: row key → row number.
        checks: shard number → checks of its files.
        is_saved: whether index.bin says the same as `rows`.
    """

    rows: RowIndex
    checks: dict[int, dict[str, int]]
    is_saved: bool


class Manifest:
    """Questions to the manifest of a store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, stage: str, key: str, per_shard: int, *, from_file: bool = True) -> LoadedRows:
        """Return all rows of a generation and its shards.

        Args:
            from_file: believe index.bin where the records of shards agree; else read all records.

        Raises:
            DamagedManifestError: a record is not as it was committed.
        """
        folder = generation_folder(self.path.parent, stage, key) if from_file else None
        with self._reading() as connection:
            connection.execute("BEGIN")  # one snapshot for all questions
            generation = find_generation(connection, stage, key)
            shards = find_shards(connection, generation.id)
            if max(shards, default=-1) >= generation.next_shard or min(shards, default=0) < 0:
                raise ChangedRecordError(f"a shard of {stage!r} that was never reserved")
            try:
                index, is_saved = load_index(connection, generation.id, shards, per_shard, folder)
            except ChangedRecordError as error:
                raise ChangedRecordError(f"{error} of {stage!r}") from error
            checks = {shard: record.checks_by_part() for shard, record in shards.items()}
            return LoadedRows(index, checks, is_saved)

    def rows(self, stage: str, key: str, *, lenient: bool = False) -> list[StoredRow]:
        """Return the rows of a generation in the order of their row numbers.

        Args:
            lenient: for a row that is not as it was committed, say only where it is.

        Raises:
            DamagedManifestError: there is such a row, and `lenient` is not set.
        """
        query = "SELECT * FROM rows WHERE generation = ? ORDER BY shard, slot"
        with self._reading() as connection:
            if lenient:
                connection.text_factory = lambda text: text.decode("utf-8", "replace")
            generation = find_generation(connection, stage, key)
            rows = connection.execute(query, (generation.id,))
            return [_as_row(record, lenient) for record in rows]

    def records(self, stage: str, key: str) -> Iterator[Sequence[Any]]:
        """Yield row key, shard, slot and the fields of `RowInfo`, in the order of row numbers.

        Raises:
            DamagedManifestError: a row is not as it was committed.
        """
        query = "SELECT * FROM rows WHERE generation = ? ORDER BY shard, slot"
        with self._reading() as connection:
            generation = find_generation(connection, stage, key)
            for record in connection.execute(query, (generation.id,)):
                _, row_key, shard, slot, _, *info = unseal("row", record)
                yield (row_key, shard, slot, *info)

    def infos(self, stage: str, key: str, row_keys: Iterable[str]) -> list[RowInfo]:
        """Return what rows are about, in the order of the keys; rows that are gone have none."""
        query = "SELECT * FROM rows WHERE generation = ? AND row_key = ?"
        with self._reading() as connection:
            generation = find_generation(connection, stage, key)
            found = [
                connection.execute(query, (generation.id, pack_keys([row_key]))).fetchone()
                for row_key in row_keys
            ]
            return [_as_row(record).info for record in found if record]

    def failures(self, stage: str, key: str) -> list[Failure]:
        """Return the failures of a generation by row key."""
        with self._reading() as connection:
            return find_failures(connection, find_generation(connection, stage, key).id)

    def generations(self, root: Path) -> list[GenerationInfo]:
        """Return what the manifest knows, by stage and age."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            return [_as_info(connection, root, record) for record in all_generations(connection)]

    def empty_shards(self, stage: str, key: str) -> list[int]:
        """Return the shards of a generation that hold no row any more."""
        with self._reading() as connection:
            generation = find_generation(connection, stage, key)
            shards = find_shards(connection, generation.id)
            return [shard for shard, record in shards.items() if not record.row_count]

    def descriptions(self) -> list[tuple[str, str, bytes]]:
        """Return stage, key and the text of stage.json of each generation.

        Raises:
            DamagedManifestError: a text is not what was written.
        """
        with self._reading() as connection:
            return find_descriptions(connection)

    def next_shard(self, stage: str, key: str) -> int:
        """Return the first shard number that was never handed out."""
        with self._reading() as connection:
            return find_generation(connection, stage, key).next_shard

    def check(self) -> None:
        """Look the whole file over.

        Raises:
            DamagedManifestError: it is not what was written.
            FileNotFoundError: there is none.
        """
        with self._reading() as connection:
            look_over(connection)

    def csv_crc(self, stage: str, key: str) -> int | None:
        """Return the crc32c of rows.csv; None where it was not written since the last commit."""
        with self._reading() as connection:
            return find_generation(connection, stage, key).csv_crc

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = connect_for_reading(self.path)
        try:
            with naming_damage(self.path):
                yield connection
        finally:
            connection.close()


def _as_row(record: tuple[Any, ...], lenient: bool = False) -> StoredRow:
    try:
        _, row_key, shard, slot, _, *info = unseal("row", record)
        return StoredRow(row_key.hex(), shard, slot, RowInfo(*info))
    except ChangedRecordError:
        if not lenient:
            raise
    _, row_key, shard, slot, *_ = record
    return StoredRow(row_key.hex(), shard, slot, RowInfo(f"row {row_key.hex()}"))


def _as_info(
    connection: sqlite3.Connection, root: Path, record: GenerationRecord
) -> GenerationInfo:
    folder = generation_folder(root, record.stage, record.key)
    if str(folder.relative_to(root)) != record.path:
        raise ChangedRecordError(f"folder {record.path!r} of stage {record.stage!r}")
    shards = find_shards(connection, record.id).values()
    query = "SELECT COUNT(*) FROM failures WHERE generation = ?"
    (failures,) = connection.execute(query, (record.id,)).fetchone()
    return GenerationInfo(
        *(record.stage, record.key, folder),
        rows=sum(shard.row_count for shard in shards),
        failures=failures,
        nbytes=sum(shard.nbytes for shard in shards),
        created=record.created,
    )
