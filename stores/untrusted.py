"""Looking into files that anybody may have put there or changed.

Nothing here hangs, follows a link, or takes much memory, whatever the file is.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_DOCUMENT_NBYTES = 2**20  # parsed, JSON of that size takes up to some 30 MB
MAX_DEPTH = 64


class NoPlainFileError(OSError):
    """A link, folder, pipe or device lies where a file was expected."""


def open_plain_file(path: Path) -> int:
    """Return a descriptor for reading.

    Raises:
        FileNotFoundError: there is nothing of that name.
        NoPlainFileError: there is something, and it is no file.
    """
    try:
        # A pipe opened without O_NONBLOCK waits for its other end, for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise _no_plain_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_plain_file(path)
    return descriptor


def read_document(path: Path, max_nbytes: int = MAX_DOCUMENT_NBYTES) -> Any:
    """Return the JSON value in a file.

    Raises:
        FileNotFoundError: there is none.
        NoPlainFileError: it is no file.
        ValueError: it is too large, or no JSON.
    """
    descriptor = open_plain_file(path)
    with open(descriptor, "rb") as file:
        text = file.read(max_nbytes + 1)
    if len(text) > max_nbytes:
        raise ValueError(f"got more than {max_nbytes:,} bytes in {path}, expected a short document")
    return parse_json(text)


def parse_json(text: str | bytes) -> Any:
    """Return a JSON value; raise ValueError for what is none, or is nested too deep."""
    message = f"got JSON nested deeper than {MAX_DEPTH} levels"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(message) from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(message)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_plain_file(path: Path) -> NoPlainFileError:
    message = "got a link, a folder or a device, expected a file"
    return NoPlainFileError(errno.EINVAL, message, str(path))
