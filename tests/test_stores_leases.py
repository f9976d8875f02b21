"""Shards on lease: written by jobs that nobody waits for, while others open the store."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_harness import temps
from store_damage import files_of
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_key,
    make_rows,
)

from stores import GenerationInUseError, Lease, ShardRange, Store, open_store
from stores.formats import FORMATS
from stores.memory_store import MemoryStore

KEY = make_key(1000)
TEMP_ENDING = f"77.{'ab' * 16}.tmp"


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield a store of each format with row 0 in shard 0, and shards 1 to 4 on lease."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            made = open_made(store)
            made.append(make_rows(0))
            first = made.reserve_shards(4)
            store.lease("array-7", [ShardRange(STAGE, KEY, first, 4)])
        yield folder / "store"


def open_made(store: Store) -> Any:
    return store.generation(STAGE, KEY, SPECS, shard_mib=TEN_ROWS_MIB)


def temp_of(path: Path) -> Path:
    """Make a temporary file, such as a job has while it writes `path`."""
    temp = path.with_name(f".{path.name}.{TEMP_ENDING}")
    temp.write_bytes(b"half a shard")
    return temp


def work_of_a_job(root: Path) -> tuple[list[Path], list[Path]]:
    """Write shard 1 whole and 2 torn, and begin 3; return the files of 2 and the temporary ones."""
    made = open_made(open_store(root))
    writer = made.shard_writer()
    writer.write_shard(1, make_rows(1, 2))
    writer.write_shard(2, make_rows(3))
    torn = files_of(made, 2)
    os.truncate(torn[-1], torn[-1].stat().st_size - 1)
    return torn, [temp_of(path) for path in files_of(made, 3)]


def files_in(root: Path) -> dict[Path, int]:
    parts = ("c.*", "shard.*", ".c.*", ".shard.*", ".quarantine/*")
    return {path: path.stat().st_size for part in parts for path in root.rglob(part)}


def test_what_is_on_lease_is_left_alone(root: Path) -> None:
    work_of_a_job(root)
    before = files_in(root)
    for _ in range(2):
        with open_store(root, "a") as store:
            made = open_made(store)
            assert made.keys() == [make_key(0)]
            assert made.reserve_shards(1) > 4
            assert store.check() == made.verify() == []
            assert files_in(root) == before


def test_receipts_of_shards_on_lease_are_committed(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        receipt = made.shard_writer().write_shard(1, make_rows(1, 2))
        made.commit([receipt])
    with open_store(root, "a") as store:
        assert_rows(open_made(store), [0, 1, 2])
        store.release("array-7")
    with open_store(root, "a") as store:
        assert_rows(open_made(store), [0, 1, 2])


def test_after_the_release_things_are_put_in_order(root: Path) -> None:
    torn, _ = work_of_a_job(root)
    with open_store(root, "a") as store:
        store.release("array-7")
        store.release("array-7")
        assert store.leases() == []
    with open_store(root, "a") as store:
        made = open_made(store)
        assert_rows(made, [0, 1, 2])
        assert temps(root) == []
        aside = [path.name for path in (made.path / ".quarantine").iterdir()]
        assert len(aside) == len(torn)
        assert not any(path.exists() for path in torn)


def test_what_is_not_on_lease_is_put_in_order_meanwhile(root: Path) -> None:
    _, begun = work_of_a_job(root)
    with open_store(root, "a") as store:
        made = open_made(store)
        shard = made.reserve_shards(2)
        made.write_shard(shard, make_rows(7))
        left = temp_of(files_of(made, shard + 1)[0])
        other = temp_of(made.path / "rows.csv")
    with open_store(root, "a") as store:
        assert_rows(open_made(store), [0, 7])
    assert not left.exists()
    assert not other.exists()
    assert all(path.exists() for path in begun)


def test_another_generation_knows_nothing_of_the_lease(root: Path) -> None:
    with open_store(root, "a") as store:
        other = store.generation(STAGE, make_key(1001), SPECS, shard_mib=TEN_ROWS_MIB)
        other.write_shard(other.reserve_shards(2) + 1, make_rows(5))
    with open_store(root, "a") as store:
        other = store.generation(STAGE, make_key(1001))
        assert_rows(other, [5])
        store.remove(STAGE, make_key(1001))


def test_numbers_on_lease_are_not_handed_out_after_the_loss_of_the_manifest(root: Path) -> None:
    (root / "manifest.sqlite").unlink()
    with open_store(root, "a") as store:
        assert open_made(store).reserve_shards(1) == 5


def test_numbers_on_lease_are_not_handed_out_by_a_generation_that_is_made_anew(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.path.rename(root.parent / "away")
    with open_store(root, "a") as store:
        store.repair()
        assert open_made(store).reserve_shards(1) == 5


def test_a_generation_on_lease_stays(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.forget([make_key(0)])
        (left,) = store.leftovers()
        with pytest.raises(GenerationInUseError, match="write to under lease 'array-7'"):
            store.remove(STAGE, KEY)
        with pytest.raises(GenerationInUseError, match="write to under lease 'array-7'"):
            store.remove_leftovers(left)
        assert files_of(made, 0)[0].exists()
        store.release("array-7")
        assert store.remove_leftovers(left) > 0
        assert store.remove(STAGE, KEY) > 0


@pytest.mark.parametrize("damage", ["flipped", "cut", "other name", "folder", "link", "no lease"])
def test_with_a_damaged_lease_anything_may_be_on_lease(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / ".leases/array-7.json"
    text = path.read_text()
    path.unlink()
    if damage == "flipped":
        path.write_text(text.replace('"first": 1', '"first": 3'))
    elif damage == "cut":
        path.write_text(text[:-3])
    elif damage == "other name":
        path = path.with_name("array-8.json")
        path.write_text(text)
    elif damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.with_name("other").write_text(text)
        path.symlink_to("other")
    else:
        path.write_text('["array-7"]')
    work_of_a_job(root)
    before = files_in(root)
    with open_store(root, "a") as store:
        assert files_in(root) == before
        assert open_made(store).keys() == [make_key(0)]
        assert "that is no lease" in caplog.text
        (problem,) = store.check()
        assert str(path) in str(problem)
        assert "delete that file" in str(problem)
        with pytest.raises(GenerationInUseError, match="that is no lease"):
            store.remove(STAGE, KEY)
        if damage == "folder":
            path.rmdir()
        store.release(path.stem)
    with open_store(root, "a") as store:
        assert_rows(open_made(store), [0, 1, 2])


def test_nothing_is_swept_where_it_cannot_be_told_what_is_on_lease(root: Path) -> None:
    _, begun = work_of_a_job(root)
    (root / "manifest.sqlite").unlink()
    for stage_file in root.rglob("stage.json"):
        stage_file.write_text("{}")
    open_store(root, "a").close()
    assert all(path.exists() for path in begun)


def test_a_lease_that_was_not_finished_is_none(root: Path) -> None:
    temp = temp_of(root / ".leases/array-8.json")
    with open_store(root, "a") as store:
        assert [lease.name for lease in store.leases()] == ["array-7"]
    assert not temp.exists()


def test_leases_are_for_writers(root: Path) -> None:
    with open_store(root) as store:
        assert [lease.name for lease in store.leases()] == ["array-7"]
        with pytest.raises(io.UnsupportedOperation, match="mode 'a'"):
            store.release("array-7")
        with pytest.raises(io.UnsupportedOperation, match="mode 'a'"):
            store.lease("array-8", [ShardRange(STAGE, KEY, 0, 1)])
        assert len(store.leases()) == 1


def test_a_lease_says_in_plain_words_what_it_is_about(root: Path) -> None:
    document = json.loads((root / ".leases/array-7.json").read_text())
    assert document["name"] == "array-7"
    assert document["shards"] == [{"stage": STAGE, "key": KEY, "first": 1, "count": 4}]


@pytest.mark.parametrize("name", ["", ".x", "a/b", "../a", "a b", "a" * 101, 7])
def test_lease_names_are_plain(root: Path, name: Any) -> None:
    with open_store(root, "a") as store:
        with pytest.raises(ValueError, match="got lease name"):
            store.lease(name, [ShardRange(STAGE, KEY, 1, 1)])
        with pytest.raises(ValueError, match="got lease name"):
            store.release(name)


# ---- whatever the store is kept in


@pytest.fixture(params=[*sorted(FORMATS), "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with fast_folder() as folder:
        if request.param == "memory":
            yield MemoryStore()
        else:
            with open_store(folder / "store", "a", request.param) as opened:
                yield opened


def test_leases_are_listed_until_they_are_released(store: Store) -> None:
    open_made(store).reserve_shards(10)
    other = store.generation("verb", KEY, SPECS)
    other.reserve_shards(3)
    ranges = [ShardRange(STAGE, KEY, 2, 5), ShardRange("verb", KEY, 0, 3)]
    second = store.lease("b", ranges)
    first = store.lease("a", [ShardRange(STAGE, KEY, 0, 1)])
    assert store.leases() == [first, second]
    assert second.shards == tuple(ranges)
    with pytest.raises(FileExistsError, match="got lease 'b'"):
        store.lease("b", ranges)
    store.release("b")
    assert store.leases() == [first]


def test_only_reserved_shards_are_leased(store: Store) -> None:
    open_made(store).reserve_shards(3)
    with pytest.raises(ValueError, match="reserved shards"):
        store.lease("a", [ShardRange(STAGE, KEY, 2, 2)])
    assert store.leases() == []


def test_what_is_on_lease_is_not_removed(store: Store) -> None:
    open_made(store).reserve_shards(3)
    store.lease("a", [ShardRange(STAGE, KEY, 2, 1)])
    with pytest.raises(GenerationInUseError, match="under lease 'a'"):
        store.remove(STAGE, KEY)
    store.release("a")
    store.remove(STAGE, KEY)


def test_a_lease_covers_its_shards_and_no_others() -> None:
    lease = Lease("a", "", (ShardRange(STAGE, KEY, 3, 2),))
    assert [n for n in range(9) if lease.covers(STAGE, KEY, n)] == [3, 4]
    assert not lease.covers("verb", KEY, 3)
    assert not lease.covers(STAGE, make_key(1), 3)
    assert not lease.is_about("verb", KEY)
