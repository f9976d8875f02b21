"""Locks that the kernel drops when their holder dies: one writer, and readers that are left alone.

They hold among the processes of one machine. Where a file system has none, readers go without.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stores.errors import GenerationInUseError, MissingGenerationError, StoreLockedError
from stores.untrusted import parse_json

LOCK_FILE = ".lock"

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
# Network file systems answer EBADF where an exclusive lock would need a descriptor to write.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


_MAX_HOLDER_NBYTES = 4000
_MAX_COMMAND_CHARACTERS = 200  # at most 12 bytes each in JSON


def _holder(text: bytes) -> str:
    """Return who holds a lock, in words."""
    try:
        holder = parse_json(text)
        return (
            f"process {int(holder['pid'])} on {holder['host']!a} since {holder['since']!a} "
            f"({holder['command']!a})"
        )
    except (ValueError, TypeError, KeyError):
        return "a process that is just starting"


def writer_of(folder: Path) -> str | None:
    """Return who writes to a store, in words; None where nobody does, or where nobody can tell.

    What the file says is believed only of a lock that is held: who died let go of it.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        _flock(descriptor, fcntl.LOCK_SH)
    except BlockingIOError:
        return _holder(os.pread(descriptor, _MAX_HOLDER_NBYTES, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


class WriterLock:
    """Held from construction to `release`, whoever lets go of the object in between.

    The file names the holder for whoever is refused.

    Raises:
        StoreLockedError: another process, or this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(folder / LOCK_FILE, flags, 0o666)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            message = f"{error.strerror}: got no access to write to this store, expected it"
            raise OSError(
                error.errno, f"{message}; get it, or open the store with mode 'r'", str(folder)
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(self._descriptor, _MAX_HOLDER_NBYTES, 0))
            self._close()
            raise StoreLockedError(
                f"got a store that is open for writing already: {folder} is held by {holder}; "
                "wait for it or stop it"
            ) from None
        _held.add(self)
        self._name_holder(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": " ".join(sys.argv)[:_MAX_COMMAND_CHARACTERS],
            }
        )

    def release(self) -> None:
        """Let the next writer in; safe to call twice."""
        if self._descriptor >= 0:
            self._name_holder(None)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()

    def _name_holder(self, holder: dict[str, Any] | None) -> None:
        with suppress(OSError):  # a full disk must not keep anybody from the store
            os.ftruncate(self._descriptor, 0)
            if holder:
                os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        with suppress(OSError):  # which tells of bytes that nobody needs
            os.close(descriptor)


class ReaderLock:
    """Keeps a generation from being removed; held until `release` or the end of the object.

    A forked child has a share in its parent's lock.

    Args:
        path: stage.json of the generation.

    Raises:
        MissingGenerationError: the generation is gone, or just being removed.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            _flock(self._descriptor, fcntl.LOCK_SH)
            gone = not os.path.samestat(os.fstat(self._descriptor), os.stat(path))
        except (FileNotFoundError, BlockingIOError):
            gone = True
        if gone:
            self.release()
            raise MissingGenerationError(
                f"got {path.parent}, which was removed meanwhile; open the store again"
            )

    def release(self) -> None:
        """Let the generation be removed; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


@contextmanager
def without_readers(path: Path) -> Iterator[None]:
    """Keep readers of a generation out for a while.

    Args:
        path: stage.json of the generation; where it is gone, nobody can be reading.

    Raises:
        GenerationInUseError: somebody is reading.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            _flock(descriptor, fcntl.LOCK_EX)
        except BlockingIOError:
            raise GenerationInUseError(
                f"got {path.parent}, which somebody reads, expected nobody; try again later"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, operation: int) -> None:
    """Take a lock or raise BlockingIOError; do nothing where there are no locks."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


# A forked child shares the lock with its parent, and would keep it after the parent's death.
_held: set["WriterLock"] = set()


def _drop_in_child() -> None:
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_drop_in_child)
