"""The end of an HDF5 shard file: damaged by accident, and made up with bad intent."""

import os
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hdf5_files import (
    FORM,
    PART,
    encode,
    entry_of,
    index_start,
    is_whole,
    make_layout,
    read_tail,
    with_index,
    with_trailer,
)
from store_suite import SPECS, make_key, make_rows

from stores import ArraySpec, Row, RowInfo
from stores.compression import max_stored_nbytes
from stores.hdf5_index import between_rows
from stores.layout import GenerationLayout
from stores.shard_format import ChunkTable, DamagedShardError

EMPTY = (2**64 - 1, 2**64 - 1, 2**32 - 1)
COUNT, FEATURES = 1, 2  # places among the sorted names
NBYTES = SPECS["features"].row_nbytes
compressions = pytest.mark.parametrize("compression", ["none", "zstd"])


@pytest.fixture
def layout(tmp_path: Path, compression: str) -> GenerationLayout:
    return make_layout(tmp_path, compression=compression)


def refused(layout: GenerationLayout, data: bytes) -> str:
    """Return why the end of a file is refused; fail where it is not, or takes much memory."""
    path = layout.path / "shard.3.h5"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedShardError) as caught:
            read_tail(layout, path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.path == path
    return caught.value.reason


@compressions
def test_the_index_says_where_rows_lie(layout: GenerationLayout) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    assert is_whole(layout, 3, data)
    path = layout.path / "shard.3.h5"
    path.write_bytes(data)
    tail = read_tail(layout, path)
    assert list(tail.chunks) == sorted(SPECS)
    for place, table in enumerate(tail.chunks.values()):
        columns = (table.offsets, table.nbytes, table.checks or ())
        assert list(zip(*columns, strict=True)) == [entry_of(data, place, n) for n in range(7)]
        assert entry_of(data, place, 7) == EMPTY


@compressions
def test_single_flipped_bits_are_noticed(layout: GenerationLayout) -> None:
    data = bytearray(encode(layout, 3, make_rows(*range(7))))
    tail_bits = range(8 * (index_start(data) - 700), 8 * len(data))
    chosen = random.Random(0)
    bits = [*chosen.sample(range(8 * len(data)), 500), *chosen.sample(tail_bits, 500)]
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
        with suppress(DamagedShardError):
            assert not is_whole(layout, 3, bytes(data)), f"bit {bit}"
        data[bit // 8] ^= 1 << bit % 8
    assert is_whole(layout, 3, bytes(data))


@compressions
def test_what_is_no_row_is_read_in_pieces(
    layout: GenerationLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    monkeypatch.setattr("stores.hdf5_index._PIECE_NBYTES", 100)
    assert is_whole(layout, 3, data)


def test_rows_that_overlap_leave_nothing_to_be_read_twice() -> None:
    tables = [ChunkTable([10, 30], [50, 5]), ChunkTable([70, 20], [10, 1])]
    assert list(between_rows(tables, 100)) == [(0, 10), (60, 70), (80, 100)]
    assert list(between_rows([ChunkTable([0], [9])], 9)) == []


@compressions
def test_truncated_files_are_refused(layout: GenerationLayout) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    for nbytes in (0, 1, 100, 1000, len(data) // 2, len(data) - 1):
        assert refused(layout, data[:nbytes]) in {
            "the file is too short",
            "the checksum of the index does not match",
        }
    assert "checksum of the index" in refused(layout, data + b"\0")


@compressions
@pytest.mark.parametrize("offset", [2**64 - 1, 2**64 - NBYTES, 2**63, 10**9, None])
def test_rows_outside_the_file_are_refused(layout: GenerationLayout, offset: int | None) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    path = layout.path / "shard.3.h5"
    path.write_bytes(data)
    footer_start = read_tail(layout, path).footer_start
    _, nbytes, check = entry_of(data, FEATURES, 2)
    if offset is None:
        offset = footer_start - nbytes + 1
    hostile = with_index(data, FEATURES, 2, offset, nbytes, check)
    assert refused(layout, hostile) == "the index is of rows that lie outside the file"
    path.write_bytes(with_index(data, FEATURES, 2, footer_start - nbytes, nbytes, check))
    assert read_tail(layout, path).chunks["features"].offsets[2] == footer_start - nbytes


@pytest.mark.parametrize(
    ("compression", "nbytes"),
    [
        *(("none", nbytes) for nbytes in (0, NBYTES - 1, NBYTES + 1, 2**63, 2**64 - 2)),
        *(("zstd", nbytes) for nbytes in (0, max_stored_nbytes(NBYTES) + 1, 2**63, 2**64 - 2)),
    ],
)
def test_rows_of_absurd_sizes_are_refused(layout: GenerationLayout, nbytes: int) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    offset, _, check = entry_of(data, FEATURES, 2)
    hostile = with_index(data, FEATURES, 2, offset, nbytes, check)
    assert refused(layout, hostile) == f"the index is not that of rows of {NBYTES:,} bytes"


def test_rows_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    small, large = (
        make_layout(tmp_path, specs={"x": ArraySpec(("x",), (size,), "uint8")})
        for size in (1, 2**20)
    )
    row = Row(make_key(1), {"x": np.zeros(1, np.uint8)}, RowInfo("clip"))
    data = encode(small, 3, [row])
    hostile = with_index(data, 0, 0, 0, 2**20, 0, outputs=1)
    assert refused(large, hostile) == "the index is of rows that lie outside the file"


@compressions
@pytest.mark.parametrize("slot", [0, 3, 6])
def test_outputs_have_the_same_rows_without_gaps(layout: GenerationLayout, slot: int) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    expected = "the index is not that of rows filled one after another"
    assert refused(layout, with_index(data, FEATURES, slot, *EMPTY)) == expected
    assert refused(layout, with_index(data, 0, slot, *EMPTY)) == expected
    entry = entry_of(data, COUNT, slot)
    assert refused(layout, with_index(data, COUNT, 9, *entry)) == expected


@compressions
@pytest.mark.parametrize("footer_nbytes", [2**64 - 1, 2**63, 10**9, None])
def test_absurd_footers_are_refused(layout: GenerationLayout, footer_nbytes: int | None) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    size = index_start(data) - 20 + 1 if footer_nbytes is None else footer_nbytes
    assert refused(layout, with_trailer(data, size)) == "the footer is not where it should be"


@compressions
def test_footers_of_other_programs_are_refused(layout: GenerationLayout) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    hostile = with_trailer(data, 10, b"notours!")
    assert refused(layout, hostile) == "the footer is not where it should be"


@pytest.mark.parametrize("compression", ["none"])
def test_a_footer_of_gigabytes_is_not_read(layout: GenerationLayout) -> None:
    data = encode(layout, 3, make_rows(*range(7)))
    path = layout.path / "shard.3.h5"
    start, hole = index_start(data) - 20, 2**31
    with path.open("wb") as file:
        file.seek(hole)
        file.write(with_trailer(data, hole)[start:])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(DamagedShardError, match="the footer is not where"):
            FORM.read_tail(layout, PART, path, descriptor)
    finally:
        os.close(descriptor)
