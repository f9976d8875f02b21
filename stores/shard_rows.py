"""Single rows of an open shard file, as they are read back to be checked."""

import errno
import os

from crc32c import crc32c

from stores.compression import decompress_into
from stores.layout import GenerationLayout
from stores.shard_format import CRC_NBYTES, ChunkTable, ShardTail


def damaged_slots(layout: GenerationLayout, descriptor: int, tail: ShardTail) -> set[int]:
    """Read every row of every output in an open shard file; return the slots not as written."""
    damaged = set()
    for output, table in tail.chunks.items():
        row = memoryview(bytearray(layout.specs[output].row_nbytes))
        for slot in range(len(table)):
            values = read_stored(descriptor, table, slot)
            if values is None or not _can_be_read(layout, values, row):
                damaged.add(slot)
    return damaged


def read_stored(descriptor: int, table: ChunkTable, slot: int) -> memoryview | None:
    """Return the stored values of a row, None where they cannot be read or do not match."""
    size = table.nbytes[slot]
    inline = table.checks is None
    try:
        stored = memoryview(os.pread(descriptor, size + inline * CRC_NBYTES, table.offsets[slot]))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None  # a bad place on the disk costs this row, not the search for others
    values, check = stored[:size], stored[size:]
    expected = int.from_bytes(check, "little") if table.checks is None else table.checks[slot]
    whole = len(stored) == size + inline * CRC_NBYTES
    return values if whole and crc32c(values) == expected else None


def _can_be_read(layout: GenerationLayout, values: memoryview, row: memoryview) -> bool:
    if layout.compression == "none":
        return True
    try:
        decompress_into(values, row)
    except ValueError:
        return False
    return True
