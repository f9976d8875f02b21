"""What a crash leaves behind, lost and damaged manifests."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_harness import temps
from store_damage import damage_row, files_of, flip
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_arrays,
    make_failure,
    make_key,
    make_rows,
)

from stores import open_store
from stores.formats import FORMATS


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield an empty store of each format."""
    with fast_folder() as folder:
        open_store(folder / "store", "a", request.param).close()
        yield folder / "store"


def open_made(store: Any) -> Any:
    return store.generation(STAGE, make_key(1000), SPECS, shard_mib=TEN_ROWS_MIB)


def fill_store(root: Path, *batches: list[int]) -> Path:
    with open_store(root, "a") as store:
        made = open_made(store)
        for numbers in batches:
            made.append(make_rows(*numbers))
        folder: Path = made.path
        return folder


def tables(root: Path) -> dict[str, list[Any]]:
    """Return what the manifest says about shards and rows."""
    connection = sqlite3.connect(root / "manifest.sqlite")
    names = ("shards", "rows")
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    connection.close()
    return found


# ---- what a crash leaves behind


def test_a_complete_shard_without_a_commit_is_adopted(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(0))
        made.commit([], [make_failure(1)])
        made.write_shard(made.reserve_shards(1), make_rows(1, 2))
        assert len(made) == 1
    with open_store(root, "a") as store:
        made = open_made(store)
        assert_rows(made, [0, 1, 2])
        assert made.failures() == []
        assert made.verify() == []
        assert "P01_2" in (made.path / "rows.csv").read_text()
        assert made.reserve_shards(1) == 2


def test_only_intact_rows_of_an_unknown_shard_are_adopted(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(1, 2, 3))
        damage_row(made, "mask", 2)
    (root / "manifest.sqlite").unlink()
    with open_store(root, "a") as store:
        made = open_made(store)
        assert made.missing([make_key(n) for n in (1, 2, 3)]) == [make_key(2)]
        assert_rows(made, [3, 1])
        made.append(make_rows(2))
        assert_rows(made, [1, 2, 3])


def test_an_unknown_shard_without_an_intact_row_is_no_obstacle(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(1))
        damage_row(made, "count", 1)
    (root / "manifest.sqlite").unlink()
    with open_store(root, "a") as store:
        made = open_made(store)
        assert len(made) == 0
        made.append(make_rows(1))
        assert_rows(made, [1])
        assert made.verify() == []


def write_two_shards(root: Path) -> tuple[list[Path], list[Path]]:
    """Write shards 1 and 2 with rows 1 and 2, and commit neither; return the files of each."""
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(0))
        for number in (1, 2):
            made.write_shard(made.reserve_shards(1), make_rows(number))
        return files_of(made, 1), files_of(made, 2)


def check_put_aside(root: Path, files: list[Path], log: str) -> None:
    """Assert that the next writer takes in shard 2 and puts these files of shard 1 aside."""
    with open_store(root, "a") as store:
        made = open_made(store)
        assert made.keys() == [make_key(0), make_key(2)]
        assert made.verify() == []
        aside = [path.name for path in (made.path / ".quarantine").iterdir()]
        assert len(aside) == len(files)
        assert all(any(name.endswith(path.name) for name in aside) for path in files)
        assert not any(path.exists() for path in files)
        assert "shard 1 of stage 'objects' not committed and not whole" in log
        assert made.reserve_shards(1) == 3
        made.append(make_rows(1))
        assert_rows(made, [0, 1, 2])


