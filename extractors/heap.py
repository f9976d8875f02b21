"""The memory of one batch kept for the next, without letting it grow (glibc on Linux only).

By default glibc maps each large array anew and the kernel fills it with zeros first: on CPUs that
takes about as long as a 3-D network itself. Keeping what is freed leaves holes where small arrays
lie between large ones, so that the heap would grow for hours: holes are given back whenever the
process has grown by a tenth.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

__all__ = ["Heap"]

GROWTH = 1.1
WARM_UP_BATCHES = 4  # until every size of array has been asked for

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt
_STATM = Path("/proc/self/statm")


class Heap:
    """This process's heap; does nothing where the C library is another one."""

    def __init__(self) -> None:
        self._library = _glibc()
        self._batches = 0
        self._usual_pages = 0
        if self._library is not None:
            self._library.mallopt(_M_MMAP_MAX, 0)
            self._library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

    def after_batch(self) -> None:
        """Give holes back if the process has grown."""
        if self._library is None:
            return
        self._batches += 1
        pages = _resident_pages()
        if self._batches <= WARM_UP_BATCHES:
            self._usual_pages = max(self._usual_pages, pages)
        elif pages > GROWTH * self._usual_pages:
            self._library.malloc_trim(0)
            self._usual_pages = max(self._usual_pages, _resident_pages())


def _glibc() -> Any:
    try:
        library = ctypes.CDLL(None)
        found = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    except (OSError, TypeError):
        return None
    return library if found and _STATM.exists() else None


def _resident_pages() -> int:
    return int(_STATM.read_text().split()[1])
