"""Removing generations and files without rows: all or nothing, and never under a reader."""

import errno
import fcntl
import io
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_damage import damage_row, files_of
from store_suite import SPECS, STAGE, TEN_ROWS_MIB, assert_rows, fast_folder, make_key, make_rows

import stores.removal
from stores import GenerationInUseError, Leftovers, MissingGenerationError, open_store
from stores.lock import without_readers
from stores.manifest_writer import ManifestWriter
from stores.memory_store import MemoryStore
from stores.registry import FORMATS

OLD, NEW = make_key(1000), make_key(1001)


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the folder of a closed store with two generations, each of two shards."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            for key in (OLD, NEW):
                open_made(store, key).append(make_rows(*range(12)))
        yield folder / "store"


def open_made(store: Any, key: str) -> Any:
    return store.generation(STAGE, key, SPECS, shard_mib=TEN_ROWS_MIB)


def reading(root: Path, key: str) -> Any:
    return open_store(root).generation(STAGE, key)


def keys_in(root: Path) -> list[str]:
    return [info.key for info in open_store(root).generations()]


def hidden(root: Path) -> list[str]:
    return [path.name for path in (root / STAGE).iterdir() if path.name.startswith(".")]


def assert_only_new(root: Path) -> None:
    """Assert that the old generation is gone and the other as it was; then make it again."""
    assert keys_in(root) == [NEW]
    assert not (root / STAGE / OLD[:12]).exists()
    assert hidden(root) == []
    assert_rows(reading(root, NEW), list(range(12)))
    with open_store(root, "a") as store:
        assert store.check() == open_made(store, NEW).verify() == []
        made = open_made(store, OLD)
        assert len(made) == 0
        made.append(make_rows(3))
        assert_rows(made, [3])


# ---- generations


def test_a_generation_is_removed_and_the_others_stay(root: Path) -> None:
    nbytes = sum(p.stat().st_size for p in (root / STAGE / OLD[:12]).rglob("*") if p.is_file())
    with open_store(root, "a") as store:
        assert store.remove(STAGE, OLD) == nbytes
    assert_only_new(root)


def test_what_is_not_there_cannot_be_removed(root: Path) -> None:
    with open_store(root, "a") as store:
        with pytest.raises(MissingGenerationError, match="got stage 'verb'"):
            store.remove("verb", OLD)
        with pytest.raises(ValueError, match="got stage name"):
            store.remove("../objects", OLD)
    with pytest.raises(io.UnsupportedOperation, match="mode 'a'"):
        open_store(root).remove(STAGE, OLD)
    assert keys_in(root) == [OLD, NEW]


def test_our_own_view_of_a_generation_does_not_count_as_reading(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store, OLD)
        assert_rows(made, [1])
        store.remove(STAGE, OLD)
        with pytest.raises(MissingGenerationError, match="was removed meanwhile"):
            made.read([make_key(1)])
    assert_only_new(root)


def remove_is_refused(root: Path) -> bool:
    with open_store(root, "a") as store:
        try:
            store.remove(STAGE, OLD)
        except GenerationInUseError:
            return True
    return False


def test_a_generation_that_is_read_stays_until_its_store_is_closed(root: Path) -> None:
    store = open_store(root)
    made = store.generation(STAGE, OLD)
    assert_rows(made, [1])
    message = f"got {root / STAGE / OLD[:12]}, which somebody reads"
    with open_store(root, "a") as writing, pytest.raises(GenerationInUseError, match=message):
        writing.remove(STAGE, OLD)
    assert_rows(made, list(range(12)))
    store.close()
    assert_rows(made, [2])  # files open again when they are read from
    assert remove_is_refused(root)
    store.close()
    made.close()
    assert not remove_is_refused(root)
    assert_only_new(root)


def test_a_reader_that_nobody_holds_does_not_read(root: Path) -> None:
    made = reading(root, OLD)
    assert_rows(made, [1])
    del made
    assert not remove_is_refused(root)


def test_a_pickled_reader_reads(root: Path) -> None:
    made = reading(root, OLD)
    assert_rows(made, [1])
    again = pickle.loads(pickle.dumps(made))
    made.close()
    assert_rows(again, [1])
    assert remove_is_refused(root)
    again.close()
    assert not remove_is_refused(root)


def _read_on(made: Any, pipe: Any) -> None:
    pipe.send(made.read([make_key(1)], ["count"])["count"].tolist())
    pipe.recv()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_reads_counts(root: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    made = reading(root, OLD)
    assert_rows(made, [1])
    worker: Any = context.Process(target=_read_on, args=(made, theirs))
    worker.start()
    assert ours.recv() == [1]
    made.close()
    del made
    assert remove_is_refused(root)
    ours.send("enough")
    worker.join()
    assert worker.exitcode == 0
    assert not remove_is_refused(root)


def test_a_reader_that_comes_while_a_generation_is_removed_is_told(root: Path) -> None:
    made = reading(root, OLD)
    with (
        without_readers(root / STAGE / OLD[:12] / "stage.json"),
        pytest.raises(MissingGenerationError, match="was removed meanwhile"),
    ):
        made.keys()
    assert len(made.keys()) == 12


def test_a_reader_that_comes_too_late_is_told(root: Path) -> None:
    made = reading(root, OLD)
    assert not remove_is_refused(root)
    with pytest.raises(MissingGenerationError, match="was removed meanwhile"):
        made.keys()


def test_a_reader_that_is_overtaken_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real, done = reading(root, OLD), fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not done:  # the reader has opened the file and not locked it yet
            done.append(True)
            assert not remove_is_refused(root)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MissingGenerationError, match="was removed meanwhile"):
        made.keys()


def test_without_locks_things_go_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("stage.json"):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    made = reading(root, OLD)
    assert_rows(made, [1])
    assert not remove_is_refused(root)
    assert_only_new(root)


def test_locks_that_fail_for_other_reasons_are_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    made = reading(root, OLD)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        made.keys()


def test_a_link_is_not_followed(root: Path) -> None:
    folder = root / STAGE / OLD[:12]
    with open_store(root, "a") as store:
        shutil.move(folder, root.with_name("elsewhere"))
        folder.symlink_to(root.with_name("elsewhere"))
        with pytest.raises(NotADirectoryError):
            store.remove(STAGE, OLD)
    assert (root.with_name("elsewhere") / "stage.json").exists()


class Crash(BaseException):
    pass


def _crash(*arguments: Any, **options: Any) -> None:
    raise Crash


def _delete_half(folder: Path, delete: Callable[[Path], None] = shutil.rmtree) -> None:
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in folders[:1]:
        delete(path)
    raise Crash


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (ManifestWriter, "unregister", _crash),
        (stores.removal.os, "rename", _crash),
        (stores.removal.shutil, "rmtree", _delete_half),
    ],
)
def test_a_crash_while_removing_leaves_a_sound_store(
    root: Path,
    owner: Any,
    name: str,
    instead: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched, open_store(root, "a") as store:
        patched.setattr(owner, name, instead)
        with pytest.raises(Crash):
            store.remove(STAGE, OLD)
    assert_rows(reading(root, NEW), list(range(12)))
    assert open_store(root).check() == []
    with open_store(root, "a") as store:
        assert hidden(root) == store.check() == []
        if name == "rmtree":
            assert keys_in(root) == [NEW]
        else:
            made = open_made(store, OLD)
            assert made.verify() == []
            assert_rows(made, list(range(12)))
            store.remove(STAGE, OLD)
    assert_only_new(root)


# ---- files without rows


def test_a_store_in_order_has_no_leftovers(root: Path) -> None:
    with open_store(root, "a") as store:
        open_made(store, OLD).forget([make_key(1)])
        assert store.leftovers() == []


def test_shards_without_rows_are_removed(root: Path) -> None:
    with open_store(root, "a") as store:
        made = open_made(store, OLD)
        made.forget([make_key(10), make_key(11)])
        nbytes = sum(path.stat().st_size for path in files_of(made, 1))
        expected = Leftovers(STAGE, OLD, len(files_of(made, 1)), nbytes)
        assert store.leftovers() == [expected]
        assert store.remove_leftovers(expected) == nbytes
        assert store.leftovers() == []
        assert not any(path.exists() for path in files_of(made, 1))
        made = open_made(store, OLD)
        assert made.verify() == []
        assert_rows(made, list(range(10)))
        (info, _) = store.generations()
        assert info.nbytes == sum(path.stat().st_size for path in files_of(made, 0))
        assert made.reserve_shards(1) == 2
    (root / "manifest.sqlite").unlink()
    with open_store(root, "a") as store:
        assert len(open_made(store, OLD)) == 10


def test_quarantined_files_and_manifests_are_removed(root: Path) -> None:
    made = reading(root, OLD)
    os.truncate(files_of(made, 0)[0], 10)
    with open_store(root, "a") as store:
        open_made(store, OLD).repair()
        (found,) = store.leftovers()
        assert (found.stage, found.key, found.files) == (STAGE, OLD, len(files_of(made, 0)))
        assert found.nbytes == sum(p.stat().st_size for p in (made.path / ".quarantine").iterdir())
    (root / "manifest.sqlite").write_bytes(b"not a database")
    with open_store(root, "a") as store:
        manifests, found_again = store.leftovers()
        assert manifests == Leftovers("", "", 1, 14)
        assert found_again == found
        assert store.remove_leftovers(found) == found.nbytes
        assert store.remove_leftovers(manifests) == 14
        assert store.leftovers() == []
        assert_rows(open_made(store, OLD), [10, 11])
        assert_rows(open_made(store, NEW), list(range(12)))
    assert not (root / "manifest.sqlite.damaged").exists()


def test_leftovers_stay_while_somebody_reads(root: Path) -> None:
    made = reading(root, OLD)
    assert_rows(made, [11])
    with open_store(root, "a") as store:
        open_made(store, OLD).forget([make_key(10), make_key(11)])
        (found,) = store.leftovers()
        with pytest.raises(GenerationInUseError):
            store.remove_leftovers(found)
        assert_rows(made, [10, 11])
        made.close()
        assert store.remove_leftovers(found) == found.nbytes


def test_a_crash_while_removing_leftovers_brings_no_row_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, open_store(root, "a") as store:
        open_made(store, OLD).forget([make_key(10), make_key(11)])
        (found,) = store.leftovers()
        patched.setattr(ManifestWriter, "drop", _crash)
        with pytest.raises(Crash):
            store.remove_leftovers(found)
    with open_store(root, "a") as store:
        assert len(open_made(store, OLD)) == 10
        assert open_made(store, OLD).verify() == store.check() == []


def test_a_damaged_row_is_no_leftover(root: Path) -> None:
    damage_row(reading(root, OLD), "count", 3)
    with open_store(root, "a") as store:
        open_made(store, OLD).repair()
        assert store.leftovers() == []


def test_memory() -> None:
    store = MemoryStore()
    made = store.generation(STAGE, OLD, SPECS, shard_mib=TEN_ROWS_MIB)
    made.append(make_rows(*range(12)))
    made.forget([make_key(10), make_key(11)])
    (found,) = store.leftovers()
    assert (found.files, found.nbytes) == (1, 2 * (3 * 4 * 2 + 3 * 4 * 4 + 3 + 4))
    assert store.remove_leftovers(found) == found.nbytes
    assert store.leftovers() == []
    assert_rows(made, list(range(10)))
    assert store.remove(STAGE, OLD) == 10 * (3 * 4 * 2 + 3 * 4 * 4 + 3 + 4)
    assert store.generations() == []
    with pytest.raises(MissingGenerationError):
        store.remove(STAGE, OLD)
