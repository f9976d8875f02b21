"""The bytes of an HDF5 shard file.

Without compression, h5py only ever makes a *template*: a file whose datasets have a place but no
values. The shards of a generation that hold equally many rows share one, and rows go straight
from the caller's arrays into the file. With compression, where rows lie depends on their values,
and h5py makes the whole file in memory.

Neither way does HDF5 write to a disk, since it may crash where there is no space left.
"""

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.checks import check_finite
from stores.compression import compress
from stores.durable import Block
from stores.hdf5_columns import dtypes_of, make_columns
from stores.hdf5_file import ROWS_GROUP, add_datasets, new_file
from stores.hdf5_index import ShardIndex, between_rows
from stores.hdf5_sparse import SparseFile
from stores.hdf5_superblock import HEAD_NBYTES, with_end
from stores.layout import GenerationLayout
from stores.records import Row

_one_at_a_time = threading.Lock()  # whoever comes next finds the template made


@dataclass(frozen=True)
class Template:
    """A shard file without values.

    Attributes:
        pieces: in the order of the file: bytes, or the name of a dataset whose values go there.
        nbytes: of the file, with values.
        offsets: output → where its first row lies.
    """

    pieces: tuple[bytes | str, ...]
    nbytes: int
    offsets: dict[str, int]


@lru_cache(maxsize=16)
def make_template(
    layout: GenerationLayout, columns: tuple[tuple[str, str], ...], rows: int
) -> Template:
    """Return the file of any shard of so many rows; `columns` as given by `dtypes_of`."""
    sparse = SparseFile()
    with new_file(sparse) as file:
        datasets = add_datasets(file, layout, columns, rows)
        # So far HDF5 has always given places in the order of creation; it promises nothing.
        places = sorted(
            (dataset.id.get_offset(), dataset.id.get_storage_size(), name)
            for name, dataset in datasets.items()
        )
    nbytes = sparse.seek(0, io.SEEK_END)
    pieces: list[bytes | str] = []
    position = 0
    for offset, size, name in places:
        pieces += [sparse.bytes_between(position, offset), name]
        position = offset + size
    pieces.append(sparse.bytes_between(position, nbytes))
    offsets = {name: offset for offset, _, name in places if name in layout.specs}
    return Template(tuple(pieces), nbytes, offsets)


def encode_plain(
    layout: GenerationLayout, shard: int, rows: Sequence[Row], index: ShardIndex, tail_nbytes: int
) -> tuple[int, Iterator[Block]]:
    """Return size and blocks of everything before the footer; fills `index` on the way."""
    columns = make_columns(layout, shard, rows)
    with _one_at_a_time:
        template = make_template(layout, dtypes_of(columns), len(rows))
    head, *others = template.pieces
    assert isinstance(head, bytes)
    start = with_end(head[:HEAD_NBYTES], template.nbytes + tail_nbytes) + head[HEAD_NBYTES:]

    def blocks() -> Iterator[Block]:
        for piece in (start, *others):
            if isinstance(piece, str) and piece in layout.specs:
                yield from _row_values(layout, piece, rows, template.offsets[piece], index)
                continue
            if isinstance(piece, str):
                piece = columns[piece.removeprefix(f"{ROWS_GROUP}/")].tobytes()
            index.rest_crc = crc32c(piece, index.rest_crc)
            yield piece

    return template.nbytes, blocks()


def encode_compressed(
    layout: GenerationLayout, shard: int, rows: Sequence[Row], index: ShardIndex, tail_nbytes: int
) -> Iterator[Block]:
    """Yield everything before the footer; fills `index`."""
    columns = make_columns(layout, shard, rows)
    image = io.BytesIO()
    with new_file(image) as file:
        datasets = add_datasets(file, layout, dtypes_of(columns), len(rows))
        for name, values in columns.items():
            column = datasets[f"{ROWS_GROUP}/{name}"]
            column[...] = values.astype(column.dtype)
        for output, spec in layout.specs.items():
            chunks = datasets[output].id
            for slot, row in enumerate(rows):
                check_finite(layout.stage, output, row)
                stored = compress(_values_of(row, output))
                place = (slot, *(0 for _ in spec.shape))
                chunks.write_direct_chunk(place, stored)
                offset = chunks.get_chunk_info_by_coord(place).byte_offset
                index.set(output, slot, offset, len(stored), crc32c(stored))
    data = image.getbuffer()
    data[:HEAD_NBYTES] = with_end(data[:HEAD_NBYTES], len(data) + tail_nbytes)
    for start, end in between_rows(index.tables(len(rows)), len(data)):
        index.rest_crc = crc32c(data[start:end], index.rest_crc)
    yield data


def _row_values(
    layout: GenerationLayout, output: str, rows: Sequence[Row], offset: int, index: ShardIndex
) -> Iterator[Block]:
    # Values are checked here, right before their checksum, while the row is in the cache.
    for slot, row in enumerate(rows):
        check_finite(layout.stage, output, row)
        values = _values_of(row, output)
        index.set(output, slot, offset, len(values), crc32c(values))
        offset += len(values)
        yield values


def _values_of(row: Row, output: str) -> memoryview:
    flat: NDArray[Any] = np.ascontiguousarray(row.arrays[output]).reshape(-1)
    return flat.view(np.uint8).data
