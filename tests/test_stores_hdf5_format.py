"""What h5py sees in a shard file, without any of our code."""

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import (
    FORM,
    PART,
    encode,
    entry_of,
    make_layout,
    read_tail,
    write_arrays,
    write_file,
)
from store_suite import SPECS, STAGE, make_arrays, make_key, make_row, make_rows

from stores import ArraySpec, Row, RowInfo
from stores.hdf5_columns import COLUMNS
from stores.hdf5_encode import make_template
from stores.records import DTYPES

NAMES = sorted(SPECS)
compressions = pytest.mark.parametrize("compression", ["none", "zstd"])
readable = pytest.mark.parametrize("compression", ["none", "zstd"], indirect=True)


@pytest.fixture
def compression(request: pytest.FixtureRequest) -> str:
    """The parameter; h5py reads compressed values through a plugin only."""
    name: str = request.param
    if name == "zstd":
        pytest.importorskip("hdf5plugin", reason="h5py has no zstd without hdf5plugin")
    return name


def all_values(dtype: str) -> Any:
    """Return the largest, the smallest and some other values of a dtype, six in all."""
    kind = ArraySpec((), (), dtype).numpy_dtype
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.array([limits.min, limits.max, 0, 1, 2, 100], kind)
    values = np.array([0.0, -2.5, 1 / 3, 1e-3, 0, 0], np.float64).astype(kind)
    bits = values.view(f"u{kind.itemsize}")
    infinity = np.array(np.inf).astype(kind).view(bits.dtype)
    bits[4] = infinity - 1  # the largest
    bits[5] = 1  # the smallest, which is subnormal
    return values


# ---- values


@readable
@pytest.mark.parametrize("dtype", DTYPES)
def test_h5py_reads_every_dtype(tmp_path: Path, dtype: str, compression: str) -> None:
    specs = {
        "map": ArraySpec(("y", "x"), (2, 3), dtype),
        "number": ArraySpec((), (), dtype),
    }
    values = all_values(dtype)
    rows = [
        Row(make_key(n), {"map": np.roll(values, n).reshape(2, 3), "number": value}, info)
        for n, value in enumerate(values)
        for info in [RowInfo(f"clip_{n}")]
    ]
    layout = make_layout(tmp_path, specs=specs, compression=compression)
    path = write_file(layout, 0, rows)
    expected = values.astype(np.float32) if dtype == "bfloat16" else values
    with h5py.File(path, "r") as file:
        assert file["map"].dtype == file["number"].dtype == expected.dtype
        assert file["map"].shape == (6, 2, 3)
        np.testing.assert_array_equal(file["number"][:], expected)
        for n in range(6):
            np.testing.assert_array_equal(file["map"][n].reshape(-1), np.roll(expected, n))


def test_bfloat16_takes_two_bytes(tmp_path: Path) -> None:
    spec = ArraySpec((), (), "bfloat16")
    path = write_arrays(tmp_path, {"x": spec}, {"x": np.array(-2.5, spec.numpy_dtype)})
    with h5py.File(path) as file:
        assert file["x"].id.get_type().get_size() == 2
        offset = file["x"].id.get_offset()
    assert path.read_bytes()[offset : offset + 2] == b"\x20\xc0"


def test_h5py_finds_contiguous_values_where_the_index_says(tmp_path: Path) -> None:
    data = encode(make_layout(tmp_path), 3, make_rows(*range(7)))
    (tmp_path / "file.h5").write_bytes(data)
    with h5py.File(tmp_path / "file.h5") as file:
        for place, name in enumerate(NAMES):
            start, size = file[name].id.get_offset(), SPECS[name].row_nbytes
            assert file[name].chunks is None
            for slot in range(7):
                assert entry_of(data, place, slot)[:2] == (start + slot * size, size)


def test_h5py_finds_chunks_where_the_index_says(tmp_path: Path) -> None:
    data = encode(make_layout(tmp_path, compression="zstd"), 3, make_rows(*range(7)))
    (tmp_path / "file.h5").write_bytes(data)
    with h5py.File(tmp_path / "file.h5") as file:
        for place, name in enumerate(NAMES):
            assert file[name].chunks == (1, *SPECS[name].shape)
            assert file[name].id.get_create_plist().get_filter(0)[0] == 32015
            for slot in range(7):
                chunk = file[name].id.get_chunk_info_by_coord(
                    (slot, *(0 for _ in SPECS[name].shape))
                )
                assert entry_of(data, place, slot)[:2] == (chunk.byte_offset, chunk.size)


