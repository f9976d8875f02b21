"""Damage anywhere in a store is found, and read as an error, never as other values."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_key,
    make_row,
    make_rows,
)

from stores import CorruptRowError, open_store

NUMBERS = list(range(12))


@pytest.fixture
def made() -> Iterator[Any]:
    """Yield a generation of two shards, the second of them short, in a store open to read."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a") as store:
            made = store.generation(STAGE, make_key(1000), SPECS, shard_mib=TEN_ROWS_MIB)
            made.append(make_rows(*NUMBERS))
        yield open_store(folder / "store").generation(STAGE, make_key(1000))


def read_all(made: Any) -> list[int]:
    """Return the rows that read as written; the others must raise and name their clip."""
    errors: dict[int, CorruptRowError] = {}
    for number in NUMBERS:
        try:
            assert_rows(made, [number])
        except CorruptRowError as error:
            errors[number] = error
    for number, caught in errors.items():
        assert caught.row_keys == [make_key(number)]
        assert f"'P01_{number}'" in str(caught)
    return [number for number in NUMBERS if number not in errors]


def fresh(made: Any) -> Any:
    return open_store(made.path.parent.parent).generation(STAGE, make_key(1000))


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def test_every_bit_of_a_shard_file_counts(made: Any) -> None:
    """One bit at a time, at 300 places over all parts of all kinds of shard files."""
    choose = random.Random(5)
    paths = sorted(path for path in made.path.rglob("c.*") if path.is_file())
    sizes = [path.stat().st_size for path in paths]
    for _ in range(300):
        (path,) = choose.choices(paths, sizes)
        place, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
        flip(path, place, bit)
        (problem,) = made.verify()
        assert str(path) in str(problem)
        assert problem.row_keys
        damaged = set(NUMBERS) - set(read_all(fresh(made)))
        assert {make_key(number) for number in damaged} <= set(problem.row_keys)
        flip(path, place, bit)
    assert made.verify() == []
    assert read_all(made) == NUMBERS


def test_a_missing_file_costs_its_clips(made: Any) -> None:
    (made.path / "mask/c.1.0").unlink()
    (problem,) = made.verify()
    assert str(problem) == f"{made.path}/mask/c.1.0: the file is gone; clips 'P01_10', 'P01_11'"
    assert problem.row_keys == (make_key(10), make_key(11))
    assert read_all(made) == NUMBERS[:10]
    assert made.read([make_key(11)], ["count"])["count"].tolist() == [11]


@pytest.mark.parametrize("nbytes", [0, 1, 70, 300])
def test_a_cut_file_costs_its_clips(made: Any, nbytes: int) -> None:
    os.truncate(made.path / "features/c.0.0.0", nbytes)
    (problem,) = made.verify()
    assert len(problem.row_keys) == 10
    assert "clips 'P01_0', 'P01_1', 'P01_2' and 7 more" in str(problem)
    assert read_all(made) == [10, 11]


def test_exchanged_files_are_noticed(made: Any) -> None:
    first, second = made.path / "mask/c.0.0", made.path / "mask/c.1.0"
    shutil.copyfile(first, first.with_name("spare"))
    shutil.copyfile(second, first)
    shutil.copyfile(first.with_name("spare"), second)
    assert [str(problem).split(";")[0] for problem in made.verify()] == [
        f"{first}: it is not the file that was committed",
        f"{second}: it is not the file that was committed",
    ]
    assert read_all(made) == []


def test_a_file_of_another_generation_is_noticed(made: Any) -> None:
    with open_store(made.path.parent.parent, "a") as store:
        other = store.generation("verb", make_key(5), SPECS, shard_mib=TEN_ROWS_MIB)
        other.append([make_row(number + 100) for number in NUMBERS])
    shutil.copyfile(other.path / "count/c.0", made.path / "count/c.0")
    assert read_all(made) == [10, 11]
    assert len(made.verify()) == 1


def test_a_wrong_zarr_document_is_a_problem_that_costs_no_row(made: Any) -> None:
    path = made.path / "mask/zarr.json"
    path.write_text(path.read_text().replace("uint8", "int8"))
    (problem,) = made.verify()
    assert problem.row_keys == ()
    assert str(path) in str(problem)
    open_store(made.path.parent.parent, "a").close()
    assert made.verify() == []


def test_one_bad_row_does_not_spoil_the_batch_it_is_not_in(made: Any) -> None:
    with (made.path / "count/c.0").open("r+b") as file:
        file.seek(3 * 8)
        file.write(b"\x63")
    with pytest.raises(CorruptRowError) as caught:
        made.read([make_key(number) for number in (4, 3, 2, 3)])
    assert caught.value.row_keys == [make_key(3)]
    assert "verify the store, forget these rows and extract them again" in str(caught.value)
    assert read_all(made) == [number for number in NUMBERS if number != 3]
