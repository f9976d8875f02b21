"""One writer per store: a lock that the kernel drops when its holder dies."""

import fcntl
import json
import os
import socket
from pathlib import Path

from stores.base import StoreLockedError

LOCK_FILE = ".lock"


class WriterLock:
    """Held from construction to `release`, whoever lets go of the object in between.

    The file names the holder for whoever is refused.

    Raises:
        StoreLockedError: another process, or this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._descriptor = os.open(folder / LOCK_FILE, flags, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 1000, 0).decode("utf-8", "replace")
            self._close()
            raise StoreLockedError(
                f"got a store that is open for writing already: {folder} is held by "
                f"{holder or 'a process that is just starting'}; wait for it or stop it"
            ) from None
        os.ftruncate(self._descriptor, 0)
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(self._descriptor, holder.encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Let the next writer in; safe to call twice."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        _held.discard(self)


# A forked child shares the lock with its parent, and would keep it after the parent's death.
_held: set["WriterLock"] = set()


def _drop_in_child() -> None:
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_drop_in_child)