# ---- what the file says of itself


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    with h5py.File(write_file(make_layout(tmp_path), 3, make_rows(1))) as file:
        attributes = dict(file.attrs)
    outputs = json.loads(attributes.pop("outputs"))
    assert {name: ArraySpec.from_json(spec) for name, spec in outputs.items()} == SPECS
    assert json.loads(attributes.pop("provenance")) == {"weights": "Kinetics-400"}
    assert attributes.pop("description").startswith("Rows of stage 'objects' of a feature store:")
    assert attributes == {
        "stage": STAGE,
        "key": make_key(1000),
        "created": "2026-01-02T03:04:05+00:00",
        "format_version": 1,
        "rows_per_shard": 10,
        "compression": "none",
    }


@compressions
def test_datasets_say_what_they_are(tmp_path: Path, compression: str) -> None:
    layout = make_layout(tmp_path, compression=compression)
    with h5py.File(write_file(layout, 3, make_rows(1, 2))) as file:
        assert sorted(file) == ["_rows", *NAMES]
        attributes = dict(file["features"].attrs)
        assert attributes.pop("DIMENSION_LABELS").tolist() == ["row", "object", "channel"]
        assert attributes == {"units": "1", "description": "pooled", "layer": "fc7"}
        for name, spec in SPECS.items():
            assert [dim.label for dim in file[name].dims] == ["row", *spec.dims]
            assert file[name].attrs["units"] == spec.units
        for name, (units, description) in COLUMNS.items():
            column = file["_rows"][name]
            assert [dim.label for dim in column.dims] == ["row"]
            assert (column.attrs["units"], column.attrs["description"]) == (units, description)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, value) for value in ("text", "µ", "", 3, -(2**63), 2**63 - 1, 2.5, True, False)),
        *((value, value) for value in ([1, 2], [0.45, 0.225], "x" * 100_000, [0.5] * 20_000)),
        *((value, json.dumps(value)) for value in (None, {}, {"a": [1]}, [], [1, "a"], [[1]])),
        *((value, json.dumps(value)) for value in (2**63, [2**63], [True], [1, 2.5], ["a", "b"])),
        *((value, json.dumps(value)) for value in ("a\0b", "\ud800", {"a": "x" * 100_000})),
    ],
)
def test_attributes_are_numbers_and_texts_or_else_json(
    tmp_path: Path, value: Any, expected: Any
) -> None:
    spec = ArraySpec((), (), "uint8", attributes={"name": value})
    with h5py.File(write_arrays(tmp_path, {"x": spec}, {"x": np.uint8(1)})) as file:
        found = file["x"].attrs["name"]
        assert type(found) is np.ndarray or isinstance(found, np.generic | str)
        assert np.array_equal(found, expected)
        assert isinstance(found, np.bool_) == isinstance(expected, bool)


@pytest.mark.parametrize(
    "name",
    ["", "a\0b", "\ud800", "CLASS", "NAME", "DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"],
)
def test_attributes_that_hdf5_cannot_have_are_in_the_json(tmp_path: Path, name: str) -> None:
    spec = ArraySpec((), (), "uint8", "px", attributes={name: 7, "other/name": 8})
    with h5py.File(write_arrays(tmp_path, {"x": spec}, {"x": np.uint8(1)})) as file:
        assert sorted(file["x"].attrs) == ["DIMENSION_LABELS", "description", "other/name", "units"]
        assert json.loads(file.attrs["outputs"])["x"]["attributes"] == {name: 7, "other/name": 8}
        assert file["x"].dims[0].label == "row"


def test_units_and_descriptions_may_be_any_text(tmp_path: Path) -> None:
    spec = ArraySpec((), (), "uint8", "a\0", "\ud800 " + "x" * 70_000)
    with h5py.File(write_arrays(tmp_path, {"x": spec}, {"x": np.uint8(1)})) as file:
        assert json.loads(file["x"].attrs["units"]) == spec.units
        assert json.loads(file["x"].attrs["description"]) == spec.description


# ---- what each row is


