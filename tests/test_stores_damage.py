"""A thousand flipped bits, cut, lost and exchanged files: found or harmless, never other values."""

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from store_damage import change_manifest, flip
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

from stores import CorruptRowError, open_store
from stores.registry import FORMATS

NUMBERS = list(range(20, 42))  # ids and seconds of two digits, so that full shards have one size
KEYS = [make_key(number) for number in NUMBERS]
FORGOTTEN, FAILED = 42, (50, 51, 52)
ABOUT = {"weights": "0123456789abcdef" * 20}
DOCUMENTS = ("stage.json", "zarr.json", "rows.csv")
KINDS = [(format, compression) for format in sorted(FORMATS) for compression in ("none", "zstd")]


def fill_store(root: Path, format: str, compression: str) -> None:
    """Make three shards, the last of them short, a forgotten row, failures, a second stage."""
    with open_store(root, "a", format) as store:
        made = store.generation(STAGE, make_key(1000), SPECS, ABOUT, TEN_ROWS_MIB, compression)
        made.append(make_rows(*NUMBERS, FORGOTTEN))
        made.forget([make_key(FORGOTTEN)])
        made.commit([], [make_failure(number) for number in FAILED])
        other = store.generation("verb", make_key(1001), SPECS, {}, TEN_ROWS_MIB, compression)
        other.append([make_row(number) for number in NUMBERS])


@pytest.fixture(params=KINDS, ids="-".join)
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    with fast_folder() as folder:
        fill_store(folder / "store", *request.param)
        yield folder / "store"


@pytest.fixture
def one_root() -> Iterator[Path]:
    """Yield a store of one kind, for what is the same in all of them."""
    with fast_folder() as folder:
        fill_store(folder / "store", *KINDS[0])
        yield folder / "store"


def reading(root: Path) -> Any:
    return open_store(root).generation(STAGE, make_key(1000))


def shard_files(made: Any) -> list[Path]:
    files = (path for path in made.path.rglob("*") if path.is_file())
    return sorted(path for path in files if path.name not in DOCUMENTS)


def read_what_reads(made: Any) -> set[int]:
    """Return the rows that read as written; the others must raise and name their clip."""
    with suppress(CorruptRowError):
        assert_rows(made, NUMBERS)
        assert made.infos(KEYS) == [row.info for row in make_rows(*NUMBERS)]
        return set(NUMBERS)
    errors: dict[int, CorruptRowError] = {}
    for number in NUMBERS:
        try:
            assert_rows(made, [number])
        except CorruptRowError as error:
            errors[number] = error
    for number, caught in errors.items():
        assert caught.row_keys == [make_key(number)]
        assert f"'P01_{number}'" in str(caught)
    return set(NUMBERS) - errors.keys()


def reads_as_written(root: Path) -> bool:
    """Return whether everything reads as written; anything else must be a clear error."""
    try:
        made = reading(root)
        assert set(made.failures()) <= {make_failure(number) for number in FAILED}
        return read_what_reads(made) == set(NUMBERS)
    except (ValueError, OSError, LookupError, RuntimeError) as caught:
        error = caught
    assert type(error) not in (KeyError, IndexError, RecursionError), repr(error)
    assert len(str(error)) > 10
    return False


def mend(root: Path) -> None:
    """Open for writing, after which every row is there, or the error says what to do."""
    advice = ""
    try:
        with open_store(root, "a") as store:
            made = store.generation(STAGE, make_key(1000))
            assert made.missing(KEYS) == []
            assert_rows(made, NUMBERS)
            assert made.infos(KEYS) == [row.info for row in make_rows(*NUMBERS)]
            assert made.reserve_shards(1) >= 3
    except RuntimeError as error:
        advice = str(error)
    if advice:
        assert "delete that file and open the store for writing" in advice
        (root / "manifest.sqlite").unlink()
        mend(root)


# ---- single bits


def choose_bits(paths: list[Path], count: int) -> Iterator[tuple[Path, int, int]]:
    """Yield places over all files, as often as each is large."""
    choose = random.Random(count)
    for path in choose.choices(paths, [path.stat().st_size for path in paths], k=count):
        yield path, choose.randrange(path.stat().st_size), choose.randrange(8)


def test_bits_of_shard_files(root: Path) -> None:
    made = reading(root)
    noticed = 0
    for path, place, bit in choose_bits(shard_files(made), 150):
        flip(path, place, bit)
        problems = made.verify()
        named = {key for problem in problems for key in problem.row_keys}
        assert all(str(path) in str(problem) for problem in problems)
        lost = set(NUMBERS) - read_what_reads(reading(root))
        assert {make_key(number) for number in lost} <= named
        noticed += bool(problems)
        flip(path, place, bit)
    assert noticed > 140  # the others hit the forgotten row
    assert made.verify() == []


def shrink_pages(root: Path) -> None:
    """Give the manifest trees of several levels, and few bytes that mean nothing."""
    connection = sqlite3.connect(root / "manifest.sqlite", isolation_level=None)
    for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"):
        connection.execute(statement)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def check_bit(root: Path, path: Path, place: int, bit: int) -> bool:
    """Flip a bit in a copy of the store; return whether readers noticed it."""
    spare = root.with_name("spare")
    shutil.copytree(root, spare, copy_function=shutil.copyfile)
    try:
        flip(spare / path.relative_to(root), place, bit)
        noticed = not reads_as_written(spare)
        mend(spare)
        assert reads_as_written(spare)
    finally:
        shutil.rmtree(spare)
    return noticed


