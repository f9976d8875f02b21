"""Converting stores between formats: the same rows, whatever interrupts it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_damage import damage_row, files_of
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_failure,
    make_key,
    make_row,
    make_rows,
)

from stores import ArraySpec, CorruptRowError, Row, RowInfo, open_store
from stores.convert import Conversion, convert_store
from stores.folder_generation import FolderGeneration
from stores.registry import FORMATS

# In the order of the source: a shard of ten rows, one of seven, one of ten, one of two.
ORDER = [*range(10, 20), *range(3, 10), *range(20, 30), 1, 2]


@pytest.fixture(params=sorted(FORMATS))
def source(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the folder of a closed store; beside it is room for others."""
    with fast_folder() as folder:
        with open_store(folder / "source", "a", request.param) as store:
            made = open_made(store)
            for start, end in ((0, 10), (10, 17), (17, 29)):
                made.append(make_rows(*ORDER[start:end]))
            made.append(make_rows(40))
            made.forget([make_key(40)])
            made.commit([], [make_failure(50)])
            spec = ArraySpec(("t",), (2,), "bfloat16", "s", "what", {"frame": "native"})
            other = store.generation("verb", make_key(7), {"map": spec}, {"a": [1, {"b": "ä"}]})
            values = np.array([1.5, -3e38], spec.numpy_dtype)
            other.append([Row(make_key(1), {"map": values}, RowInfo("../x", "v", "s", 2, 1, 3))])
        yield folder / "source"


def open_made(store: Any) -> Any:
    return store.generation(STAGE, make_key(1000), SPECS, {"by": "me"}, TEN_ROWS_MIB)


def reading(root: Path) -> Any:
    return open_store(root).generation(STAGE, make_key(1000))


def assert_same(source: Path, target: Path) -> None:
    """Assert that two stores say the same of everything, and that the target is sound."""
    one, other = open_store(source), open_store(target)
    described = [
        [(info.stage, info.key, info.rows, info.failures) for info in store.generations()]
        for store in (one, other)
    ]
    assert described[0] == described[1] != []
    assert other.check() == []
    for stage, key, *_ in described[0]:
        made, copy = one.generation(stage, key), other.generation(stage, key)
        assert copy.specs == made.specs
        assert copy.provenance == made.provenance
        assert copy.keys() == made.keys()
        assert copy.infos(copy.keys()) == made.infos(made.keys())
        assert copy.failures() == made.failures()
        assert copy.verify() == []
        arrays, copies = made.read(made.keys()), copy.read(copy.keys())
        for output in made.specs:
            assert copies[output].dtype == arrays[output].dtype
            assert copies[output].tobytes() == arrays[output].tobytes()


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_everything_is_copied(source: Path, format: str, compression: str) -> None:
    target = source.with_name("target")
    seen: list[Conversion] = []
    done = convert_store(source, target, format, compression=compression, on_generation=seen.append)
    assert (
        done
        == seen
        == [
            Conversion(STAGE, make_key(1000), 29, 29, ()),
            Conversion("verb", make_key(7), 1, 1, ()),
        ]
    )
    assert_same(source, target)
    copy: Any = reading(target)
    assert (copy.layout.format, copy.compression, copy.rows_per_shard) == (format, compression, 10)
    assert_rows(copy, ORDER)
    files = sorted((target / STAGE).rglob("*"))
    again = convert_store(source, target, format, compression=compression)
    assert sorted((target / STAGE).rglob("*")) == files
    assert [(c.rows, c.copied) for c in again] == [(29, 0), (1, 0)]
    assert_same(source, target)


def test_shards_can_get_another_size(source: Path) -> None:
    target = source.with_name("target")
    convert_store(source, target, "zarr", shard_mib=3.1 * TEN_ROWS_MIB / 10)
    assert reading(target).rows_per_shard == 3
    assert_same(source, target)


def test_no_more_than_a_shard_is_read_at_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = FolderGeneration.read, []

    def read(self: Any, keys: Any, *rest: Any) -> Any:
        sizes.append(len(keys))
        return real(self, keys, *rest)

    monkeypatch.setattr(FolderGeneration, "read", read)
    convert_store(source, source.with_name("target"), "zarr")
    assert max(sizes) == 10


