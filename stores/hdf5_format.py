"""HDF5: one file per shard, `shard.<n>.h5`, with all outputs in it.

    superblock, groups, attributes, datasets      HDF5, for every HDF5 library since 1.8
        <output>                                  (rows, *row shape), little-endian
        _rows/row  _rows/clip_id …                (rows,): what each row is
    footer                                        JSON, see `stores.shard_footer`
    u64 footer bytes, u32 footer crc32c, 8 bytes magic
    index                                         see `stores.hdf5_index`
    u32 crc32c of the index

HDF5 counts footer and index as space that it once used and no longer needs, so its programs
leave them alone. The store reads rows through the index and never has HDF5 open a file: a file
from elsewhere cannot do harm there.

A dataset has one entry per row of its shard, dim labels, and its units, description and attributes
as HDF5 attributes; lists and objects that HDF5 has no type for are JSON text. The attributes of
the file itself name stage and key, and hold the specs of all outputs and the provenance as JSON.
Values of type bfloat16 are a 16-bit float type that h5py reads as float32.

Uncompressed datasets are contiguous. Compressed ones have one chunk per row, which HDF5's filter
32015 (zstd) decompresses; `import hdf5plugin` gives it to h5py.

HDF5 file format specification:
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from crc32c import crc32c

from stores.durable import Block
from stores.hdf5_encode import encode_compressed, encode_plain
from stores.hdf5_index import Hdf5Tail, ShardIndex, is_rest_intact, read_hdf5_tail
from stores.layout import GenerationLayout
from stores.records import Row
from stores.shard_footer import encode_footer, encode_tail
from stores.shard_format import ShardContent, ShardFormat, ShardTail

PART = "all"

_SHARD_FILE = re.compile(r"shard\.(0|[1-9][0-9]{0,11})\.h5")


class Hdf5Format(ShardFormat):
    """See the head of this file."""

    name = "hdf5"

    def parts(self, layout: GenerationLayout) -> dict[str, tuple[str, ...]]:
        """See `ShardFormat.parts`; there is one."""
        return {PART: tuple(sorted(layout.specs))}

    def path(self, layout: GenerationLayout, part: str, shard: int) -> Path:
        """See `ShardFormat.path`."""
        return layout.path / f"shard.{shard}.h5"

    def shard_number(self, layout: GenerationLayout, part: str, file_name: str) -> int | None:
        """See `ShardFormat.shard_number`."""
        match = _SHARD_FILE.fullmatch(file_name)
        return int(match[1]) if match else None

    def folders(self, layout: GenerationLayout) -> list[Path]:
        """See `ShardFormat.folders`; files lie in the generation's own."""
        return []

    def documents(self, layout: GenerationLayout, rows: int) -> dict[Path, bytes]:
        """See `ShardFormat.documents`; each file describes itself."""
        return {}

    def encode(
        self, layout: GenerationLayout, part: str, shard: int, rows: Sequence[Row]
    ) -> ShardContent:
        """See `ShardFormat.encode`."""
        listing = [(row.key, row.info) for row in rows]
        footer = encode_footer(layout, part, shard, listing, lists_rows=True)
        index = ShardIndex(layout)
        tail_nbytes = len(encode_tail(footer, b"")) + index.nbytes
        if layout.compression == "none":
            body_nbytes, body = encode_plain(layout, shard, rows, index, tail_nbytes)
        else:
            body = encode_compressed(layout, shard, rows, index, tail_nbytes)
            body_nbytes = len(rows) * sum(spec.row_nbytes for spec in layout.specs.values())

        def blocks() -> Iterator[Block]:
            yield from body
            yield encode_tail(footer, index.encode())

        return ShardContent(blocks(), body_nbytes + tail_nbytes, crc32c(footer))

    def read_tail(
        self, layout: GenerationLayout, part: str, path: Path, descriptor: int
    ) -> ShardTail:
        """See `ShardFormat.read_tail`."""
        return read_hdf5_tail(layout, path, descriptor)

    def is_rest_intact(self, descriptor: int, tail: ShardTail) -> bool:
        """See `ShardFormat.is_rest_intact`."""
        return isinstance(tail, Hdf5Tail) and is_rest_intact(descriptor, tail)
