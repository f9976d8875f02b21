"""index.bin: the row index of a generation as it was when somebody last wrote to it.

    8 bytes magic and version │ u64 number of rows n
    n × 32 bytes row keys, in their order │ n × i64 row numbers
    u32 crc32c of all that

It is not synced, may be behind, lost or damaged, and can be made again from the manifest at any
time. What it says of a shard counts only where the manifest agrees, see `stores.manifest_index`.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.durable import replace_file
from stores.row_index import RowIndex
from stores.row_keys import KEY_DTYPE
from stores.untrusted import NoPlainFileError, open_plain_file

INDEX_FILE = "index.bin"

_MAGIC = b"SYMBIDX\x01"
_HEADER = struct.Struct("<8sQ")
_CRC = struct.Struct("<I")
_TIMES_AS_MANY, _SOME_ROWS = 2, 2**16  # rows may have been forgotten since
_ROW_NBYTES = KEY_DTYPE.itemsize + 8


class DamagedIndexError(Exception):
    """The file is not what was written."""


def write_index(folder: Path, index: RowIndex) -> None:
    """Write the index of a generation; where that fails, the old one is of use as well."""
    keys, numbers = index.rows()
    body = b"".join([_HEADER.pack(_MAGIC, len(keys)), keys.tobytes(), numbers.tobytes()])
    with suppress(OSError):
        replace_file(folder / INDEX_FILE, body + _CRC.pack(crc32c(body)), durable=False)


def read_index(
    folder: Path, known_rows: int
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]] | None:
    """Return row keys, in their order, and row numbers; None where there is no file.

    Args:
        known_rows: how many the manifest has, so that a file from elsewhere cannot fill memory.

    Raises:
        DamagedIndexError: it is damaged, of another version, or has far too many rows.
    """
    path = folder / INDEX_FILE
    try:
        descriptor = open_plain_file(path)
    except FileNotFoundError:
        return None
    except NoPlainFileError as error:
        raise DamagedIndexError(str(error)) from error
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        head = file.read(_HEADER.size)
        magic, count = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0)
        if magic != _MAGIC or size != _HEADER.size + count * _ROW_NBYTES + _CRC.size:
            raise DamagedIndexError(f"{path} is no index of this version")
        if count > _TIMES_AS_MANY * known_rows + _SOME_ROWS:
            raise DamagedIndexError(f"got {count:,} rows in {path}, expected some {known_rows:,}")
        body = file.read(size - len(head))
    if len(body) != size - len(head):
        raise DamagedIndexError(f"{path} was cut off")
    content = memoryview(body)[: -_CRC.size]
    if _CRC.pack(crc32c(content, crc32c(head))) != body[-_CRC.size :]:
        raise DamagedIndexError(f"the checksum of {path} does not match")
    keys = np.frombuffer(content, KEY_DTYPE, count)
    numbers = np.frombuffer(content, "<i8", count, offset=keys.nbytes).astype(np.int64, copy=False)
    if not (keys[1:] > keys[:-1]).all():
        raise DamagedIndexError(f"the keys in {path} are not in their order")
    return keys, numbers