@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_second_call_does_what_is_missing(
    source: Path, shards: int, committed: bool, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break off in a shard, after it was written or after it was committed."""
    target, done = source.with_name("target"), []
    name = "infos" if committed else "commit"
    real = getattr(FolderGeneration, name)

    def break_off(self: Any, *arguments: Any) -> Any:
        if self.path.is_relative_to(target):
            done.append(1)
            if len(done) > shards:
                raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(FolderGeneration, name, break_off)
        with pytest.raises(KeyboardInterrupt):
            convert_store(source, target, format)
    again = convert_store(source, target, format)
    # A shard that was written and not committed is adopted by then.
    assert again[0].copied == max(0, 29 - 10 * (shards + 1))
    assert_same(source, target)


def make_target(source: Path, *rows: Row) -> Path:
    """What an earlier call left, with other values in a row."""
    target = source.with_name("target")
    with open_store(target, "a", "zarr") as store:
        open_made(store).append(list(rows))
    return target


@pytest.mark.parametrize(
    "wrong",
    [
        make_row(11, count=np.int32(99)),
        Row(make_key(11), dict(make_row(11).arrays), RowInfo("P01_11", "P99")),
    ],
)
def test_the_last_shard_of_an_earlier_call_is_compared(source: Path, wrong: Row) -> None:
    target = make_target(source, make_row(10), wrong, make_row(12))
    with pytest.raises(CorruptRowError, match="got stage 'objects', clips 'P01_11' that do not"):
        convert_store(source, target, "zarr")
    assert reading(target).keys() == [make_key(10), make_key(12)]
    assert convert_store(source, target, "zarr")[0].copied == 27
    copy = reading(target)
    assert_rows(copy, ORDER)
    assert copy.infos(copy.keys()) == reading(source).infos(copy.keys())


def test_rows_that_read_back_otherwise_are_an_error(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real = source.with_name("target"), FolderGeneration.read

    def read(self: Any, keys: Any, *rest: Any) -> Any:
        arrays = real(self, keys, *rest)
        if self.path.is_relative_to(target) and make_key(4) in keys:
            arrays["mask"][list(keys).index(make_key(4)), 0] ^= 1
        return arrays

    with monkeypatch.context() as patched:
        patched.setattr(FolderGeneration, "read", read)
        with pytest.raises(CorruptRowError, match="clips 'P01_4' that do not read back"):
            convert_store(source, target, "zarr")
    assert make_key(4) in reading(target).missing([make_key(4)])
    convert_store(source, target, "zarr")
    assert set(reading(target).keys()) == set(reading(source).keys())


def test_rows_damaged_in_the_target_are_an_error_and_copied_anew(source: Path) -> None:
    target = make_target(source, *make_rows(10, 11, 12))
    damage_row(reading(target), "count", 12)
    with pytest.raises(CorruptRowError, match="clips 'P01_12' damaged"):
        convert_store(source, target, "zarr")
    convert_store(source, target, "zarr")
    assert_rows(reading(target), ORDER)


def test_rows_damaged_in_the_source_are_named_and_left_out(source: Path) -> None:
    target = source.with_name("target")
    made = reading(source)
    for number, output in ((12, "count"), (15, "mask"), (1, "features")):
        damage_row(made, output, number)
    os.truncate(files_of(made, 1)[0], 9)
    lost = [12, 15, *range(3, 10), 1]
    for _ in range(2):
        done = convert_store(source, target, "zarr")
        assert done[0].damaged_clips == tuple(f"P01_{number}" for number in lost)
        assert done[0].rows == 29 - len(lost)
        assert done[1] == Conversion("verb", make_key(7), 1, done[1].copied, ())
    left = [number for number in ORDER if number not in lost]
    assert reading(target).keys() == [make_key(number) for number in left]
    assert_rows(reading(target), left)
    assert reading(target).verify() == []


def test_a_disk_that_fails_to_read_costs_its_rows(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, real = files_of(reading(source), 0)[0], os.preadv

    def preadv(descriptor: int, *arguments: Any) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(victim):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    done = convert_store(source, source.with_name("target"), "zarr")
    assert done[0].damaged_clips == tuple(f"P01_{number}" for number in range(10, 20))
    assert done[0].rows == 19


def test_other_errors_are_not_swallowed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(FolderGeneration, "read", read)
    with pytest.raises(OSError, match="Too many open files"):
        convert_store(source, source.with_name("target"), "zarr")


def test_a_store_is_not_converted_into_itself(source: Path) -> None:
    link = source.with_name("link")
    link.symlink_to(source)
    for target in (source, source / "inner", source.parent, link, link / "inner"):
        with pytest.raises(ValueError, match="expected two folders, none in the other"):
            convert_store(source, target, "zarr")
    assert not (source / "inner").exists()


def test_what_is_begun_goes_on_as_it_was_begun(source: Path) -> None:
    target = source.with_name("target")
    convert_store(source, target, "zarr", compression="zstd")
    with pytest.raises(ValueError, match="got compression 'none', expected 'zstd'"):
        convert_store(source, target, "zarr")
    with pytest.raises(ValueError, match="got a store of format 'zarr'"):
        convert_store(source, target, "hdf5")


def test_other_peoples_folders_are_left_alone(source: Path) -> None:
    target = source.with_name("target")
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(FileExistsError, match="which holds mine"):
        convert_store(source, target, "zarr")
    with pytest.raises(FileNotFoundError):
        convert_store(source.with_name("nothing"), source.with_name("new"), "zarr")
    assert not source.with_name("new").exists()
