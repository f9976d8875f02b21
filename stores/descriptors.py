"""Open files, of which a process may have only so many."""

import errno
import os
import resource
from contextlib import ExitStack
from pathlib import Path

_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_SHARE = 8  # there may be several generations, and a process needs files for other things too


def fair_share(most: int) -> int:
    """Return how many files one generation may keep open: at most `most`, at least one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else max(1, min(most, limit // _SHARE))


def is_too_many(error: OSError) -> bool:
    """Return whether a file could not be opened since too many are open."""
    return error.errno in _TOO_MANY


def too_many_error(error: OSError, path: Path) -> OSError:
    """Return an error that says what to do about it."""
    message = f"{error.strerror}; close some, or allow more with `ulimit -n`"
    return OSError(error.errno, message, str(path))


def check_descriptors(count: int, path: Path) -> None:
    """Raise OSError, naming `path`, where `count` files cannot be opened for too many open ones."""
    with ExitStack() as stack:
        for _ in range(count):
            try:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                if is_too_many(error):
                    raise too_many_error(error, path) from error
                return
