"""The conformance suite over HDF5 files, which h5py reads and changes without our code."""

import sqlite3
from pathlib import Path
from typing import Any

import h5py
import pytest
from hdf5_files import FORM, PART, make_layout
from numcodecs import zstd
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    StoreSuite,
    assert_rows,
    fast_folder,
    make_key,
    make_rows,
)

from stores import Store, open_store


def find_row(made: Any, number: int) -> tuple[Path, int]:
    """Return file and slot of a row, from SQLite alone."""
    connection = sqlite3.connect(made.path.parent.parent / "manifest.sqlite")
    shard, slot = connection.execute(
        "SELECT shard, slot FROM rows JOIN generations ON id = generation "
        "WHERE key = ? AND row_key = ?",
        (made.key, bytes.fromhex(make_key(number))),
    ).fetchone()
    connection.close()
    return made.path / f"shard.{shard}.h5", slot


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


class TestHdf5Store(StoreSuite):
    def make_store(self, folder: Path) -> Store:
        return open_store(folder, "a", "hdf5")

    def reopen(self, store: Store) -> Store:
        store.close()
        return open_store(store.path, "a")

    def raw_get(self, made: Any, output: str, number: int) -> bytes:
        path, slot = find_row(made, number)
        with h5py.File(path) as file:
            data: bytes = file[output][slot].tobytes()
            return data

    def raw_set(self, made: Any, output: str, number: int, data: bytes) -> None:
        path, slot = find_row(made, number)
        with h5py.File(path) as file:
            offset = file[output].id.get_offset() + slot * len(data)
        overwrite(path, offset, data)


class TestCompressedHdf5Store(TestHdf5Store):
    compression = "zstd"

    def raw_get(self, made: Any, output: str, number: int) -> bytes:
        path, slot = find_row(made, number)
        with h5py.File(path) as file:
            place = (slot, *(0 for _ in SPECS[output].shape))
            _, stored = file[output].id.read_direct_chunk(place)
        return bytes(zstd.decompress(stored))

    def raw_set(self, made: Any, output: str, number: int, data: bytes) -> None:
        """Only ever called with changed values: change the stored bytes, which are others."""
        path, slot = find_row(made, number)
        with h5py.File(path) as file:
            place = (slot, *(0 for _ in SPECS[output].shape))
            chunk = file[output].id.get_chunk_info_by_coord(place)
        last = chunk.byte_offset + chunk.size - 1
        overwrite(path, last, bytes([path.read_bytes()[last] ^ 0x10]))


def fill_store(root: Path, *numbers: int, compression: str = "none") -> Path:
    """Make a closed store with these rows; return the folder of their generation."""
    with open_store(root, "a", "hdf5") as store:
        made = store.generation(
            STAGE, make_key(1000), SPECS, {"a": 1}, TEN_ROWS_MIB, compression=compression
        )
        made.append(make_rows(*numbers))
        return made.path


def test_layout_on_disk() -> None:
    with fast_folder() as root:
        folder = fill_store(root, *range(12))
        found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        name = folder.relative_to(root)
        assert found == [
            *(".lock", "manifest.sqlite"),
            f"{name}/index.bin",
            *(f"{name}/rows.csv", f"{name}/shard.0.h5", f"{name}/shard.1.h5", f"{name}/stage.json"),
            "symbio.json",
        ]


def test_reading_takes_no_hdf5_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a file from elsewhere may hurt the library")

    with fast_folder() as root:
        fill_store(root, *range(12))
        monkeypatch.setattr(h5py, "File", refuse)
        with open_store(root) as store:
            made = store.generation(STAGE, make_key(1000))
            assert_rows(made, [11, 0, 5])
            assert made.verify() == []


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_opening_a_shard_for_writing_without_writing_does_no_harm(compression: str) -> None:
    with fast_folder() as root:
        path = fill_store(root, *range(12), compression=compression) / "shard.0.h5"
        before = path.read_bytes()
        with h5py.File(path, "r+") as file:
            assert file.id.get_filesize() == len(before)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        *(("shard.0.h5", 0), ("shard.12.h5", 12), ("shard.999999999999.h5", 999999999999)),
        *((name, None) for name in ("shard.01.h5", "shard.-1.h5", "shard.1.h5.tmp", "shard.h5")),
        *((name, None) for name in ("shard.1000000000000.h5", "shard.1.H5", "shard.1xh5", "")),
    ],
)
def test_only_our_file_names_are_shards(tmp_path: Path, name: str, shard: int | None) -> None:
    layout = make_layout(tmp_path)
    assert FORM.shard_number(layout, PART, name) == shard
    assert shard is None or FORM.path(layout, PART, shard) == tmp_path / name


def test_a_lost_manifest_is_rebuilt_from_the_files() -> None:
    with fast_folder() as root:
        folder = fill_store(root, *range(25))
        (root / "manifest.sqlite").unlink()
        overwrite(folder / "shard.1.h5", (folder / "shard.1.h5").stat().st_size - 9, b"damaged")
        with open_store(root, "a") as store:
            made = store.generation(STAGE, make_key(1000))
            assert made.keys() == [make_key(number) for number in (*range(10), *range(20, 25))]
            assert made.infos(made.keys()) == [
                row.info for row in make_rows(*range(10), *range(20, 25))
            ]
            assert_rows(made, [24, 0, 9])
        assert [path.name for path in (folder / ".quarantine").iterdir()] == ["all.shard.1.h5"]


def test_damage_to_what_other_programs_read_costs_no_rows() -> None:
    with fast_folder() as root:
        path = fill_store(root, 1, 2) / "shard.0.h5"
        text = b"pooled"
        overwrite(path, path.read_bytes().index(text), b"pOOled")
        with open_store(root) as store:
            made = store.generation(STAGE, make_key(1000))
            (problem,) = made.verify()
            assert problem.row_keys == ()
            assert str(problem).startswith(f"{path}: what it says to other programs is damaged")
            assert_rows(made, [1, 2])
