"""The manifest: one SQLite file per store that says which rows exist.

It is an index over the shards and can be rebuilt from them; what only it knows are the recorded
failures, and which shard numbers were handed out and never used. One process writes
(`ManifestWriter`, guarded by the store's lock), any number read (`Manifest`). Every read opens
its own short connection, so a reader may be forked or pickled at any time.

SQLite must lie on a local disk: its locks do not hold on network file systems.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crc32c import crc32c

from stores.base import GenerationInfo
from stores.manifest_db import (
    INFO_COLUMNS,
    DamagedManifestError,
    advice,
    connect_for_reading,
    generation_id,
    is_damage,
    seal,
)
from stores.records import Failure, RowInfo
from stores.row_index import RowIndex, pack_keys


@dataclass(frozen=True)
class StoredRow:
    """One row as the manifest names it."""

    row_key: str
    shard: int
    slot: int
    info: RowInfo


class Manifest:
    """Questions to the manifest of a store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, stage: str, key: str, per_shard: int) -> tuple[RowIndex, dict[int, Any]]:
        """Return all rows of a generation, and shard number → checks of its files.

        Raises:
            DamagedManifestError: a row is not as it was committed.
        """
        with self._reading() as connection:
            connection.execute("BEGIN")  # one snapshot for both questions
            generation = generation_id(connection, stage, key)
            shards = {
                shard: json.loads(checks)
                for shard, checks in connection.execute(
                    "SELECT shard, checks FROM shards WHERE generation = ?", (generation,)
                )
            }
            rows = connection.execute(
                "SELECT row_key, shard, slot, seal FROM rows WHERE generation = ?", (generation,)
            ).fetchall()
        if any(mark != seal(row_key, shard, slot) for row_key, shard, slot, mark in rows):
            raise DamagedManifestError(f"got a changed row of {stage!r} in {advice(self.path)}")
        numbers = [shard * per_shard + slot for _, shard, slot, _ in rows]
        return RowIndex(b"".join(row_key for row_key, *_ in rows), numbers), shards

    def rows(self, stage: str, key: str) -> list[StoredRow]:
        """Return the rows of a generation in the order of their row numbers."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT row_key, shard, slot, {INFO_COLUMNS} FROM rows WHERE generation = ? "
                "ORDER BY shard, slot",
                (generation_id(connection, stage, key),),
            )
            return [
                StoredRow(row_key.hex(), shard, slot, RowInfo(*info))
                for row_key, shard, slot, *info in rows
            ]

    def infos(self, stage: str, key: str, row_keys: Iterable[str]) -> list[RowInfo]:
        """Return what rows are about, in the order of the keys; rows that are gone have none."""
        query = f"SELECT {INFO_COLUMNS} FROM rows WHERE generation = ? AND row_key = ?"
        with self._reading() as connection:
            generation = generation_id(connection, stage, key)
            found = [
                connection.execute(query, (generation, pack_keys([row_key]))).fetchone()
                for row_key in row_keys
            ]
        return [RowInfo(*row) for row in found if row]

    def failures(self, stage: str, key: str) -> list[Failure]:
        """Return the failures of a generation by row key."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT row_key, clip_id, video_id, error_class, message, frame FROM failures "
                "WHERE generation = ? ORDER BY row_key",
                (generation_id(connection, stage, key),),
            )
            return [Failure(row_key.hex(), *values) for row_key, *values in rows]

    def generations(self, root: Path) -> list[GenerationInfo]:
        """Return what the manifest knows, by stage and age."""
        query = """
            SELECT stage, key, path,
                (SELECT COUNT(*) FROM rows WHERE generation = id),
                (SELECT COUNT(*) FROM failures WHERE generation = id),
                (SELECT COALESCE(SUM(nbytes), 0) FROM shards WHERE generation = id), created
            FROM generations ORDER BY stage, created, key"""
        with self._reading() as connection:
            return [
                GenerationInfo(stage, key, root / path, *values)
                for stage, key, path, *values in connection.execute(query)
            ]

    def empty_shards(self, stage: str, key: str) -> list[int]:
        """Return the shards of a generation that hold no row any more."""
        query = (
            "SELECT shard FROM shards WHERE generation = ?1 AND shard NOT IN "
            "(SELECT shard FROM rows WHERE generation = ?1)"
        )
        with self._reading() as connection:
            found = connection.execute(query, (generation_id(connection, stage, key),))
            return [shard for (shard,) in found]

    def descriptions(self) -> list[tuple[str, str, bytes]]:
        """Return stage, key and the text of stage.json of each generation.

        Raises:
            DamagedManifestError: a text is not what was written.
        """
        query = """
            SELECT stage, key, document, crc FROM descriptions
            JOIN generations ON id = generation ORDER BY stage, created, key"""
        with self._reading() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            found = connection.execute(query).fetchall() if ("descriptions",) in tables else []
        if not all(isinstance(text, bytes) and crc32c(text) == crc for *_, text, crc in found):
            raise DamagedManifestError(f"got a changed description in {advice(self.path)}")
        return [(stage, key, document) for stage, key, document, _ in found]

    def check(self) -> None:
        """Look the whole file over.

        Raises:
            DamagedManifestError: it is not what was written.
            FileNotFoundError: there is none.
        """
        with self._reading() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise DamagedManifestError(f"got {found!r} in {advice(self.path)}")

    def is_exported(self, stage: str, key: str) -> bool:
        """Return whether rows.csv was written after the last commit."""
        with self._reading() as connection:
            query = "SELECT exported FROM generations WHERE id = ?"
            row = connection.execute(query, (generation_id(connection, stage, key),)).fetchone()
            return bool(row[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = connect_for_reading(self.path)
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise DamagedManifestError(f"got {error} in {advice(self.path)}") from error
            raise
        finally:
            connection.close()
