"""The manifest as an SQLite file: its tables, and how it is opened and found to be damaged.

SQLite keeps no checksums of its own, so every record carries one, its `seal`. A shard also knows
how many rows it has here and the sum of their places, so that a row cannot vanish unnoticed.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stores.descriptors import check_descriptors

MANIFEST_FILE = "manifest.sqlite"
SIDE_SUFFIXES = ("-wal", "-shm")
SCHEMA_VERSION = 2

SCHEMA = (
    """CREATE TABLE generations (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL,
    created TEXT NOT NULL, next_shard INTEGER NOT NULL, csv_crc INTEGER,
    seal INTEGER NOT NULL,
    UNIQUE (stage, key))""",
    """CREATE TABLE shards (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    shard INTEGER NOT NULL, nbytes INTEGER NOT NULL, checks TEXT NOT NULL,
    row_count INTEGER NOT NULL, place_sum INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (generation, shard)) WITHOUT ROWID""",
    """CREATE TABLE rows (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    row_key BLOB NOT NULL, shard INTEGER NOT NULL, slot INTEGER NOT NULL, place INTEGER NOT NULL,
    clip_id TEXT NOT NULL, video_id TEXT NOT NULL, segment_id TEXT NOT NULL,
    view INTEGER NOT NULL, first_seconds REAL NOT NULL, last_seconds REAL NOT NULL,
    flags TEXT NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (generation, row_key)) WITHOUT ROWID""",
    """CREATE TABLE failures (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    row_key BLOB NOT NULL, clip_id TEXT NOT NULL, video_id TEXT NOT NULL,
    error_class TEXT NOT NULL, message TEXT NOT NULL, frame INTEGER, seal INTEGER NOT NULL,
    PRIMARY KEY (generation, row_key)) WITHOUT ROWID""",
    # Copies of each stage.json.
    """CREATE TABLE descriptions (
    generation INTEGER PRIMARY KEY REFERENCES generations ON DELETE CASCADE,
    document BLOB NOT NULL, seal INTEGER NOT NULL)""",
)

_MAX_RECORD_NBYTES = 2**24  # of what one query may hand out; real records have some hundred
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMSIZE: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_DESCRIPTORS = 3  # of a database with its log
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class ManifestError(RuntimeError):
    """The manifest cannot be used."""


class DamagedManifestError(ManifestError):
    """The manifest is not what was written; it can be rebuilt from the shards."""


class ChangedRecordError(Exception):
    """A record does not match its seal; says which, `naming_damage` adds of which file."""


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open the manifest to read, also where the folder cannot be written.

    Raises:
        FileNotFoundError: there is no manifest.
        DamagedManifestError: it is damaged, or no manifest at all.
        ManifestError: it cannot be read as it stands, or is of another version.
    """
    if not is_file(path):
        raise FileNotFoundError(
            f"got no {path}, expected the manifest; open the store for writing once to rebuild it"
        )
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        return _connect(address, path)
    except (sqlite3.DatabaseError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if not full and not is_no_access(error):
            raise
        # A log needs a companion file, which cannot be made here. Without a log the file alone
        # is the whole truth, and nobody can be changing it.
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            if full:
                raise
            raise ManifestError(
                f"got {path} with commits in {log.name} that cannot be read in a folder without "
                "write access; open the store for writing once where it can be written"
            ) from error
        return _connect(f"{address}&immutable=1", path)


def _connect(address: str, path: Path) -> sqlite3.Connection:
    with naming_damage(path):
        connection = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)
        try:
            distrust(connection)
            version = read_version(connection)
            if version != SCHEMA_VERSION:
                raise ManifestError(
                    f"got version {version}, expected {SCHEMA_VERSION}, in {advice(path)}"
                )
            check_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def is_file(path: Path) -> bool:
    """Return whether there is a manifest.

    Raises:
        ManifestError: it, or a file that SQLite keeps beside it, is a folder, a link or a device.
    """
    there = False
    for name in (*(f"{path}{suffix}" for suffix in SIDE_SUFFIXES), str(path)):
        try:
            there = stat.S_ISREG(os.lstat(name).st_mode)
        except FileNotFoundError:
            there = False
        else:
            if not there:
                raise ManifestError(f"got no plain file, expected one, at {advice(Path(name))}")
    return there


def distrust(connection: sqlite3.Connection) -> None:
    """Make a connection fit for a file that somebody may have tampered with."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_RECORD_NBYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema, 0 for a new file."""
    return int(_look(connection, "PRAGMA user_version")[0][0])


def check_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the tables are there; they must be exactly ours: no view, no trigger.

    Raises:
        ChangedRecordError: they are other ones.
    """
    found = _look(connection, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    if found and {sql for (sql,) in found} != set(SCHEMA):
        raise ChangedRecordError("other tables than those of a manifest")
    return bool(found)


def _look(connection: sqlite3.Connection, query: str) -> list[Any]:
    """Ask what any SQLite file can answer."""
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if _primary_code(error) == sqlite3.SQLITE_ERROR:  # "unsupported file format"
            raise ChangedRecordError(error) from error
        raise


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what says that the file itself is damaged into DamagedManifestError.

    Raises:
        OSError: as well for a full or failing disk, and where too many files are open.
    """
    try:
        yield
    except (ChangedRecordError, UnicodeDecodeError) as error:  # the latter of quoted names
        raise DamagedManifestError(f"got {error} in {advice(path)}") from error
    except sqlite3.DatabaseError as error:
        # Text that is no UTF-8 is found by Python's module, which gives no code.
        undecodable = type(error) is sqlite3.OperationalError and _primary_code(error) < 0
        if undecodable or _primary_code(error) in _DAMAGE:
            raise DamagedManifestError(f"got {error} in {advice(path)}") from error
        code = _DISK_ERRORS.get(_code(error), _DISK_ERRORS.get(_primary_code(error)))
        if code is not None:
            message = (
                f"{os.strerror(code)} (SQLite says: {error}); see to the disk, then open the store "
                "for writing again, which takes in what is complete"
            )
            raise OSError(code, message, str(path)) from error
        if is_no_access(error):
            check_descriptors(_DESCRIPTORS, path)
        raise


def is_no_access(error: BaseException) -> bool:
    """Return whether SQLite says that the file may not be opened, or not be written to."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _NO_ACCESS


def advice(path: Path) -> str:
    """Return the end of a message about a damaged manifest."""
    return f"{path}; delete that file and open the store for writing: it is rebuilt from the shards"


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code


def _primary_code(error: sqlite3.Error) -> int:
    code = _code(error)
    return code if code < 0 else code & 0xFF
