"""index.bin: opening is fast with it, and nothing is believed of it that the manifest denies."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from store_damage import flip
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_failure,
    make_key,
    make_rows,
)

import stores.manifest_index
from stores import Store, open_store
from stores.index_file import DamagedIndexError, read_index
from stores.manifest_index import PlacedRows, places_of
from stores.manifest_records import PLACE
from stores.row_keys import packed_array

KEY = make_key(1000)


@pytest.fixture
def root() -> Iterator[Path]:
    """Yield a closed store: rows 0 to 24 in shards 0 to 2."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a") as store:
            open_made(store).append(make_rows(*range(25)))
        yield folder / "store"


def open_made(store: Store, key: str = KEY) -> Any:
    return store.generation(STAGE, key, SPECS, shard_mib=TEN_ROWS_MIB)


def index_of(root: Path, key: str = KEY) -> Path:
    return root / STAGE / key[:12] / "index.bin"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shards whose rows the manifest was asked for; None stands for all."""
    asked: list[Any] = []
    read_rows = stores.manifest_index._read_rows

    def noting(connection: Any, generation: int, shards: Any) -> Any:
        asked.append(None if shards is None else sorted(shards))
        return read_rows(connection, generation, shards)

    monkeypatch.setattr(stores.manifest_index, "_read_rows", noting)
    return asked


def check(root: Path, numbers: list[int], missing: list[int]) -> None:
    """Assert that a reader and a writer find these rows, and not those."""
    for mode in ("r", "a"):
        with open_store(root, mode) as store:
            made = store.generation(STAGE, KEY)
            assert len(made) == len(numbers)
            assert_rows(made, numbers)
            keys = [make_key(number) for number in missing]
            assert made.missing(keys) == keys
            assert made.keys() == sorted(made.keys(), key=made.keys().index)


def test_nothing_is_asked_of_the_manifest_where_the_file_says_it_all(
    root: Path, asked: list[Any]
) -> None:
    check(root, list(range(25)), [25])
    assert asked == []


def test_only_shards_that_are_new_are_asked_for(root: Path, asked: list[Any]) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(*range(30, 42)))
        with open_store(root) as reading:
            assert_rows(reading.generation(STAGE, KEY), [0, 24, 30, 41])
        assert asked == [[3, 4]]
    check(root, [*range(25), *range(30, 42)], [25])
    assert asked == [[3, 4]]


@pytest.mark.parametrize("change", ["forget", "commit", "move", "forget and commit"])
def test_an_old_file_is_of_use_for_what_did_not_change(
    root: Path, asked: list[Any], change: str
) -> None:
    old = index_of(root).read_bytes()
    expected, missing, behind = list(range(25)), [50], [1]
    with open_store(root, "a") as store:
        made = open_made(store)
        if change == "commit":
            made.append(make_rows(30))
            expected, behind = [*expected, 30], [3]
        elif change == "move":
            receipt = made.write_shard(made.reserve_shards(1), make_rows(13))
            made._writing().move(STAGE, KEY, receipt)
            behind = [1, 3]
        else:
            made.forget([make_key(13)])
            expected.remove(13)
            missing.append(13)
        if change == "forget and commit":
            made.append(make_rows(13))
            expected, missing, behind = [*expected, 13], [50], [1, 3]
    index_of(root).write_bytes(old)
    asked.clear()
    with open_store(root) as store:
        assert_rows(store.generation(STAGE, KEY), expected)
    assert asked == [behind]
    check(root, expected, missing)
    assert asked == [behind] * 3  # the writer has put it right
    check(root, expected, missing)
    assert asked == [behind] * 3


@pytest.mark.parametrize("place", [0, 7, 8, 16, 20, 16 + 25 * 32, 16 + 25 * 32 + 8, -1, -4, "cut"])
def test_a_damaged_file_is_not_believed(root: Path, asked: list[Any], place: int | str) -> None:
    path = index_of(root)
    right = path.read_bytes()
    if isinstance(place, str):
        os.truncate(path, len(right) - 1)
    else:
        flip(path, place % len(right), bit=3)
    with open_store(root) as store:
        (problem,) = store.generation(STAGE, KEY).verify()
        assert str(path) in str(problem)
        assert_rows(store.generation(STAGE, KEY), list(range(25)))
    assert None in asked
    check(root, list(range(25)), [25])
    assert path.read_bytes() == right
    with open_store(root) as store:
        assert store.generation(STAGE, KEY).verify() == []


@pytest.mark.parametrize("what", ["link", "folder", "pipe", "gone"])
def test_what_is_no_file_is_put_aside_or_passed_over(root: Path, what: str) -> None:
    path = index_of(root)
    path.rename(path.with_name("other.bin"))
    if what == "link":
        path.symlink_to("other.bin")
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    check(root, list(range(25)), [25])


@pytest.mark.parametrize("same_stage", [True, False])
def test_the_file_of_another_generation_is_not_believed(root: Path, same_stage: bool) -> None:
    other_stage, other_key = (STAGE, make_key(1001)) if same_stage else ("verb", KEY)
    with open_store(root, "a") as store:
        other = store.generation(other_stage, other_key, SPECS, shard_mib=TEN_ROWS_MIB)
        other.append(make_rows(*reversed(range(25))))  # the same keys, in other places
    theirs = root / other_stage / other_key[:12] / "index.bin"
    shutil.copyfile(theirs, index_of(root))
    check(root, list(range(25)), [25])


def test_the_file_of_a_copy_that_went_its_own_way_is_not_believed(root: Path) -> None:
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    for place, numbers in ((root, range(30, 34)), (copy, range(40, 44))):
        with open_store(place, "a") as store:
            open_made(store).append(make_rows(*numbers))
    shutil.copyfile(index_of(copy), index_of(root))
    check(root, [*range(25), *range(30, 34)], [40, 43])


def test_rows_of_a_generation_that_was_removed_are_not_in_the_next(root: Path) -> None:
    old = index_of(root).read_bytes()
    with open_store(root, "a") as store:
        store.remove(STAGE, KEY)
        open_made(store).append(make_rows(7, 3))
    index_of(root).write_bytes(old)
    check(root, [7, 3], [0, 24])


def rewritten(data: bytes, count: int, keys: bytes, numbers: bytes) -> bytes:
    """Return an index of other content whose checksum is right."""
    body = data[:8] + count.to_bytes(8, "little") + keys + numbers
    return body + crc32c(body).to_bytes(4, "little")


@pytest.mark.parametrize("lie", ["swapped", "negative", "beyond", "twice", "unsorted"])
def test_a_forged_file_names_no_wrong_row(root: Path, lie: str) -> None:
    path = index_of(root)
    data = path.read_bytes()
    count = int.from_bytes(data[8:16], "little")
    keys = np.frombuffer(data, "S32", count, 16).copy()
    numbers = np.frombuffer(data, "<i8", count, 16 + 32 * count).copy()
    if lie == "swapped":
        numbers[[3, 4]] = numbers[[4, 3]]
    elif lie == "negative":
        numbers[3] = -1
    elif lie == "beyond":
        numbers[3] = 10**15
    elif lie == "twice":
        keys[3] = keys[4]
    else:
        keys, numbers = keys[::-1].copy(), numbers[::-1].copy()
    path.write_bytes(rewritten(data, count, keys.tobytes(), numbers.tobytes()))
    with open_store(root) as store:
        made = store.generation(STAGE, KEY)
        assert_rows(made, list(range(25)))
        assert len(made) == 25
    check(root, list(range(25)), [25])


def test_a_file_cannot_fill_memory(root: Path) -> None:
    count = 10**6
    data = rewritten(index_of(root).read_bytes(), count, bytes(32 * count), bytes(8 * count))
    index_of(root).write_bytes(data)
    with pytest.raises(DamagedIndexError, match=r"got 1,000,000 rows in .*, expected some 25"):
        read_index(index_of(root).parent, 25)


def change_a_row(root: Path) -> None:
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        connection.execute("UPDATE rows SET slot = 1 - slot WHERE shard = 1 AND slot < 2")
    connection.close()


def test_a_changed_record_is_mended_by_whoever_meets_it(root: Path) -> None:
    change_a_row(root)
    with open_store(root) as store:
        assert_rows(store.generation(STAGE, KEY), list(range(25)))
        assert "changed row" in str(store.generation(STAGE, KEY).verify()[0])
    store = open_store(root, "a")
    open_made(store).append(make_rows(30))
    with pytest.raises(RuntimeError, match="a changed row"):
        store.close()  # which writes rows.csv
    open_store(root, "a").close()
    check(root, [*range(25), 30], [31])
    with open_store(root) as store:
        assert store.check() == store.generation(STAGE, KEY).verify() == []


def test_a_changed_record_is_mended_by_a_close_look(root: Path) -> None:
    change_a_row(root)
    with open_store(root, "a", recheck=True) as store:
        assert store.check() == open_made(store).verify() == []
    check(root, list(range(25)), [25])


def test_failures_alone_do_not_write_it_anew(root: Path) -> None:
    before = index_of(root).stat()
    with open_store(root, "a") as store:
        open_made(store).commit([], [make_failure(30)])
    assert os.path.samestat(index_of(root).stat(), before)


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=32, max_size=32), st.integers(-(2**63), 2**63 - 1), st.integers(0, 9)
        )
    ),
    st.integers(0, 2**40),
)
def test_places_are_checksums_of_records(rows: list[tuple[bytes, int, int]], made: int) -> None:
    keys = packed_array([key.hex() for key, _, _ in rows])
    numbers = (np.array([row[at] for row in rows], np.int64) for at in (1, 2))
    expected = [crc32c(PLACE.pack(made, *row)) for row in rows]
    assert places_of(made, PlacedRows(keys, *numbers)).tolist() == expected
