"""Damage anywhere in a store is found, and read as an error, never as other values."""

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from store_damage import change_manifest, damage_row, files_of, flip
from store_suite import (
    ROW_NBYTES,
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
from stores.formats import shard_format
from stores.memory_store import MemoryStore
from stores.registry import FORMATS

NUMBERS = list(range(12))


@pytest.fixture(params=sorted(FORMATS))
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield a generation of two shards, the second of them short, in a store open to read."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
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


def test_every_bit_of_a_shard_file_counts(made: Any) -> None:
    """One bit at a time, at 300 places over all parts of all kinds of shard files."""
    choose = random.Random(5)
    paths = [path for shard in (0, 1) for path in files_of(made, shard)]
    sizes = [path.stat().st_size for path in paths]
    for _ in range(300):
        (path,) = choose.choices(paths, sizes)
        place, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
        flip(path, place, bit)
        (problem,) = made.verify()
        assert str(path) in str(problem)
        assert problem.row_keys or "what it says to other programs" in str(problem)
        damaged = set(NUMBERS) - set(read_all(fresh(made)))
        assert {make_key(number) for number in damaged} <= set(problem.row_keys)
        flip(path, place, bit)
    assert made.verify() == []
    assert read_all(made) == NUMBERS


def test_a_missing_file_costs_its_clips(made: Any) -> None:
    victim = files_of(made, 1)[-1]
    victim.unlink()
    for deep in (True, False):
        (problem,) = made.verify(deep)
        assert str(problem) == f"{victim}: the file is gone; clips 'P01_10', 'P01_11'"
        assert problem.row_keys == (make_key(10), make_key(11))
        assert problem.shard == 1
    assert read_all(made) == NUMBERS[:10]


def test_a_missing_file_costs_no_other_output(made: Any) -> None:
    files = files_of(made, 1)
    if len(files) == 1:
        pytest.skip("one file for all outputs")
    files[-1].unlink()
    assert made.read([make_key(11)], ["count"])["count"].tolist() == [11]


@pytest.mark.parametrize("nbytes", [0, 1, 70, 300])
def test_a_cut_file_costs_its_clips(made: Any, nbytes: int) -> None:
    os.truncate(files_of(made, 0)[-2:][0], nbytes)
    for deep in (True, False):
        (problem,) = made.verify(deep)
        assert len(problem.row_keys) == 10
        assert "clips 'P01_0', 'P01_1', 'P01_2' and 7 more" in str(problem)
    assert read_all(made) == [10, 11]


def test_damage_to_a_row_is_found_only_by_reading_it(made: Any) -> None:
    path = damage_row(made, "count", 7)
    assert made.verify(deep=False) == []
    (problem,) = made.verify()
    assert str(problem) == f"{path}: the checksum does not match; clips 'P01_7'"
    assert (problem.row_keys, problem.shard) == ((make_key(7),), None)


def test_the_bytes_read_are_told(made: Any) -> None:
    read: dict[bool, list[int]] = {True: [], False: []}
    for deep, nbytes in read.items():
        made.verify(deep, nbytes.append)
    files = [path for shard in (0, 1) for path in files_of(made, shard)]
    assert read[True] == [path.stat().st_size for path in files]
    assert len(read[False]) == len(files)
    assert all(0 < few < all_ for few, all_ in zip(read[False], read[True], strict=True))


@pytest.mark.parametrize("deep", [True, False])
def test_exchanged_files_are_noticed(made: Any, deep: bool) -> None:
    first, second = files_of(made, 0)[-1], files_of(made, 1)[-1]
    shutil.copyfile(first, first.with_name("spare"))
    shutil.copyfile(second, first)
    shutil.copyfile(first.with_name("spare"), second)
    assert [str(problem).split(";")[0] for problem in made.verify(deep)] == [
        f"{first}: it is not the file that was committed",
        f"{second}: it is not the file that was committed",
    ]
    assert read_all(made) == []


def test_a_file_of_another_generation_is_noticed(made: Any) -> None:
    with open_store(made.path.parent.parent, "a") as store:
        other = store.generation("verb", make_key(5), SPECS, shard_mib=TEN_ROWS_MIB)
        other.append([make_row(number + 100) for number in NUMBERS])
    shutil.copyfile(files_of(other, 0)[0], files_of(made, 0)[0])
    assert read_all(made) == [10, 11]
    assert len(made.verify()) == 1


def test_rows_that_the_manifest_tells_otherwise_are_named(made: Any) -> None:
    change = "UPDATE rows SET segment_id = 'x' WHERE clip_id IN ('P01_3', 'P01_11')"
    change_manifest(made.path.parent.parent, change)
    for deep in (True, False):
        assert [problem.row_keys for problem in made.verify(deep)] == [
            (make_key(3),),
            (make_key(11),),
        ]


def test_a_manifest_that_lies_about_places_is_a_problem_not_a_crash(made: Any) -> None:
    with sqlite3.connect(made.path.parent.parent / "manifest.sqlite") as connection:
        connection.execute("UPDATE rows SET slot = slot + 1 WHERE clip_id = 'P01_11'")
    connection.close()
    (problem,) = made.verify()
    assert "got a changed row of 'objects'" in str(problem)


def test_a_wrong_document_is_a_problem_that_costs_no_row(made: Any) -> None:
    documents = shard_format(made.layout.format).documents(made.layout, len(NUMBERS))
    if not documents:
        pytest.skip("this format has no documents")
    *_, path = documents
    path.write_text(path.read_text().replace("e", "E", 1))
    (problem,) = made.verify(deep=False)
    assert problem.row_keys == ()
    assert str(path) in str(problem)
    open_store(made.path.parent.parent, "a").close()
    assert made.verify() == []


def test_one_bad_row_does_not_spoil_the_batch_it_is_not_in(made: Any) -> None:
    damage_row(made, "count", 3)
    with pytest.raises(CorruptRowError) as caught:
        made.read([make_key(number) for number in (4, 3, 2, 3)])
    assert caught.value.row_keys == [make_key(3)]
    assert "verify the store, forget these rows and extract them again" in str(caught.value)
    assert read_all(made) == [number for number in NUMBERS if number != 3]


def test_a_sound_store_has_no_problems(made: Any) -> None:
    assert open_store(made.path.parent.parent).check() == []
    assert made.verify() == made.verify(deep=False) == []


def test_memory() -> None:
    made = MemoryStore().generation(STAGE, make_key(1000), SPECS)
    made.append(make_rows(1, 2))
    made.shards[0][1]["mask"][0] ^= 1
    read: list[int] = []
    assert made.verify(deep=False, on_read=read.append) == []
    assert [problem.row_keys for problem in made.verify(on_read=read.append)] == [(make_key(2),)]
    assert read == [2 * ROW_NBYTES]
