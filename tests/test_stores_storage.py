"""Storage that is gone for a while: what fails says so, and can be done again afterwards."""

from __future__ import annotations

import errno
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
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

from stores import ShardRange, StorageUnavailableError, Store, open_store
from stores.documents import write_documents
from stores.durable import create_file
from stores.formats import FORMATS

KEY = make_key(1000)


class Site:
    """An open store with row 0 in shard 0 and 50 more reserved, in a folder that can vanish."""

    def __init__(self, root: Path, form: str) -> None:
        self.root, self.away = root, root.with_name("away")
        self.store: Store = open_store(root, "a", form)
        self.made: Any = self.store.generation(STAGE, KEY, SPECS, shard_mib=TEN_ROWS_MIB)
        self.made.append(make_rows(0))
        self.made.reserve_shards(50)

    def vanish(self) -> None:
        os.rename(self.root, self.away)

    def come_back(self) -> None:
        os.rename(self.away, self.root)


@pytest.fixture(params=sorted(FORMATS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with fast_folder() as folder:
        site = Site(folder / "store", request.param)
        yield site
        if site.away.exists():
            site.come_back()
        site.store.close()


def assert_all_is_well(site: Site, numbers: list[int]) -> None:
    """Assert that the open store holds these rows, and so does the next one."""
    assert_rows(site.made, numbers)
    assert site.made.verify() == []
    site.store.close()
    site.store = open_store(site.root, "a")
    made = site.store.generation(STAGE, KEY)
    assert_rows(made, numbers)
    assert made.verify() == []


ACTIONS: dict[str, Callable[[Site], Any]] = {
    "reserve": lambda site: site.made.reserve_shards(1),
    "write": lambda site: site.made.write_shard(7, make_rows(7)),
    "write elsewhere": lambda site: pickle.loads(
        pickle.dumps(site.made.shard_writer())
    ).write_shard(8, make_rows(8)),
    "failures": lambda site: site.made.commit([], [make_failure(9)]),
    "forget": lambda site: site.made.forget([make_key(9)]),
    "clear": lambda site: site.made.clear_failures([make_key(9)]),
    "list": lambda site: site.made.failures(),
    "infos": lambda site: site.made.infos([make_key(0)]),
    "lease": lambda site: site.store.lease("a", [ShardRange(STAGE, KEY, 1, 1)]),
    "release": lambda site: site.store.release("a"),
}


@pytest.mark.parametrize("left", ["nothing", "mount point", "file"])
@pytest.mark.parametrize("action", ACTIONS)
def test_everything_says_so_and_can_be_done_again(site: Site, action: str, left: str) -> None:
    site.vanish()
    if left == "mount point":
        site.root.mkdir()
    elif left == "file":
        site.root.touch()
    with pytest.raises(StorageUnavailableError, match="the store is not there now") as caught:
        ACTIONS[action](site)
    assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)
    assert caught.value.filename == str(site.root)
    if left == "mount point":
        site.root.rmdir()  # nothing was written to it
    elif left == "file":
        site.root.unlink()
    site.come_back()
    ACTIONS[action](site)
    assert_all_is_well(site, [0])


def test_rows_that_cannot_be_read_are_not_taken_for_damaged(site: Site) -> None:
    site.vanish()
    with open_store(site.away) as store:
        reader = store.generation(STAGE, KEY)
        len(reader)
        site.come_back()
        with pytest.raises(StorageUnavailableError):
            reader.read([make_key(0)])


def test_a_commit_is_repeated(site: Site) -> None:
    receipt = site.made.write_shard(3, make_rows(1, 2))
    site.vanish()
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            site.made.commit([receipt], [make_failure(9)])
    assert len(site.made) == 1
    site.come_back()
    site.made.commit([receipt], [make_failure(9)])
    assert len(site.made.failures()) == 1
    assert_all_is_well(site, [0, 1, 2])


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=["io", "readonly", "os"],
)
def test_a_commit_that_was_cut_off_is_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, moment: str
) -> None:
    receipt = site.made.write_shard(3, make_rows(1, 2))
    writer = site.made._writing()
    commit, connection = writer.commit, writer._connection

    def lose(*arguments: Any) -> None:
        if moment == "after":
            commit(*arguments)
        site.vanish()
        raise error

    monkeypatch.setattr(writer, "commit", lose)
    with pytest.raises(StorageUnavailableError) as caught:
        site.made.commit([receipt])
    assert caught.value.__cause__ is error
    monkeypatch.undo()
    site.come_back()
    site.made.commit([receipt])
    assert writer._connection is not connection  # the old one may lead to what is no more
    assert_all_is_well(site, [0, 1, 2])


@pytest.mark.parametrize("site", ["zarr"], indirect=True)
def test_documents_that_were_not_written_are_written_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = site.made.write_shard(3, make_rows(1, 2))

    def lose(*arguments: Any) -> None:
        site.vanish()
        write_documents(*arguments)

    monkeypatch.setattr("stores.documents.monotonic", lambda: 1e12)  # it is time to write them
    monkeypatch.setattr("stores.folder_generation.write_documents", lose)
    with pytest.raises(StorageUnavailableError):
        site.made.commit([receipt])
    monkeypatch.undo()
    site.come_back()
    site.made.commit([receipt])
    assert_all_is_well(site, [0, 1, 2])


def test_a_shard_that_was_cut_off_is_written_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*arguments: Any) -> int:
        site.vanish()
        return create_file(*arguments)

    monkeypatch.setattr("stores.shard_set.create_file", lose)
    with pytest.raises(StorageUnavailableError):
        site.made.write_shard(3, make_rows(1))
    monkeypatch.undo()
    site.come_back()
    site.made.commit([site.made.write_shard(3, make_rows(1))])
    assert_all_is_well(site, [0, 1])


def test_a_server_that_answers_again_at_once_was_gone_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("stores.shard_set.create_file", fail)
    with pytest.raises(StorageUnavailableError, match="Stale"):
        site.made.write_shard(3, make_rows(1))


def test_other_errors_stay_what_they_are(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(ValueError, match="got outputs"):
        site.made.write_shard(3, [type(make_row(1))(make_key(1), {}, make_row(1).info)])
    monkeypatch.setattr("stores.shard_set.create_file", fail)
    with pytest.raises(OSError, match="no space") as caught:
        site.made.write_shard(3, make_rows(1))
    assert type(caught.value) is OSError


def test_another_store_in_the_place_of_ours_without_a_manifest_is_not_written_to(
    site: Site,
) -> None:
    site.vanish()
    with pytest.raises(StorageUnavailableError):
        site.made.reserve_shards(1)
    site.made._writing().reconnect_later()
    site.root.mkdir()
    (site.root / "symbio.json").write_text("{}")
    with pytest.raises(StorageUnavailableError, match="got no manifest"):
        site.made.reserve_shards(1)
    assert [path.name for path in site.root.iterdir()] == ["symbio.json"]
    (site.root / "symbio.json").unlink()
    site.root.rmdir()