@pytest.mark.parametrize("damage", ["cut", "footer", "other shard"])
def test_a_shard_that_is_not_whole_is_put_aside(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files, others = write_two_shards(root)
    if damage == "cut":
        os.truncate(files[-1], files[-1].stat().st_size - 1)
    elif damage == "footer":
        flip(files[-1], files[-1].read_bytes().index(b'"rows_sha256"'))
    else:
        shutil.copyfile(others[-1], files[-1])
    open_store(root, "a").close()
    check_put_aside(root, files, caplog.text)


@pytest.mark.parametrize("root", ["zarr"], indirect=True)
@pytest.mark.parametrize("damage", ["missing", "other rows"])
def test_a_shard_is_put_aside_unless_its_files_belong_together(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = write_two_shards(root)
    if damage == "missing":
        files.pop().unlink()
    else:
        with open_store(root.with_name("second"), "a", "zarr") as second:
            other = open_made(second)
            other.reserve_shards(2)
            other.write_shard(1, make_rows(7))
            shutil.copyfile(files_of(other, 1)[-1], files[-1])
    open_store(root, "a").close()
    check_put_aside(root, files, caplog.text)


def test_documents_and_listing_catch_up(root: Path) -> None:
    folder = fill_store(root, [1, 2], [3])
    documents = [*root.rglob("zarr.json"), folder / "rows.csv"]
    old = {path: path.read_bytes() for path in documents}
    for place, path in enumerate(documents):
        path.unlink()
        if place % 2 == 0:  # as after a power cut
            path.write_text("")
    open_store(root, "a").close()
    assert {path: path.read_bytes() for path in documents} == old
    (folder / "rows.csv").write_text("old")
    open_store(root, "a").close()
    assert (folder / "rows.csv").read_bytes() == old[folder / "rows.csv"]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_leftovers_of_a_store_that_was_never_finished_are_taken_over(form: str) -> None:
    with fast_folder() as root:
        (root / ".lock").touch()
        (root / f".symbio.json.77.{'ab' * 16}.tmp").write_text('{"form')
        open_store(root, "a", form).close()
        fill_store(root, [1])
        assert temps(root) == []


# ---- the manifest


@pytest.mark.parametrize("loss", ["deleted", "empty", "text", "torn", "changed row"])
def test_a_lost_manifest_is_rebuilt_equal(root: Path, loss: str) -> None:
    fill_store(root, [3, 1, 4], list(range(10, 32)), [5])
    path = root / "manifest.sqlite"
    before = tables(root)
    if loss == "deleted":
        path.unlink()
        Path(f"{path}-wal").write_bytes(b"the log of a manifest that is gone")
    elif loss == "empty":
        path.write_bytes(b"")
    elif loss == "text":
        path.write_bytes(b"not a database " * 1000)
    elif loss == "torn":
        data = bytearray(path.read_bytes())
        data[4096 : len(data) // 2] = bytes(len(data) // 2 - 4096)
        path.write_bytes(data)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE rows SET slot = slot + 1 WHERE clip_id = 'P01_4'")
        connection.close()
    with open_store(root, "a", recheck=True) as store:
        made = open_made(store)
        assert_rows(made, [5, 4, 31, 10, 3, 1])
        assert made.reserve_shards(1) == 5
        assert made.verify() == []
    assert tables(root) == before


def test_a_reader_does_not_rebuild(root: Path) -> None:
    fill_store(root, [1])
    path = root / "manifest.sqlite"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(RuntimeError, match="delete that file and open the store for writing"):
        open_store(root).generations()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="open the store for writing once"):
        open_store(root).generations()
    assert not path.exists()


def test_a_reader_notices_a_changed_row(root: Path) -> None:
    fill_store(root, [1, 2])
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        connection.execute("UPDATE rows SET slot = 1 - slot")
    connection.close()
    next(root.rglob("index.bin")).unlink()  # which knows better
    with pytest.raises(RuntimeError, match="got a changed row of 'objects'"):
        open_store(root).generation(STAGE, make_key(1000)).read([make_key(1)])


def test_a_damaged_description_costs_one_generation(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill_store(root, [1])
    with open_store(root, "a") as store:
        store.generation("verb", make_key(1), SPECS).append(make_rows(2))
    (folder / "stage.json").write_text('{"format_version": 1}')
    (root / "manifest.sqlite").unlink()  # which has a copy
    with open_store(root, "a") as store:
        assert "no description of a generation" in caplog.text
        assert_rows(store.generation("verb", make_key(1)), [2])
        with pytest.raises(ValueError, match="no description of a generation"):
            open_made(store)


def test_duplicates_stay_readable_after_a_rebuild(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        first = made.reserve_shards(2)
        made.commit([made.write_shard(first + 1, make_rows(1, 2))])
        made.commit([made.write_shard(first, make_rows(2, 3))])
    (root / "manifest.sqlite").unlink()
    with open_store(root, "a") as store:
        made = open_made(store)
        assert len(made) == 3
        assert_rows(made, [1, 2, 3])
        np.testing.assert_array_equal(
            made.read([make_key(2)])["features"][0], make_arrays(2)["features"]
        )
