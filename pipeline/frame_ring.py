"""Memory that a decode process and its parent share: rows go in, and are freed in their order.

Frames travel without being pickled: the child writes a row where there is room and says where; the
parent reads it there and says when it is done. An anonymous file is mapped by both, so nothing is
left behind by a crash, and the size of /dev/shm does not matter.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import deque

import numpy as np
import numpy.typing as npt

__all__ = ["RingLayout", "create_frame_file", "map_frames"]


def create_frame_file(nbytes: int) -> int:
    """An open descriptor of an anonymous file of that size; the caller closes it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("symbio-frames", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, nbytes)
    return descriptor


def map_frames(descriptor: int, nbytes: int) -> npt.NDArray[np.uint8]:
    """The file as (nbytes,) uint8; the descriptor may be closed afterwards."""
    return np.frombuffer(mmap.mmap(descriptor, nbytes), dtype=np.uint8)


class RingLayout:
    """Where rows lie in a ring of a given size. Pure bookkeeping; kept by the writing side.

    Args:
        nbytes: size of the ring.
    """

    def __init__(self, nbytes: int) -> None:
        if nbytes < 1:
            raise ValueError(f"got a ring of {nbytes} bytes, expected 1 or more")
        self.nbytes = nbytes
        self._head = 0
        self._rows: deque[int] = deque()  # offsets, oldest first

    def __len__(self) -> int:
        """Rows that are in it."""
        return len(self._rows)

    def allocate(self, nbytes: int) -> int | None:
        """Offset of room for a row, which is taken then; None if rows must be freed first.

        Raises:
            ValueError: a row that is empty or larger than the whole ring.
        """
        if not 1 <= nbytes <= self.nbytes:
            raise ValueError(f"got a row of {nbytes} bytes, expected 1 to {self.nbytes}")
        offset = self._room(nbytes)
        if offset is not None:
            self._rows.append(offset)
            self._head = offset + nbytes
        return offset

    def free_oldest(self) -> None:
        """Give back the room of the oldest row."""
        self._rows.popleft()

    def _room(self, nbytes: int) -> int | None:
        if not self._rows:
            return 0
        tail = self._rows[0]
        if self._head > tail:
            if self._head + nbytes <= self.nbytes:
                return self._head
            return 0 if nbytes <= tail else None
        return self._head if self._head + nbytes <= tail else None
