"""Zarr v3: one sharded array per output, one shard file per output and shard.

    row 0, crc32c │ row 1, crc32c │ …     little-endian values, C order, maybe zstd; crc32c u32
    footer, trailer                       see `stores.shard_footer`
    (u64 offset, u64 nbytes) × rows per shard     all ones = no row in that slot
    u32 crc32c of the index

Zarr readers find rows through the index at the end and never look at the footer, which lies in
a gap that the index does not mention.

Zarr specification of the `sharding_indexed` codec:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.checks import check_finite
from stores.compression import compress, max_stored_nbytes
from stores.durable import Block
from stores.layout import GenerationLayout
from stores.records import Row
from stores.shard_footer import encode_footer, encode_tail, read_index
from stores.shard_format import (
    CRC_NBYTES,
    EMPTY,
    ChunkTable,
    DamagedShardError,
    ShardContent,
    ShardFormat,
    ShardTail,
)
from stores.zarr_metadata import ZARR_FILE, array_document, group_document

_SHARD_FILE = re.compile(r"c\.(0|[1-9][0-9]{0,11})((?:\.0)*)")


class ZarrFormat(ShardFormat):
    """See the head of this file."""

    name = "zarr"

    def parts(self, layout: GenerationLayout) -> dict[str, tuple[str, ...]]:
        """See `ShardFormat.parts`."""
        first, *others = sorted(layout.specs)
        return {output: (output,) for output in (first, *others)}

    def path(self, layout: GenerationLayout, part: str, shard: int) -> Path:
        """See `ShardFormat.path`."""
        zeros = ".0" * len(layout.specs[part].shape)
        return layout.path / part / f"c.{shard}{zeros}"

    def shard_number(self, layout: GenerationLayout, part: str, file_name: str) -> int | None:
        """See `ShardFormat.shard_number`."""
        match = _SHARD_FILE.fullmatch(file_name)
        ours = match and len(match[2]) == 2 * len(layout.specs[part].shape)
        return int(match[1]) if match and ours else None

    def folders(self, layout: GenerationLayout) -> list[Path]:
        """See `ShardFormat.folders`."""
        return [layout.path / output for output in layout.specs]

    def documents(self, layout: GenerationLayout, rows: int) -> dict[Path, bytes]:
        """See `ShardFormat.documents`: a zarr.json per output and per folder above it."""
        stage = layout.path.parent
        groups: dict[Path, dict[str, Any]] = {
            stage.parent: {"description": "feature store, see symbio.json"},
            stage: {"stage": layout.stage},
            layout.path: {
                "stage": layout.stage,
                "key": layout.key,
                "created": layout.created,
                "provenance": layout.provenance,
            },
        }
        documents = {
            folder / ZARR_FILE: group_document(attributes) for folder, attributes in groups.items()
        }
        for output in layout.specs:
            documents[layout.path / output / ZARR_FILE] = array_document(layout, output, rows)
        return documents

    def encode(
        self, layout: GenerationLayout, part: str, shard: int, rows: Sequence[Row]
    ) -> ShardContent:
        """See `ShardFormat.encode`."""
        listing = [(row.key, row.info) for row in rows]
        lists_rows = part == min(layout.specs)
        footer = encode_footer(layout, part, shard, listing, lists_rows=lists_rows)
        index = np.full((layout.rows_per_shard, 2), EMPTY, "<u8")

        def blocks() -> Iterator[Block]:
            yield from _encode_rows(layout, part, rows, index)
            yield encode_tail(footer, index.tobytes())

        rows_nbytes = len(rows) * (layout.specs[part].row_nbytes + CRC_NBYTES)
        nbytes = rows_nbytes + len(encode_tail(footer, b"")) + index.nbytes
        return ShardContent(blocks(), nbytes, crc32c(footer))

    def read_tail(
        self, layout: GenerationLayout, part: str, path: Path, descriptor: int
    ) -> ShardTail:
        """See `ShardFormat.read_tail`."""
        data, *footer = read_index(path, descriptor, 16 * layout.rows_per_shard)
        index: NDArray[np.uint64] = np.frombuffer(data, "<u8").reshape(-1, 2)
        count = int((index[:, 1] != EMPTY).sum())
        sizes = index[:count, 1]
        size = layout.specs[part].row_nbytes + CRC_NBYTES
        fits = sizes == size
        if layout.compression != "none":
            fits = (sizes > CRC_NBYTES) & (sizes <= max_stored_nbytes(size))
        # Rows lie one behind the other, up to the footer; sizes are small enough to be summed.
        ends = np.cumsum(sizes) if fits.all() else sizes[:0]
        if not fits.all() or not np.array_equal(index[:count, 0], ends - sizes):
            raise DamagedShardError(path, f"the index is not that of rows of {size:,} bytes")
        if footer[0] != (int(ends[-1]) if count else 0):
            raise DamagedShardError(path, "the footer is not where it should be")
        table = ChunkTable(index[:count, 0].tolist(), (sizes - np.uint64(CRC_NBYTES)).tolist())
        return ShardTail({part: table}, *footer)


def _encode_rows(
    layout: GenerationLayout, output: str, rows: Sequence[Row], index: NDArray[np.uint64]
) -> Iterator[Block]:
    """Yield rows and their checksums; note in `index` where they come to lie."""
    # Values are checked here, right before their checksum, while the row is in the cache.
    offset = 0
    for slot, row in enumerate(rows):
        check_finite(layout.stage, output, row)
        values: Block = np.ascontiguousarray(row.arrays[output]).reshape(-1).view(np.uint8).data
        if layout.compression != "none":
            values = compress(values)
        yield values
        yield crc32c(values).to_bytes(CRC_NBYTES, "little")
        size = memoryview(values).nbytes + CRC_NBYTES
        index[slot] = offset, size
        offset += size
