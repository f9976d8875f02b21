"""Disks that fail at any call, or are full."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_calls import WRITES, Call, FailAt, Say, in_child, intercepted
from fault_harness import Kind, check_values, every_kind, number_of, rows_of, temps
from fault_limits import mount_small_disk
from store_suite import fast_folder, make_key

from stores import ArraySpec, FeatureStore, Row, RowInfo
from stores.formats import shard_format
from stores.shard_format import shards_on_disk

STAGE = "objects"
PAGE_NBYTES = 4096


def numbers_in(made: FeatureStore) -> set[int]:
    return set(map(number_of, made.keys()))


def files_of_shards(made: Any) -> dict[int, set[Path]]:
    return shards_on_disk(shard_format(made.layout.format), made.layout)


def check_all(kind: Kind, root: Path, numbers: set[int]) -> None:
    """Assert that a store opens and holds these rows and no temporary files."""
    with kind.open(root) as store:
        made = kind.generation(store, STAGE)
        assert numbers_in(made) == numbers
        check_values(made, sorted(numbers))
        assert made.verify() == []
    assert temps(root) == []


# ---- an error at any call


def may_fail(name: str, call: Call) -> bool:
    if name == "close":  # of what was only read nobody can tell
        return bool(fcntl.fcntl(call.args[0], fcntl.F_GETFL) & os.O_ACCMODE)
    return name != "sqlite close"


def fail_once(kind: Kind, when: str, point: int) -> bool:
    """Let one call fail while a store is opened, appended to, or closed; return whether it did.

    Before, rows 1 and 2 were committed, and row 3 lies in a shard of a crashed writer.
    """
    fault = FailAt(may_fail, errno.EIO)
    errors: list[OSError] = []

    def attempt(now: str, task: Any) -> None:
        fault.arm(point if now == when else 0)
        try:
            task()
        except OSError as error:
            errors.append(error)
        fault.arm(0)

    with fast_folder() as folder:
        root = folder / "store"
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            made.append(rows_of(STAGE, [1, 2]))
            made.write_shard(made.reserve_shards(1), rows_of(STAGE, [3]))
        with intercepted(fault):
            attempt("open", lambda: kind.open(root).close())
            store = kind.open(root)
            made = kind.generation(store, STAGE)
            attempt("append", lambda: made.append(rows_of(STAGE, [4, 5, 6])))
            there = numbers_in(made)
            assert {1, 2} <= there <= {1, 2, 3, 4, 5, 6}
            check_values(made, sorted(there))
            made.append(rows_of(STAGE, {3, 4, 5, 6} - there))
            assert made.verify() == []
            attempt("close", store.close)
        check_all(kind, root, {1, 2, 3, 4, 5, 6})
        for error in errors:
            assert error.errno == errno.EIO
            assert str(folder) in str(error)
    return fault.failed


@every_kind
@pytest.mark.parametrize("when", ["open", "append", "close"])
def test_an_error_at_any_call_costs_no_row(kind: Kind, when: str) -> None:
    for point in itertools.count(1):
        try:
            if not fail_once(kind, when, point):
                break
        except BaseException as error:
            error.add_note(f"call {point} failed")
            raise
    assert point > 9


@every_kind
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("failing", ["write", "fsync of the file", "fsync of the folder", "close"])
def test_a_shard_the_disk_refuses_is_given_up_whole(kind: Kind, failing: str, code: int) -> None:
    """Always in the last of its files, so that the others have to go as well."""

    def counts(name: str, call: Call) -> bool:
        if name != failing.split()[0].replace("write", "writev"):
            return False
        path = Path(os.readlink(f"/proc/self/fd/{call.args[0]}"))
        return path == last.parent if "folder" in failing else path.name.startswith(f".{last.name}")

    with fast_folder() as folder, kind.open(folder / "store") as store:
        made: Any = kind.generation(store, STAGE)
        form = shard_format(kind.format)
        *_, last = [form.path(made.layout, part, 0) for part in form.parts(made.layout)]
        made.reserve_shards(1)
        fault = FailAt(counts, code)
        fault.arm(1)
        message = rf"{os.strerror(code)} \(while writing [\d,]+ bytes\): '{re.escape(str(last))}'"
        with intercepted(fault), pytest.raises(OSError, match=message) as caught:
            made.write_shard(0, rows_of(STAGE, [1, 2]))
        assert caught.value.errno == code
        assert files_of_shards(made) == {}
        assert temps(folder) == []
        made.append(rows_of(STAGE, [1, 2]))
        check_values(made, [1, 2])


@every_kind
def test_the_first_error_is_told_when_closing_fails_as_well(kind: Kind) -> None:
    failing = False

    def hook(name: str, call: Call) -> Any:
        if failing and name in WRITES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call()

    def work(root: Path) -> None:
        nonlocal failing
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            made.append(rows_of(STAGE, [1]))
            failing = True
            made.append(rows_of(STAGE, [2]))

    with fast_folder() as folder, intercepted(hook):
        with pytest.raises(OSError, match=r"while writing .*/store/objects/") as caught:
            work(folder / "store")
        assert "rows.csv" not in str(caught.value)
        assert "rows.csv" in "".join(caught.value.__notes__)
        failing = False
        check_all(kind, folder / "store", {1})


# ---- a full disk


def in_small_disk(task: Any) -> None:
    """Run `task(folder)` with an empty disk of 12 MiB."""

    def run(say: Say) -> None:
        mount_small_disk(folder, 12 * 2**20)
        task(folder)

    with fast_folder() as folder:
        in_child(run)


@every_kind
def test_a_disk_that_is_full_refuses_a_shard_and_goes_on_when_there_is_room(kind: Kind) -> None:
    specs = {"map": ArraySpec(("x",), (2**18,), "float32")}

    def row(number: int) -> Row:
        values = np.full(2**18, number, np.float32)
        return Row(make_key(number), {"map": values}, RowInfo(f"clip {number}"))

    def work(folder: Path) -> None:
        (folder / "filler").write_bytes(bytes(4 * 2**20))
        store = kind.open(folder / "store")
        made: Any = store.generation("verb", make_key(1), specs, shard_mib=2.5)
        message = r"No space left on device \(while writing 2,[\d,]+ bytes\): '.*/verb/.*'"
        with pytest.raises(OSError, match=message) as caught:  # noqa: PT012
            for number in itertools.count(0, 2):
                made.append([row(number), row(number + 1)])
        assert caught.value.errno == errno.ENOSPC
        assert 4 <= number <= 8
        assert temps(folder) == []
        assert sorted(files_of_shards(made)) == list(range(number // 2))
        (folder / "filler").unlink()
        made.append([row(number), row(number + 1)])
        store.close()
        with kind.open(folder / "store") as store:
            made = store.generation("verb", make_key(1))
            assert numbers_in(made) == set(range(number + 2))
            values = made.read([make_key(n) for n in range(number + 2)])["map"]
            assert (values == np.arange(number + 2)[:, None]).all()
            assert made.verify() == []

    in_small_disk(work)


def leave_room(folder: Path, pages: int) -> Path:
    """Fill a disk with a file until so many pages are free; return the file."""
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with suppress(OSError):
        while os.write(descriptor, bytes(PAGE_NBYTES)) == PAGE_NBYTES:
            pass
    os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - pages * PAGE_NBYTES))
    os.close(descriptor)
    return filler


@every_kind
def test_whatever_there_is_no_room_for_no_row_is_lost(kind: Kind) -> None:
    """With one more page free each time: for no file, some files, all but the manifest, all."""

    def work(folder: Path) -> None:
        refused: list[OSError] = []
        with kind.open(folder / "store") as store:
            made = kind.generation(store, STAGE)
            for pages in range(30):
                filler = leave_room(folder, pages)
                try:
                    made.append(rows_of(STAGE, [pages]))
                except OSError as error:
                    refused.append(error)
                check_values(made, sorted(numbers_in(made)))
                assert temps(folder) == []
                filler.unlink()
                made.append(rows_of(STAGE, set(range(pages + 1)) - numbers_in(made)))
                assert made.verify() == []
        assert 5 < len(refused) < 25
        assert any("manifest.sqlite" in str(error) for error in refused)
        assert any("while writing" in str(error) for error in refused)
        for pages in range(30):
            filler = leave_room(folder, pages)
            with kind.open(folder / "store", "r") as store:
                check_values(kind.generation(store, STAGE), list(range(30)))
            try:
                kind.open(folder / "store").close()
            except OSError as error:
                refused.append(error)
            filler.unlink()
        assert {error.errno for error in refused} == {errno.ENOSPC}
        assert all(str(folder / "store") in str(error) for error in refused)
        check_all(kind, folder / "store", set(range(30)))

    in_small_disk(work)


@every_kind
def test_a_manifest_without_room_loses_no_shard(kind: Kind) -> None:
    with fast_folder() as folder:
        root = folder / "store"
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            writer: Any = store
            connection = writer._writer._connection
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            message = r"No space left .* open the store for writing again.*/manifest\.sqlite'"
            with pytest.raises(OSError, match=message) as caught:  # noqa: PT012
                for number in itertools.count():
                    made.append(rows_of(STAGE, [number]))
            assert caught.value.errno == errno.ENOSPC
            assert numbers_in(made) == set(range(number))
            check_values(made, list(range(number)))
        check_all(kind, root, set(range(number + 1)))  # the last one was adopted
