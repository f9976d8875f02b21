"""Storage that vanishes for a while: unmounted, renamed away, a server that does not answer."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.errors import StorageUnavailableError
from stores.manifest_db import ManifestError
from stores.marker import MARKER_FILE

# Of folders on a network, even if they answer again a moment later.
_NO_ANSWER = (
    *(errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT),
    *(errno.ENODEV, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH),
)


@contextmanager
def needing_storage(root: Path, on_loss: Callable[[], None] | None = None) -> Iterator[None]:
    """Raise StorageUnavailableError, before and instead of other errors, where a store is gone.

    Args:
        root: of the store.
        on_loss: called first where something failed for that reason.
    """
    _check(root)
    try:
        yield
    except StorageUnavailableError:
        raise
    except (OSError, sqlite3.Error, ManifestError) as error:
        try:
            _check(root)
        except StorageUnavailableError as gone:
            if on_loss is not None:
                on_loss()
            raise gone from error
        if isinstance(error, OSError) and error.errno in _NO_ANSWER:
            raise _unavailable(root, error) from error
        raise


def _check(root: Path) -> None:
    try:
        os.stat(root / MARKER_FILE)
    except OSError as error:
        raise _unavailable(root, error) from error


def _unavailable(root: Path, error: OSError) -> StorageUnavailableError:
    message = (
        f"{error.strerror}: the store is not there now, expected its {MARKER_FILE}; bring its "
        "storage back, then try again"
    )
    return StorageUnavailableError(error.errno, message, str(root))
