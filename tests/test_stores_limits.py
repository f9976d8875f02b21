"""What a process may not do: write there, have more files open, write larger ones."""

from __future__ import annotations

import errno
import gc
import os
import random
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_calls import Say, in_child
from fault_harness import Kind, check_values, every_kind, number_of, rows_of, temps
from fault_limits import become_nobody, mount_small_disk, remount
from store_suite import fast_folder, make_key

from stores import ArraySpec, FeatureStore, Row, RowInfo

STAGE = "objects"
ROWS = list(range(40))
READ_ONLY = r"got no access to write to this store, expected it; .* mode 'r': '.*/store'"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that every user may enter."""
    with fast_folder() as folder:
        folder.chmod(0o755)
        yield folder


def fill(kind: Kind, root: Path) -> None:
    """Make a store with twenty shards."""
    with kind.open(root) as store:
        kind.generation(store, STAGE).append(rows_of(STAGE, ROWS))


def check_readable(kind: Kind, root: Path) -> None:
    with kind.open(root, "r") as store:
        check_values(kind.generation(store, STAGE), ROWS)


def numbers_in(made: FeatureStore) -> set[int]:
    return set(map(number_of, made.keys()))


# ---- writing


@every_kind
def test_a_disk_that_is_read_only(kind: Kind, folder: Path) -> None:
    def work(say: Say) -> None:
        mount_small_disk(folder, 12 * 2**20)
        fill(kind, folder / "store")
        remount(folder, read_only=True)
        with pytest.raises(OSError, match=f"Read-only file system: {READ_ONLY}"):
            kind.open(folder / "store")
        with pytest.raises(OSError, match=r"Read-only file system: '.*/other'"):
            kind.open(folder / "other")
        check_readable(kind, folder / "store")

    in_child(work)


@every_kind
def test_folders_of_somebody_else(kind: Kind, folder: Path) -> None:
    fill(kind, folder / "store")
    if os.getuid():
        for path in (folder / "store", folder):
            path.chmod(0o555)

    def work(say: Say) -> None:
        become_nobody()
        with pytest.raises(PermissionError, match=f"Permission denied: {READ_ONLY}"):
            kind.open(folder / "store")
        with pytest.raises(PermissionError, match=r"Permission denied: '.*/other'"):
            kind.open(folder / "other")
        check_readable(kind, folder / "store")

    try:
        in_child(work)
    finally:
        for path in (folder, folder / "store"):
            path.chmod(0o755)


@every_kind
def test_a_generation_of_somebody_else(kind: Kind, folder: Path) -> None:
    fill(kind, folder / "store")

    def work(say: Say) -> None:
        become_nobody()
        store = kind.open(folder / "store")
        made = kind.generation(store, STAGE)
        with pytest.raises(PermissionError, match=r"Permission denied .*writing.*/store/objects/"):
            made.append(rows_of(STAGE, [100]))
        check_values(made, ROWS)
        assert numbers_in(made) == set(ROWS)

    for path in folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    locked = [path for path in (folder / "store" / STAGE).rglob("*") if path.is_dir()]
    for path in locked:
        path.chmod(0o555)
    try:
        in_child(work)
    finally:
        for path in locked:
            path.chmod(0o755)


# ---- open files


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Let this process open only so many files more."""
    gc.disable()  # else it may close files of earlier errors meanwhile
    highest = max(map(int, os.listdir("/proc/self/fd")))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    with ExitStack() as stack:
        for number in range(highest):
            try:
                os.fstat(number)
            except OSError:
                stack.callback(os.close, os.dup2(highest, number))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_too_many(error: OSError, root: Path, advice: str = "") -> None:
    if error.errno != errno.EMFILE or str(root) not in str(error) or advice not in str(error):
        raise error


@every_kind
def test_reading_more_shards_than_files_may_be_open(kind: Kind, folder: Path) -> None:
    fill(kind, folder / "store")

    def work(say: Say) -> None:
        refused = []
        for count in range(12):
            with kind.open(folder / "store", "r") as store:
                made = kind.generation(store, STAGE)
                made.missing([])  # which looks into the manifest
                with free_descriptors(count):
                    try:
                        check_values(made, random.Random(count).sample(ROWS, len(ROWS)))
                    except OSError as error:
                        check_too_many(error, folder, "allow more with `ulimit -n`")
                        refused.append(count)
                check_values(made, ROWS)
        assert refused == [0, 1]

    in_child(work)


@every_kind
def test_files_stay_free_for_others(kind: Kind, folder: Path) -> None:
    fill(kind, folder / "store")

    def work(say: Say) -> None:
        with kind.open(folder / "store", "r") as store:
            made = kind.generation(store, STAGE)
            before = len(os.listdir("/proc/self/fd"))
            limit = before + 40
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            check_values(made, ROWS)
            lock = 1
            assert len(os.listdir("/proc/self/fd")) - before <= limit // 8 + lock

    in_child(work)


@every_kind
@pytest.mark.parametrize("mode", ["r", "a"])
def test_opening_with_few_files(kind: Kind, folder: Path, mode: str) -> None:
    fill(kind, folder / "store")

    def work(say: Say) -> None:
        refused = []
        for count in range(20):
            with free_descriptors(count):
                try:
                    with kind.open(folder / "store", mode) as store:
                        check_values(kind.generation(store, STAGE), ROWS)
                except OSError as error:
                    check_too_many(error, folder)
                    refused.append(count)
        assert 0 in refused
        assert refused == list(range(len(refused)))
        assert len(refused) < 15

    in_child(work)


@every_kind
def test_writing_with_few_files(kind: Kind, folder: Path) -> None:
    def work(say: Say) -> None:
        refused = []
        with kind.open(folder / "store") as store:
            made = kind.generation(store, STAGE)
            for count in range(15):
                with free_descriptors(count):
                    try:
                        made.append(rows_of(STAGE, [count]))
                    except OSError as error:
                        check_too_many(error, folder)
                        refused.append(count)
                check_values(made, sorted(numbers_in(made)))
                made.append(rows_of(STAGE, {count} - numbers_in(made)))
                assert made.verify() == []
                assert temps(folder) == []
        assert 0 < len(refused) < 15
        with kind.open(folder / "store", "r") as store:
            assert numbers_in(kind.generation(store, STAGE)) == set(range(15))

    in_child(work)


# ---- the size of files


@every_kind
def test_files_that_may_not_become_so_large(kind: Kind, folder: Path) -> None:
    specs = {"map": ArraySpec(("x",), (2**16,), "float32")}

    def work(say: Say) -> None:
        with kind.open(folder / "store") as store:
            made: Any = store.generation("verb", make_key(1), specs, shard_mib=1)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))
            row = Row(make_key(1), {"map": np.ones(2**16, np.float32)}, RowInfo("clip"))
            with pytest.raises(OSError, match=r"File too large \(while writing 2\d\d,.*/verb/"):
                made.append([row])
            assert temps(folder) == []
            small = kind.generation(store, STAGE)
            with pytest.raises(OSError, match=r"SQLite says.*/manifest\.sqlite'"):  # noqa: PT012
                for number in range(1000):
                    small.append(rows_of(STAGE, [number]))
            assert numbers_in(small) == set(range(number))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            made.append([row])
            small.append(rows_of(STAGE, [number]))
        with kind.open(folder / "store", "r") as store:
            assert store.generation("verb", make_key(1)).read([make_key(1)])["map"].all()
            check_values(kind.generation(store, STAGE), list(range(number + 1)))

    in_child(work)