def test_bits_of_the_manifest(one_root: Path) -> None:
    shrink_pages(one_root)
    bits = list(choose_bits([one_root / "manifest.sqlite"], 180))
    assert sum(check_bit(one_root, *bit) for bit in bits) > 50


def test_rows_whose_shard_the_manifest_lost(one_root: Path) -> None:
    """The shard is taken in anew, which must not leave its rows uncounted."""
    connection = sqlite3.connect(one_root / "manifest.sqlite", isolation_level=None)
    generation = "(SELECT id FROM generations WHERE stage = ?)"
    connection.execute(f"DELETE FROM shards WHERE shard = 0 AND generation = {generation}", [STAGE])
    connection.close()
    mend(one_root)
    assert reads_as_written(one_root)


@pytest.mark.slow
def test_every_bit_of_the_manifest(one_root: Path) -> None:
    shrink_pages(one_root)
    path = one_root / "manifest.sqlite"
    for place in range(path.stat().st_size):
        for bit in range(8):
            check_bit(one_root, path, place, bit)


def test_bits_of_the_log_of_the_manifest(one_root: Path) -> None:
    """What a damaged log hides from readers is there again once the store is opened to write."""
    crashed = one_root.with_name("crashed")
    with open_store(one_root, "a") as store:
        made = store.generation(STAGE, make_key(1000))
        made.forget(KEYS[::2])
        made.append(make_rows(*NUMBERS[::2]))
        shutil.copytree(one_root, crashed)
    log = crashed / "manifest.sqlite-wal"
    spare = one_root.with_name("spare")
    for _, place, bit in choose_bits([log], 50):
        shutil.copytree(crashed, spare)
        flip(spare / log.name, place, bit)
        made = reading(spare)
        there = [number for number in NUMBERS if not made.missing([make_key(number)])]
        assert_rows(made, there)
        mend(spare)
        assert reads_as_written(spare)
        shutil.rmtree(spare)


def test_bits_of_the_descriptions(root: Path) -> None:
    """A store is refused or reads as written; what other programs read is written anew."""
    texts = sorted(path for path in root.rglob("*") if path.suffix in (".json", ".csv"))
    texts = [path for path in texts if "verb" not in path.parts]
    spare = root.with_name("spare")
    shutil.copytree(root, spare)
    for path, place, bit in choose_bits(texts, 45):
        copy = spare / path.relative_to(root)
        flip(copy, place, bit)
        if reads_as_written(spare):
            assert reading(spare).layout.encode() == reading(root).layout.encode()
            with open_store(spare, "a") as store:
                made: Any = store.generation(STAGE, make_key(1000))
                assert made.verify() == []
                assert_rows(made, NUMBERS)
        elif path.name == "stage.json":
            mend(spare)
            assert reads_as_written(spare)
        else:
            assert path.name == "symbio.json"
            with pytest.raises(ValueError, match=path.name):
                open_store(spare, "a")
        shutil.copyfile(path, copy)


@pytest.mark.parametrize("clip_id", ["'P99'", "''", "CAST(x'ff' AS TEXT)", "x'50'"])
def test_a_changed_name_of_a_row_is_found_and_learnt_again(one_root: Path, clip_id: str) -> None:
    statement = f"UPDATE rows SET clip_id = {clip_id} WHERE clip_id = 'P01_33'"
    change_manifest(one_root, statement, sealed=False)
    made = reading(one_root)
    assert_rows(made, NUMBERS)
    with pytest.raises(RuntimeError, match=r"got a changed row in|Could not decode"):
        made.infos([make_key(33)])
    with open_store(one_root, "a") as store:
        (problem,) = store.generation(STAGE, make_key(1000)).repair()
    assert problem.row_keys == (make_key(33),)
    assert "'P01_33'" in str(problem)
    assert reads_as_written(one_root)


# ---- whole files


def lose(path: Path, how: str) -> None:
    """Damage a file of the first shard."""
    size = path.stat().st_size
    match how:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(bytes(size))
        case "exchanged":
            second = path.with_name(path.name.replace(".0", ".1", 1))
            assert abs(second.stat().st_size - size) < 20
            shutil.copyfile(second, path)
        case "of another generation":
            root = path.parents[[parent.name for parent in path.parents].index(STAGE) + 1]
            (other,) = (
                (root / "verb").rglob(path.name)
                if "h5" in path.name
                else [root / "verb" / make_key(1001)[:12] / path.parent.name / path.name]
            )
            shutil.copyfile(other, path)
        case "cut in the index":
            os.truncate(path, size - 9)
        case _:
            os.truncate(path, int(how))


@pytest.mark.parametrize(
    "how",
    [
        "deleted",
        "emptied",
        "exchanged",
        "of another generation",
        "cut in the index",
        "0",
        "1",
        "50",
    ],
)
def test_a_lost_file_costs_the_rows_in_it(root: Path, how: str) -> None:
    made = reading(root)
    files = [path for path in shard_files(made) if path.name.split(".")[1] == "0"]
    for path in {files[0], files[-1]}:
        whole = path.read_bytes()
        lose(path, how)
        problems = made.verify()
        assert {key for problem in problems for key in problem.row_keys} == set(KEYS[:10])
        assert all(str(path) in str(problem) and "'P01_20'" in str(problem) for problem in problems)
        assert read_what_reads(reading(root)) == set(NUMBERS[10:])
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        assert made.verify() == []
