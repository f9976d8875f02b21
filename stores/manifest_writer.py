"""The one process that changes the manifest: every change is one synced transaction."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from crc32c import crc32c

from stores.manifest import Manifest
from stores.manifest_db import (
    DESCRIPTIONS,
    SCHEMA,
    SCHEMA_VERSION,
    DamagedManifestError,
    ManifestError,
    generation_id,
    insert_shard,
    is_damage,
    mark_exported,
)
from stores.records import Failure, Receipt
from stores.row_index import pack_keys


class ManifestWriter(Manifest):
    """The one writer. Creates the manifest where there is none.

    Raises:
        DamagedManifestError: the file is damaged.
        ManifestError: it is of another version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if is_damage(error):
                raise DamagedManifestError(f"got {error} in {path}") from error
            raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        check = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise DamagedManifestError(f"got {check!r} in {self.path}")
        with self.transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise ManifestError(f"got manifest version {version}, expected {SCHEMA_VERSION}")
            connection.execute(DESCRIPTIONS)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside one transaction; all of it happens, or nothing.

        Raises:
            RuntimeError: called in a process forked from the one that opened the store.
        """
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"got a commit in process {os.getpid()}, expected it in {self._pid}, which opened "
                "the store; send receipts there"
            )
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def register(self, stage: str, key: str, path: str, created: str, document: bytes) -> None:
        """Make a generation known.

        Args:
            path: relative to the root.
            document: its stage.json; of one that is known, the first stays.
        """
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO generations (stage, key, path, created, next_shard, exported) "
                "VALUES (?, ?, ?, ?, 0, 0) ON CONFLICT DO NOTHING",
                (stage, key, path, created),
            )
            connection.execute(
                "INSERT OR IGNORE INTO descriptions VALUES (?, ?, ?)",
                (generation_id(connection, stage, key), document, crc32c(document)),
            )

    def unregister(self, stage: str, key: str) -> None:
        """Drop a generation whose folder is gone, with everything known about it."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM generations WHERE stage = ? AND key = ?", (stage, key))

    def reserve(self, stage: str, key: str, count: int, *, at_least: int = 0) -> int:
        """Set `count` shard numbers aside, from `at_least` on; return the first of them."""
        with self.transaction() as connection:
            (first,) = connection.execute(
                "UPDATE generations SET next_shard = MAX(next_shard, ?) + ? WHERE id = ? "
                "RETURNING next_shard",
                (at_least, count, generation_id(connection, stage, key)),
            ).fetchone()
            return int(first) - count

    def commit(
        self, stage: str, key: str, receipts: Sequence[Receipt], failures: Sequence[Failure]
    ) -> None:
        """Record shards, rows and failures; what is there already stays.

        Raises:
            ValueError: a receipt for a shard that was never reserved.
        """
        with self.transaction() as connection:
            generation = generation_id(connection, stage, key)
            (limit,) = connection.execute(
                "SELECT next_shard FROM generations WHERE id = ?", (generation,)
            ).fetchone()
            for receipt in receipts:
                if not 0 <= receipt.shard < limit:
                    raise ValueError(
                        f"got a receipt for shard {receipt.shard} of stage {stage!r}, expected "
                        f"one of the {limit} reserved shards"
                    )
                insert_shard(connection, generation, receipt)
            for failure in failures:
                values = (generation, pack_keys([failure.row_key]), *astuple(failure)[1:])
                connection.execute(
                    "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)", values
                )
            connection.execute(
                "DELETE FROM failures WHERE generation = ? AND EXISTS (SELECT 1 FROM rows WHERE "
                "rows.generation = failures.generation AND rows.row_key = failures.row_key)",
                (generation,),
            )
            mark_exported(connection, generation, False)

    def delete(self, table: str, stage: str, key: str, row_keys: Iterable[str]) -> None:
        """Delete from `rows` or `failures` by row key."""
        with self.transaction() as connection:
            generation = generation_id(connection, stage, key)
            connection.executemany(
                f"DELETE FROM {table} WHERE generation = ? AND row_key = ?",
                [(generation, pack_keys([row_key])) for row_key in row_keys],
            )
            mark_exported(connection, generation, False)

    def drop(self, stage: str, key: str, row_keys: Iterable[str], shards: Iterable[int]) -> None:
        """Delete rows, and shards with every row that is left in them."""
        with self.transaction() as connection:
            generation = generation_id(connection, stage, key)
            connection.executemany(
                "DELETE FROM rows WHERE generation = ? AND row_key = ?",
                [(generation, pack_keys([row_key])) for row_key in row_keys],
            )
            for shard in shards:
                for table in ("rows", "shards"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE generation = ? AND shard = ?",
                        (generation, shard),
                    )
            mark_exported(connection, generation, False)

    def mark_exported(self, stage: str, key: str) -> None:
        """Note that rows.csv is up to date."""
        with self.transaction() as connection:
            mark_exported(connection, generation_id(connection, stage, key), True)

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it; safe to call twice."""
        if os.getpid() == self._pid:
            self._connection.close()
