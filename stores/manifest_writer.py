"""The one process that changes the manifest: every change is one synced transaction."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stores.errors import StorageUnavailableError
from stores.manifest import LoadedRows, Manifest
from stores.manifest_db import (
    SCHEMA,
    SCHEMA_VERSION,
    ChangedRecordError,
    ManifestError,
    advice,
    check_tables,
    distrust,
    is_file,
    is_no_access,
    naming_damage,
    read_version,
)
from stores.manifest_records import (
    MAX_SHARDS,
    delete_rows,
    find_generation,
    has_failures,
    insert_failure,
    insert_generation,
    insert_shard,
    look_over,
    update_generation,
)
from stores.records import Failure, Receipt
from stores.row_keys import pack_keys

_CACHE_KIB = 64 * 2**10
_LOG_PAGES = 2**14  # of 4 KiB


class ManifestWriter(Manifest):
    """The one writer. Creates the manifest where there is none.

    Raises:
        DamagedManifestError: the file is damaged.
        ManifestError: it is of another version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._found: dict[tuple[str, str], LoadedRows] = {}
        is_file(path)
        self._connect()

    def _connect(self) -> None:
        self._is_lost = False
        with naming_damage(self.path):
            self._connection = sqlite3.connect(
                self.path, timeout=30, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._is_lost = True
            self._connection.close()
            raise

    def reconnect_later(self) -> None:
        """Open the file anew before the next transaction: its storage was gone for a while."""
        self._is_lost = True

    def _reconnect(self) -> None:
        if not is_file(self.path):
            raise StorageUnavailableError(
                errno.ENOENT, "got no manifest, expected the one that was open", str(self.path)
            )
        with suppress(sqlite3.Error):
            self._connection.close()
        self._found.clear()
        self._connect()

    def _prepare(self) -> None:
        with naming_damage(self.path):
            distrust(self._connection)
            version = read_version(self._connection)
            if version > SCHEMA_VERSION:
                raise ManifestError(
                    f"got manifest version {version}, expected {SCHEMA_VERSION}; update symbio, or "
                    f"if no newer one ever wrote to this store, it is damaged: {advice(self.path)}"
                )
            filled = check_tables(self._connection)
            if filled and version < SCHEMA_VERSION:
                raise ChangedRecordError(f"version {version}, expected {SCHEMA_VERSION},")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            # Row keys are hashes, so that each row is on another page: keep pages in memory, and
            # write them to their places only after many rows.
            self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            self._connection.execute("PRAGMA foreign_keys = ON")
        with self.transaction() as connection:
            if not filled:
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            look_over(connection)

    def load(self, stage: str, key: str, per_shard: int, *, from_file: bool = True) -> LoadedRows:
        """See `Manifest.load`; what was loaded to be looked at is handed on to who asks next."""
        found = self._found.pop((stage, key), None) if from_file else None
        if found is None:
            found = super().load(stage, key, per_shard, from_file=from_file)
            self._found[stage, key] = found
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside one transaction; all of it happens, or nothing.

        Raises:
            RuntimeError: called in a process forked from the one that opened the store.
            DamagedManifestError: what it met there is not what was written.
            ManifestError: the file may not be written to.
            OSError: the disk is full or fails; nothing was recorded.
        """
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"got a commit in process {os.getpid()}, expected it in {self._pid}, which opened "
                "the store; send receipts there"
            )
        with self._lock, naming_damage(self.path):
            if self._is_lost:
                self._reconnect()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if is_no_access(error):
                    raise ManifestError(
                        f"got {error}, expected to write; see who may write to {advice(self.path)}"
                    ) from error
                raise

    def register(self, stage: str, key: str, path: str, created: str, document: bytes) -> None:
        """Make a generation known.

        Args:
            path: relative to the root.
            document: its stage.json; of one that is known, the first stays.
        """
        with self.transaction() as connection:
            insert_generation(connection, stage, key, path, created, document)

    def unregister(self, stage: str, key: str) -> None:
        """Drop a generation whose folder is gone, with everything known about it."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM generations WHERE stage = ? AND key = ?", (stage, key))
        self._found.pop((stage, key), None)

    def reserve(self, stage: str, key: str, count: int, *, at_least: int = 0) -> int:
        """Set `count` shard numbers aside, from `at_least` on; return the first of them."""
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            first = max(generation.next_shard, at_least)
            if first + count > MAX_SHARDS:
                raise ValueError(f"got {count} shards to reserve, expected at most {MAX_SHARDS:,}")
            update_generation(connection, generation._replace(next_shard=first + count))
            return first

    def commit(
        self, stage: str, key: str, receipts: Sequence[Receipt], failures: Sequence[Failure]
    ) -> None:
        """Record shards, rows and failures; what is there already stays.

        Raises:
            ValueError: a receipt for a shard that was never reserved.
        """
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            for receipt in receipts:
                if not 0 <= receipt.shard < generation.next_shard:
                    raise ValueError(
                        f"got a receipt for shard {receipt.shard} of stage {stage!r}, expected "
                        f"one of the {generation.next_shard} reserved shards"
                    )
                insert_shard(connection, generation.id, receipt)
            for failure in failures:
                insert_failure(connection, generation.id, failure)
            # A row that is stored has not failed; only these may be both.
            touched = [row_key for receipt in receipts for row_key, _ in receipt.slots.values()]
            touched += [failure.row_key for failure in failures]
            if has_failures(connection, generation.id):
                connection.executemany(
                    "DELETE FROM failures WHERE generation = ?1 AND row_key = ?2 AND EXISTS "
                    "(SELECT 1 FROM rows WHERE generation = ?1 AND row_key = ?2)",
                    [(generation.id, pack_keys([row_key])) for row_key in touched],
                )
            update_generation(connection, generation._replace(csv_crc=None))
        self._found.pop((stage, key), None)

    def delete(self, table: str, stage: str, key: str, row_keys: Iterable[str]) -> None:
        """Delete from `rows` or `failures` by row key."""
        packed = [pack_keys([row_key]) for row_key in row_keys]
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            if table == "rows":
                delete_rows(connection, generation.id, packed)
            else:
                query = "DELETE FROM failures WHERE generation = ? AND row_key = ?"
                connection.executemany(query, [(generation.id, row_key) for row_key in packed])
            update_generation(connection, generation._replace(csv_crc=None))
        self._found.pop((stage, key), None)

    def move(self, stage: str, key: str, receipt: Receipt) -> None:
        """Let rows be in another shard from now on; those they were in stay, without them."""
        packed = [pack_keys([row_key]) for row_key, _ in receipt.slots.values()]
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            delete_rows(connection, generation.id, packed)
            insert_shard(connection, generation.id, receipt)
            update_generation(connection, generation._replace(csv_crc=None))
        self._found.pop((stage, key), None)

    def drop(self, stage: str, key: str, row_keys: Iterable[str], shards: Iterable[int]) -> None:
        """Delete rows, and shards with every row that is left in them."""
        packed = [pack_keys([row_key]) for row_key in row_keys]
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            delete_rows(connection, generation.id, packed)
            for shard in shards:
                for table in ("rows", "shards"):
                    query = f"DELETE FROM {table} WHERE generation = ? AND shard = ?"
                    connection.execute(query, (generation.id, shard))
            update_generation(connection, generation._replace(csv_crc=None))
        self._found.pop((stage, key), None)

    def set_csv_crc(self, stage: str, key: str, crc: int) -> None:
        """Note that rows.csv is up to date, and what its crc32c is."""
        with self.transaction() as connection:
            generation = find_generation(connection, stage, key)
            update_generation(connection, generation._replace(csv_crc=crc))

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it; safe to call twice."""
        if os.getpid() == self._pid:
            self._connection.close()
