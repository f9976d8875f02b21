"""The hot loop: rows from shard files straight into the caller's arrays.

A row is one `preadv` into its place in the batch; the first time a process touches a row of an
output, its checksum is read along and compared. Few files are open at a time, since a store may
have more shards than a process may have open files.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.compression import decompress_into
from stores.descriptors import fair_share, is_too_many, too_many_error
from stores.formats import shard_format
from stores.layout import GenerationLayout
from stores.shard_format import CRC_NBYTES, ChunkTable, DamagedShardError, open_shard
from stores.shard_rows import read_stored

MAX_OPEN_FILES = 128

# (shard, slot, position in the batch)
Place = tuple[int, int, int]


class _OpenFile:
    """A descriptor that lives as long as somebody reads from it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = open_shard(path)

    def __del__(self) -> None:
        # Not set where opening failed.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _ShardFile:
    """What is known about a file; stays when the descriptor is closed to make room."""

    def __init__(self, path: Path, chunks: Mapping[str, ChunkTable]) -> None:
        self.path = path
        self.chunks = chunks
        # 1 = the row's checksum was compared
        self.checked = {output: bytearray(len(table)) for output, table in chunks.items()}


class ShardFiles:
    """Reads rows of one generation; safe in threads, after fork, and after pickling.

    Args:
        verify_every_read: compare checksums each time, not only on first touch.
    """

    def __init__(self, layout: GenerationLayout, *, verify_every_read: bool) -> None:
        self._layout = layout
        self._verify_every_read = verify_every_read
        self._form = shard_format(layout.format)
        self._parts = {
            output: part for part, outputs in self._form.parts(layout).items() for output in outputs
        }
        self._forget_files()

    def _forget_files(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _ShardFile] = {}
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"layout": self._layout, "verify_every_read": self._verify_every_read}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(
        self,
        output: str,
        places: list[Place],
        checks: Mapping[int, Mapping[str, int]],
        array: NDArray[Any],
    ) -> None:
        """Fill `array` (rows, *row shape), C-contiguous, with the rows at `places`.

        Args:
            places: sorted by shard, so that each file is opened once.
            checks: shard → part → crc32c of the footer that the manifest knows.

        Raises:
            DamagedShardError: a file is gone, was exchanged, or holds a row that changed.
        """
        read_rows = self._read_rows
        if self._layout.compression != "none":
            read_rows = self._read_compressed
        target = array.reshape(-1).view(np.uint8).data
        for shard, group in groupby(places, key=itemgetter(0)):
            file, opened = self._file(output, shard, checks)
            read_rows(output, file, opened.descriptor, group, target)

    def look_at(self, output: str, shard: int, checks: Mapping[int, Mapping[str, int]]) -> None:
        """Check the end of a file, which vouches for the size of its rows.

        Raises:
            DamagedShardError: as in `read`.
        """
        self._file(output, shard, checks)

    def close(self) -> None:
        """Close all files; they open again when read from."""
        self._forget_files()

    def _read_rows(
        self,
        output: str,
        file: _ShardFile,
        descriptor: int,
        places: Iterator[Place],
        target: memoryview,
    ) -> None:
        size = self._layout.specs[output].row_nbytes
        table, checked, always = file.chunks[output], file.checked[output], self._verify_every_read
        offsets, checks, count = table.offsets, table.checks, len(table)
        tail = bytearray(CRC_NBYTES)
        preadv = os.preadv
        for _, slot, position in places:
            if slot >= count:
                raise DamagedShardError(file.path, "it holds no row in a slot in use", [slot])
            row = target[position * size : (position + 1) * size]
            if checked[slot] and not always:
                got = preadv(descriptor, (row,), offsets[slot])
            else:
                if checks is None:
                    got = preadv(descriptor, (row, tail), offsets[slot]) - CRC_NBYTES
                    expected = int.from_bytes(tail, "little")
                else:
                    got = preadv(descriptor, (row,), offsets[slot])
                    expected = checks[slot]
                if crc32c(row) != expected:
                    raise DamagedShardError(file.path, "the checksum does not match", [slot])
                checked[slot] = 1
            if got != size:
                raise DamagedShardError(file.path, "the file ends too early", [slot])

    def _read_compressed(
        self,
        output: str,
        file: _ShardFile,
        descriptor: int,
        places: Iterator[Place],
        target: memoryview,
    ) -> None:
        # The checksum is cheap beside the decompression, so it is compared each time.
        size = self._layout.specs[output].row_nbytes
        table = file.chunks[output]
        for _, slot, position in places:
            if slot >= len(table):
                raise DamagedShardError(file.path, "it holds no row in a slot in use", [slot])
            values = read_stored(descriptor, table, slot)
            if values is None:
                raise DamagedShardError(file.path, "the checksum does not match", [slot])
            try:
                decompress_into(values, target[position * size : (position + 1) * size])
            except ValueError as error:
                raise DamagedShardError(file.path, str(error), [slot]) from error

    def _file(
        self, output: str, shard: int, checks: Mapping[int, Mapping[str, int]]
    ) -> tuple[_ShardFile, _OpenFile]:
        if os.getpid() != self._pid:  # also since a fork copies locks that nobody will release
            self._forget_files()
        with self._lock:
            part = self._parts[output]
            path = self._form.path(self._layout, part, shard)
            opened = self._open.get(path)
            if opened is None:
                opened = self._open[path] = self._make_room_and_open(path)
            self._open.move_to_end(path)
            known = self._known.get((part, shard))
            if known is None:
                tail = self._form.read_tail(self._layout, part, path, opened.descriptor)
                if tail.footer_crc != checks[shard].get(part):
                    raise DamagedShardError(path, "it is not the file that was committed")
                known = self._known[part, shard] = _ShardFile(path, tail.chunks)
            return known, opened

    def _make_room_and_open(self, path: Path) -> _OpenFile:
        while len(self._open) >= fair_share(MAX_OPEN_FILES):
            self._open.popitem(last=False)
        while True:
            try:
                return _OpenFile(path)
            except OSError as error:
                if not is_too_many(error):
                    raise
                if not self._open:
                    raise too_many_error(error, path) from error
                self._open.popitem(last=False)