@compressions
def test_columns_say_what_each_row_is(tmp_path: Path, compression: str) -> None:
    odd = RowInfo("é" * 127 + "x", "\U0001f600", "../a", 7, -1.5, 2.25, "")
    rows = [*make_rows(1, 2), dataclasses.replace(make_row(3), info=odd)]
    layout = make_layout(tmp_path, compression=compression)
    with h5py.File(write_file(layout, 3, rows)) as file:
        columns = file["_rows"]
        assert sorted(columns) == sorted(COLUMNS)
        assert columns["row"][:].tolist() == [30, 31, 32]
        assert columns["row_key"].asstr()[:].tolist() == [row.key for row in rows]
        for field in dataclasses.fields(RowInfo):
            column = columns[field.name]
            found = column.asstr()[:] if column.dtype.kind == "S" else column[:]
            assert found.tolist() == [getattr(row.info, field.name) for row in rows]
        assert columns["first_seconds"].dtype == columns["last_seconds"].dtype == np.dtype("<f8")
        assert columns["view"].dtype == np.dtype("<i8")


def test_outputs_may_be_named_like_columns(tmp_path: Path) -> None:
    specs = {name: ArraySpec((), (), "uint8") for name in ("rows", "row", "view", "flags")}
    arrays: dict[str, Any] = {name: np.uint8(n) for n, name in enumerate(specs)}
    with h5py.File(write_arrays(tmp_path, specs, arrays)) as file:
        assert {name: file[name][0] for name in specs} == arrays
        assert file["_rows/flags"].asstr()[0] == "clamped"


# ---- one file for many shards


@compressions
def test_shards_of_other_sizes_and_ids_follow_one_another(tmp_path: Path, compression: str) -> None:
    layout = make_layout(tmp_path, compression=compression)
    batches = [make_rows(1, 2), make_rows(3, 4), make_rows(5)]
    long = dataclasses.replace(make_row(6), info=RowInfo("c" * 200, "v" * 9))
    for shard, rows in enumerate([*batches, [long, make_row(7)]]):
        with h5py.File(write_file(layout, shard, rows)) as file:
            assert file["_rows/row"][:].tolist() == [10 * shard + n for n in range(len(rows))]
            clips = file["_rows/clip_id"].asstr()[:].tolist()
            assert clips == [row.info.clip_id for row in rows]
            if compression == "none":
                expected = [row.arrays["boxes_xyxy_px"] for row in rows]
                np.testing.assert_array_equal(file["boxes_xyxy_px"][:], np.stack(expected))


@compressions
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, compression: str) -> None:
    layout = make_layout(tmp_path, compression=compression)
    first = encode(layout, 3, make_rows(*range(7)))
    make_template.cache_clear()
    assert encode(layout, 3, make_rows(*range(7))) == first
    path = tmp_path / "file.h5"
    path.write_bytes(first)
    with h5py.File(path) as file:
        for item in (file["_rows"].id, file["features"].id, file["_rows/view"].id):
            assert not item.get_create_plist().get_obj_track_times()


def test_sizes_are_known_beforehand(tmp_path: Path) -> None:
    content = FORM.encode(make_layout(tmp_path), PART, 3, make_rows(1, 2, 3))
    assert sum(len(memoryview(block).cast("B")) for block in content.blocks) == content.nbytes


@compressions
def test_old_libraries_can_read_it(tmp_path: Path, compression: str) -> None:
    layout = make_layout(tmp_path, compression=compression)
    path = write_file(layout, 3, make_rows(1, 2, 3))
    assert path.read_bytes()[8] == 2  # the superblock of HDF5 1.8
    assert read_tail(layout, path).footer_start > 0


def test_values_take_no_memory_before_they_are_written() -> None:
    spec = ArraySpec(("y", "x"), (2**13, 2**14), "float16")  # 256 MiB
    layout = make_layout(Path("nowhere"), specs={"x": spec})
    tracemalloc.start()
    try:
        template = make_template(layout, (("row", "<i8"),), 8)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert template.nbytes > 8 * 2**28


def test_compressed_values_are_those_that_were_given(tmp_path: Path) -> None:
    pytest.importorskip("hdf5plugin", reason="h5py has no zstd without hdf5plugin")
    layout = make_layout(tmp_path, compression="zstd")
    with h5py.File(write_file(layout, 0, make_rows(*range(7)))) as file:
        for name in SPECS:
            expected = np.stack([make_arrays(number)[name] for number in range(7)])
            np.testing.assert_array_equal(file[name][:], expected)
