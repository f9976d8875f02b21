"""The shard file: a Zarr v3 shard that also says what it holds.

    row 0, crc32c │ row 1, crc32c │ …     little-endian values, C order; crc32c u32
    footer                                JSON, see below
    u64 footer bytes, u32 footer crc32c, 8 bytes magic
    (u64 offset, u64 nbytes) × rows per shard     all ones = no row in that slot
    u32 crc32c of the index

Zarr readers find rows through the index at the end and never look at the footer, which lies in
a gap that the index does not mention. The footer names stage, key, output and shard. That of
the listing output also lists the rows, from which a lost manifest is rebuilt; the other outputs
carry only the sha256 of that list, so that small outputs stay small.

Zarr specification of the `sharding_indexed` codec:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import hashlib
import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.checks import check_finite
from stores.durable import Block
from stores.layout import FORMAT_VERSION, GenerationLayout
from stores.records import Row, RowInfo, check_key

CRC_NBYTES = 4
_MAGIC = b"symbio\x00\x01"
_TRAILER = struct.Struct("<QI8s")  # footer bytes, footer crc32c, magic
_EMPTY = 2**64 - 1

RowList = list[tuple[str, RowInfo]]


class DamagedShardError(Exception):
    """A shard file is missing or not what was written; callers add which clips that costs."""

    def __init__(self, path: Path, reason: str, slots: Iterable[int] | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.slots = None if slots is None else list(slots)  # None: the whole file


@dataclass(frozen=True)
class ShardTail:
    """The checked end of a shard file.

    Attributes:
        offsets: where the row of each slot starts; slots past its length are empty.
        footer_start, footer_nbytes: where the footer lies.
        footer_crc: crc32c that the footer should have.
    """

    offsets: list[int]
    footer_start: int
    footer_nbytes: int
    footer_crc: int


@dataclass(frozen=True)
class ShardContent:
    """The bytes of a shard file, made row by row while they are written.

    Attributes:
        blocks: to be gone through once.
        nbytes: of all blocks.
        footer_crc: crc32c of the footer, which identifies the file.
    """

    blocks: Iterable[Block]
    nbytes: int
    footer_crc: int


def encode_shard(
    layout: GenerationLayout, output: str, shard: int, rows: Sequence[Row]
) -> ShardContent:
    """Return the content of one output of a shard.

    Args:
        rows: which went through `check_rows`; row i goes to slot i.

    Going through the blocks raises ValueError where values are NaN or Inf.
    """
    chunk_nbytes = layout.specs[output].row_nbytes + CRC_NBYTES
    footer = _encode_footer(layout, output, shard, [(row.key, row.info) for row in rows])
    footer_crc = crc32c(footer)
    index = np.full((layout.rows_per_shard, 2), _EMPTY, "<u8")
    index[: len(rows), 0] = np.arange(len(rows)) * chunk_nbytes
    index[: len(rows), 1] = chunk_nbytes
    end = footer + _TRAILER.pack(len(footer), footer_crc, _MAGIC) + _with_crc(index.tobytes())
    blocks = itertools.chain(_encode_rows(layout, output, rows), [end])
    return ShardContent(blocks, len(rows) * chunk_nbytes + len(end), footer_crc)


def _encode_rows(layout: GenerationLayout, output: str, rows: Sequence[Row]) -> Iterator[Block]:
    # Values are checked here, right before their checksum, while the row is in the cache.
    little = np.dtype(layout.specs[output].dtype).newbyteorder("<")
    for row in rows:
        check_finite(layout.stage, output, row)
        values = np.ascontiguousarray(row.arrays[output], little).reshape(-1).view(np.uint8).data
        yield values
        yield crc32c(values).to_bytes(CRC_NBYTES, "little")


def read_tail(layout: GenerationLayout, output: str, path: Path, descriptor: int) -> ShardTail:
    """Read and check the index and the trailer of an open shard file.

    Raises:
        DamagedShardError: they are not those of a shard of this output.
    """
    index_nbytes = 16 * layout.rows_per_shard
    tail_nbytes = _TRAILER.size + index_nbytes + CRC_NBYTES
    start = os.fstat(descriptor).st_size - tail_nbytes
    tail = os.pread(descriptor, tail_nbytes, start) if start > 0 else b""
    if len(tail) != tail_nbytes:
        raise DamagedShardError(path, "the file is too short")
    index_bytes = tail[_TRAILER.size : -CRC_NBYTES]
    if crc32c(index_bytes) != int.from_bytes(tail[-CRC_NBYTES:], "little"):
        raise DamagedShardError(path, "the checksum of the index does not match")
    index: NDArray[Any] = np.frombuffer(index_bytes, "<u8").reshape(-1, 2)
    count = int((index[:, 1] != _EMPTY).sum())
    chunk_nbytes = layout.specs[output].row_nbytes + CRC_NBYTES
    offsets = np.arange(count, dtype=np.uint64) * np.uint64(chunk_nbytes)
    if not np.array_equal(index[:count, 0], offsets) or (index[:count, 1] != chunk_nbytes).any():
        raise DamagedShardError(path, f"the index is not that of rows of {chunk_nbytes:,} bytes")
    footer_nbytes, footer_crc, magic = _TRAILER.unpack_from(tail)
    if magic != _MAGIC or count * chunk_nbytes + footer_nbytes != start:
        raise DamagedShardError(path, "the footer is not where it should be")
    return ShardTail(offsets.tolist(), count * chunk_nbytes, footer_nbytes, footer_crc)


def read_footer(
    layout: GenerationLayout, output: str, shard: int, path: Path, descriptor: int, tail: ShardTail
) -> dict[str, Any]:
    """Read the footer and check that the file is this output of this shard.

    Raises:
        DamagedShardError: it is damaged, or the file was exchanged for another one.
    """
    text = os.pread(descriptor, tail.footer_nbytes, tail.footer_start)
    if len(text) != tail.footer_nbytes or crc32c(text) != tail.footer_crc:
        raise DamagedShardError(path, "the checksum of the footer does not match")
    footer: dict[str, Any] = json.loads(text)
    expected = _identity(layout, output, shard)
    got = {name: footer.get(name) for name in expected}
    if got != expected:
        raise DamagedShardError(path, f"the file says it is {got}, expected {expected}")
    return footer


def decode_rows(footer: dict[str, Any]) -> RowList:
    """Return the row keys and infos of a listing footer, by slot."""
    return [(check_key("row key", key), RowInfo.from_json(info)) for key, *info in footer["rows"]]


def damaged_slots(
    layout: GenerationLayout, output: str, descriptor: int, tail: ShardTail
) -> list[int]:
    """Read every row of an open shard file; return the slots whose checksum does not match."""
    size = layout.specs[output].row_nbytes
    chunk = bytearray(size + CRC_NBYTES)
    row = memoryview(chunk)[:size]
    damaged = []
    for slot, offset in enumerate(tail.offsets):
        got = os.preadv(descriptor, [chunk], offset)
        if got != len(chunk) or crc32c(row) != int.from_bytes(chunk[size:], "little"):
            damaged.append(slot)
    return damaged


def _with_crc(data: bytes) -> bytes:
    return data + crc32c(data).to_bytes(CRC_NBYTES, "little")


def _identity(layout: GenerationLayout, output: str, shard: int) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "stage": layout.stage,
        "key": layout.key,
        "output": output,
        "shard": shard,
        "rows_per_shard": layout.rows_per_shard,
    }


def _encode_footer(layout: GenerationLayout, output: str, shard: int, rows: RowList) -> bytes:
    listing = [[key, *info.to_json()] for key, info in rows]
    digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    footer = {**_identity(layout, output, shard), "rows_sha256": digest}
    if output == layout.listing_output:
        footer["rows"] = listing
    return json.dumps(footer).encode()
