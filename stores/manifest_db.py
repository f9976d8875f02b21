"""The manifest as an SQLite file: its tables, and how it is opened and found to be damaged."""

import json
import sqlite3
import struct
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

from crc32c import crc32c

from stores.records import Receipt, RowInfo
from stores.row_index import pack_keys

MANIFEST_FILE = "manifest.sqlite"
SIDE_SUFFIXES = ("-wal", "-shm")
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE generations (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL,
    created TEXT NOT NULL, next_shard INTEGER NOT NULL, exported INTEGER NOT NULL,
    UNIQUE (stage, key));
CREATE TABLE shards (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    shard INTEGER NOT NULL, nbytes INTEGER NOT NULL, checks TEXT NOT NULL,
    PRIMARY KEY (generation, shard)) WITHOUT ROWID;
CREATE TABLE rows (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    row_key BLOB NOT NULL, shard INTEGER NOT NULL, slot INTEGER NOT NULL, seal INTEGER NOT NULL,
    clip_id TEXT NOT NULL, video_id TEXT NOT NULL, segment_id TEXT NOT NULL,
    view INTEGER NOT NULL, first_seconds REAL NOT NULL, last_seconds REAL NOT NULL,
    flags TEXT NOT NULL,
    PRIMARY KEY (generation, row_key)) WITHOUT ROWID;
CREATE TABLE failures (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    row_key BLOB NOT NULL, clip_id TEXT NOT NULL, video_id TEXT NOT NULL,
    error_class TEXT NOT NULL, message TEXT NOT NULL, frame INTEGER,
    PRIMARY KEY (generation, row_key)) WITHOUT ROWID;
"""
# Copies of each stage.json. A table that older manifests lack, so it is made when it is not there.
DESCRIPTIONS = """
CREATE TABLE IF NOT EXISTS descriptions (
    generation INTEGER PRIMARY KEY REFERENCES generations ON DELETE CASCADE,
    document BLOB NOT NULL, crc INTEGER NOT NULL)
"""
INFO_COLUMNS = ", ".join(field.name for field in fields(RowInfo))

_SEAL = struct.Struct("<32sqq")
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class ManifestError(RuntimeError):
    """The manifest cannot be used."""


class DamagedManifestError(ManifestError):
    """The manifest is not what was written; it can be rebuilt from the shards."""


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open the manifest to read, also where the folder cannot be written.

    Raises:
        FileNotFoundError: there is no manifest.
        ManifestError: it cannot be read as it stands, or is of another version.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"got no {path}, expected the manifest; open the store for writing once to rebuild it"
        )
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)
    try:
        version = _version(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_damage(error):
            raise DamagedManifestError(f"got {error} in {advice(path)}") from error
        if _primary_code(error) not in _NO_ACCESS:
            raise
        # A log needs a companion file, which cannot be made here. Without a log the file alone
        # is the whole truth, and nobody can be changing it.
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise ManifestError(
                f"got {path} with commits in {log.name} that cannot be read in a folder without "
                "write access; open the store for writing once where it can be written"
            ) from error
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
        version = _version(connection)
    if version != SCHEMA_VERSION:
        connection.close()
        raise ManifestError(f"got version {version}, expected {SCHEMA_VERSION}, in {advice(path)}")
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether `error` says that the file itself is damaged."""
    return _primary_code(error) in _DAMAGE


def advice(path: Path) -> str:
    """Return the end of a message about a damaged manifest."""
    return f"{path}; delete that file and open the store for writing: it is rebuilt from the shards"


def seal(row_key: bytes, shard: int, slot: int) -> int:
    """Return a checksum over what decides which bytes a row key leads to."""
    return crc32c(_SEAL.pack(row_key, shard, slot))


def generation_id(connection: sqlite3.Connection, stage: str, key: str) -> int:
    """Return the number of a generation; raise LookupError where it is unknown."""
    query = "SELECT id FROM generations WHERE stage = ? AND key = ?"
    row = connection.execute(query, (stage, key)).fetchone()
    if row is None:
        raise LookupError(
            f"got stage {stage!r} with key {key}, which the manifest does not know; open the "
            "store for writing once to take it in"
        )
    return int(row[0])


def insert_shard(connection: sqlite3.Connection, generation: int, receipt: Receipt) -> None:
    """Record a shard and its rows; what is there already stays."""
    connection.execute(
        "INSERT OR IGNORE INTO shards VALUES (?, ?, ?, ?)",
        (generation, receipt.shard, receipt.nbytes, json.dumps(dict(receipt.checks))),
    )
    rows = []
    packed = pack_keys(key for key, _ in receipt.slots.values())
    for number, (slot, (_, info)) in enumerate(receipt.slots.items()):
        place = (packed[32 * number : 32 * number + 32], receipt.shard, slot)
        rows.append((generation, *place, seal(*place), *info.to_json()))
    marks = ", ".join("?" * (5 + len(fields(RowInfo))))
    connection.executemany(f"INSERT OR IGNORE INTO rows VALUES ({marks})", rows)


def mark_exported(connection: sqlite3.Connection, generation: int, exported: bool) -> None:
    """Note whether rows.csv shows what the manifest says."""
    connection.execute("UPDATE generations SET exported = ? WHERE id = ?", (exported, generation))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _primary_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF
