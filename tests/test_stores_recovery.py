"""Crashes at every point, lost and damaged manifests, half-written shards."""

import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
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

from stores import Row, open_store
from stores.formats import shard_format
from stores.manifest_writer import ManifestWriter


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
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


def temps(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*.tmp")]


def assert_sound(root: Path, acknowledged: list[int], possible: list[int]) -> None:
    """Assert what must hold after any crash, then that the work can be finished."""
    with open_store(root, "a") as store:
        made = open_made(store)
        assert temps(root) == []
        assert made.verify() == []
        there = [number for number in possible if not made.missing([make_key(number)])]
        assert set(acknowledged) <= set(there)
        assert len(made) == len(there)
        assert_rows(made, there)
        made.append(make_rows(*[number for number in possible if number not in there]))
        assert_rows(made, possible)
        assert made.verify() == []
        count: Any = zarr.open_array(made.path / "count", mode="r")[:]
        assert set(possible) <= set(count.tolist())


# ---- crashes


def run_and_crash(task: Callable[[], None], crash_at: int) -> bool:
    """Run `task` in a child that dies at its n-th step to disk; return whether it came so far.

    A write is cut in half, so that every second crash leaves a torn file.
    """
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        return code == 9
    steps = 0

    def step(before: Callable[[], None] = lambda: None) -> None:
        nonlocal steps
        steps += 1
        if steps == crash_at:
            before()
            os._exit(9)

    real = {name: getattr(os, name) for name in ("open", "writev", "fsync", "link", "rename")}

    def wrap(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            def write_half() -> None:
                if name == "writev":
                    data = b"".join(args[1])
                    os.write(args[0], data[: len(data) // 2])

            step(write_half)
            return real[name](*args, **kwargs)

        return call

    def commit(*args: Any) -> None:
        step()
        real_commit(*args)
        step()

    try:
        for name in real:
            setattr(os, name, wrap(name))
        real_commit = ManifestWriter.commit
        ManifestWriter.commit = commit  # type: ignore[method-assign, assignment]
        task()
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)


def test_a_crash_at_any_step_loses_nothing_that_was_acknowledged() -> None:
    specs = {name: SPECS[name] for name in ("count", "mask")}

    def rows(*numbers: int) -> list[Row]:
        return [
            Row(row.key, {name: row.arrays[name] for name in specs}, row.info)
            for row in make_rows(*numbers)
        ]

    def work(folder: Path) -> None:
        with open_store(folder / "store", "a") as store:
            made = store.generation(STAGE, make_key(1000), specs)
            for numbers in ((1, 2), (3,)):
                made.append(rows(*numbers))
                (folder / f"done{numbers[-1]}").touch()

    crash_at, outcomes = 0, set()
    running = True
    while running:
        crash_at += 1
        with fast_folder() as folder:
            running = run_and_crash(lambda folder=folder: work(folder), crash_at)  # type: ignore[misc]
            with open_store(folder / "store", "a") as store:
                made = store.generation(STAGE, make_key(1000), specs)
                assert temps(folder) == []
                assert made.verify() == []
                there = tuple(n for n in (1, 2, 3) if not made.missing([make_key(n)]))
                outcomes.add(there)
                if (folder / "done2").exists():
                    assert there[:2] == (1, 2)
                if (folder / "done3").exists():
                    assert there == (1, 2, 3)
                made.append(rows(*({1, 2, 3} - set(there))))
                values = made.read([make_key(n) for n in (3, 1, 2)])
                assert values["count"].tolist() == [3, 1, 2]
                assert values["mask"].tolist() == [[1, 0, 1], [1, 0, 1], [1, 0, 0]]
    # Every prefix of the work was seen, and nothing else.
    assert outcomes == {(), (1, 2), (1, 2, 3)}
    assert crash_at > 60


WORKER = """
import sys
sys.path[:0] = {path!r}
from store_suite import SPECS, STAGE, TEN_ROWS_MIB, make_key, make_rows
from stores import open_store
made = open_store(sys.argv[1], "a").generation(STAGE, make_key(1000), SPECS, None, TEN_ROWS_MIB)
number = int(sys.argv[2])
while True:
    made.append(make_rows(*range(number, number + 7)))
    number += 7
    print(number, flush=True)
"""


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    choose = random.Random(7)
    root, done = tmp_path / "store", 0
    for _ in range(5):
        script = WORKER.format(path=[str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-c", script, str(root), str(done)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert select.select([worker.stdout], [], [], 60)[0]
            time.sleep(choose.uniform(0, 0.06))
            worker.send_signal(signal.SIGKILL)
            lines = worker.stdout.read().split()
        done = int(lines[-1])
        with open_store(root, "a") as store:
            made = open_made(store)
            assert temps(root) == []
            assert made.verify() == []
            done = len(made)
            assert int(lines[-1]) <= done <= int(lines[-1]) + 7
            assert_rows(made, list(range(done)))


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
        assert zarr.open_array(made.path / "count", mode="r").shape == (12,)
        assert "P01_2" in (made.path / "rows.csv").read_text()
        assert made.reserve_shards(1) == 2


def test_only_intact_rows_of_an_unknown_shard_are_adopted(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.write_shard(made.reserve_shards(1), make_rows(1, 2, 3))
        with (made.path / "mask/c.0.0").open("r+b") as file:
            file.seek(3 + 4)  # the second row; each has three values and a checksum
            file.write(b"\x55")
    with open_store(root, "a") as store:
        made = open_made(store)
        assert made.missing([make_key(n) for n in (1, 2, 3)]) == [make_key(2)]
        assert_rows(made, [3, 1])
        made.append(make_rows(2))
        assert_rows(made, [1, 2, 3])


def test_an_unknown_shard_without_an_intact_row_is_no_obstacle(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.write_shard(made.reserve_shards(1), make_rows(1))
        with (made.path / "count/c.0").open("r+b") as file:
            file.write(b"\x55")
    with open_store(root, "a") as store:
        made = open_made(store)
        assert len(made) == 0
        made.append(make_rows(1))
        assert_rows(made, [1])
        assert made.verify() == []


@pytest.mark.parametrize("damage", ["missing", "cut", "footer", "other shard", "other rows"])
def test_a_shard_that_is_not_whole_is_put_aside(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(0))
        first = made.reserve_shards(2)
        made.write_shard(first, make_rows(1))
        made.write_shard(first + 1, make_rows(2))
        victim = made.path / "mask" / f"c.{first}.0"
        if damage == "missing":
            victim.unlink()
        elif damage == "cut":
            os.truncate(victim, victim.stat().st_size - 1)
        elif damage == "footer":
            data = bytearray(victim.read_bytes())
            data[20] ^= 1  # after one row of 3 + 4 bytes
            victim.write_bytes(data)
        elif damage == "other shard":
            shutil.copyfile(made.path / "mask" / f"c.{first + 1}.0", victim)
        else:
            with open_store(root.with_name("second"), "a") as second:
                other = open_made(second)
                other.reserve_shards(2)
                other.write_shard(first, make_rows(7))
                shutil.copyfile(other.path / "mask" / victim.name, victim)
    with open_store(root, "a") as store:
        made = open_made(store)
        assert made.keys() == [make_key(0), make_key(2)]
        assert made.verify() == []
        aside = sorted(path.name for path in (made.path / ".quarantine").iterdir())
        form = shard_format("zarr")
        expected = [f"{name}.{form.path(made.layout, name, first).name}" for name in SPECS]
        assert aside == sorted(set(expected) - ({"mask.c.1.0"} if damage == "missing" else set()))
        assert not victim.exists()
        assert "shard 1 of stage 'objects' not committed and not whole" in caplog.text
        assert made.reserve_shards(1) == 3
        made.append(make_rows(1))
        assert_rows(made, [0, 1, 2])


def test_zarr_documents_and_listing_catch_up(root: Path) -> None:
    folder = fill_store(root, [1, 2], [3])
    old = (folder / "rows.csv").read_text(), (folder / "count/zarr.json").read_text()
    (folder / "count/zarr.json").write_text("")  # as after a power cut
    (folder / "mask/zarr.json").unlink()
    (folder / "rows.csv").write_text("old")
    open_store(root, "a").close()
    assert ((folder / "rows.csv").read_text(), (folder / "count/zarr.json").read_text()) == old
    assert zarr.open_array(folder / "mask", mode="r").shape == (11, 3)


def test_leftovers_of_a_store_that_was_never_finished_are_taken_over(root: Path) -> None:
    root.mkdir()
    (root / ".lock").touch()
    (root / f".symbio.json.77.{'ab' * 16}.tmp").write_text('{"form')
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
    with open_store(root, "a") as store:
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
