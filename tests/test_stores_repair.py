"""Repairing a damaged store: exactly what is hurt is missing afterwards, and nothing is deleted."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_damage import change_manifest, damage_row, files_of, flip, place_of
from store_suite import SPECS, STAGE, TEN_ROWS_MIB, assert_rows, fast_folder, make_key, make_rows

import stores.repair
from stores import open_store
from stores.memory_store import MemoryStore
from stores.registry import FORMATS

FIRST, SECOND = list(range(10)), [10, 11]  # rows of two shards


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the folder of a closed store: one generation of two shards."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            made = open_made(store)
            made.append(make_rows(*FIRST, *SECOND))
        yield folder / "store"


def open_made(store: Any) -> Any:
    return store.generation(STAGE, make_key(1000), SPECS, shard_mib=TEN_ROWS_MIB)


def reading(root: Path) -> Any:
    return open_store(root).generation(STAGE, make_key(1000))


def repair(root: Path) -> tuple[list[str], list[int]]:
    """Repair; return messages, and the rows that are there. Verify and read what is left."""
    with open_store(root, "a") as store:
        made = open_made(store)
        made.missing([])  # from here on it knows rows that repairing takes away
        messages = [str(problem) for problem in made.repair()]
        assert made.verify() == []
        at_once = made.keys()
    made = reading(root)
    assert made.verify() == []
    assert open_store(root).check() == []
    there = [n for n in (*FIRST, *SECOND) if not made.missing([make_key(n)])]
    assert made.keys() == at_once
    assert len(made) == len(there)
    assert_rows(made, there)
    return messages, there


def quarantined(root: Path) -> list[str]:
    folder = reading(root).path / ".quarantine"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def make_again(root: Path) -> None:
    """Make what is missing, as the next run does."""
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(*[n for n in (*FIRST, *SECOND) if made.missing([make_key(n)])]))
        assert_rows(made, [*FIRST, *SECOND])
        assert made.verify() == []


def test_nothing_happens_to_a_sound_store(root: Path) -> None:
    files = {path: path.read_bytes() for path in reading(root).path.rglob("*") if path.is_file()}
    assert repair(root) == ([], [*FIRST, *SECOND])
    assert {path: path.read_bytes() for path in files} == files
    assert quarantined(root) == []


@pytest.mark.parametrize("output", list(SPECS))
def test_a_damaged_row_is_missing_and_its_shard_stays(root: Path, output: str) -> None:
    path = damage_row(reading(root), output, 4)
    messages, there = repair(root)
    assert messages == [f"{path}: the checksum does not match; clips 'P01_4'"]
    assert there == [n for n in (*FIRST, *SECOND) if n != 4]
    assert quarantined(root) == []
    make_again(root)


def test_damaged_rows_do_not_come_back_with_a_rebuilt_manifest(root: Path) -> None:
    for number, output in ((3, "count"), (4, "features"), (10, "mask")):
        damage_row(reading(root), output, number)
    expected = [n for n in (*FIRST, *SECOND) if n not in (3, 4, 10)]
    assert repair(root)[1] == expected
    (root / "manifest.sqlite").unlink()
    assert repair(root) == ([], expected)
    make_again(root)


def _remove(made: Any, path: Path) -> None:
    path.unlink()


def _cut(made: Any, path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(made: Any, path: Path) -> None:
    os.truncate(path, 0)


def _damage_end(made: Any, path: Path) -> None:
    flip(path, path.stat().st_size - 10)


def _exchange(made: Any, path: Path) -> None:
    shutil.copyfile(next(p for p in files_of(made, 1) if p.parent == path.parent), path)


@pytest.mark.parametrize("damage", [_remove, _cut, _empty, _damage_end, _exchange])
@pytest.mark.parametrize("which", [0, -1])
def test_a_broken_shard_goes_to_the_quarantine_whole(
    root: Path, damage: Callable[[Any, Path], None], which: int
) -> None:
    made = reading(root)
    victim = files_of(made, 0)[which]
    damage(made, victim)
    left = sorted(path.read_bytes() for path in files_of(made, 0) if path.exists())
    messages, there = repair(root)
    assert len(messages) == 1
    assert str(victim) in messages[0]
    assert "clips 'P01_0', 'P01_1', 'P01_2' and 7 more" in messages[0]
    assert there == SECOND
    assert not any(path.exists() for path in files_of(made, 0))
    aside = [(made.path / ".quarantine" / name).read_bytes() for name in quarantined(root)]
    assert sorted(aside) == left
    (info,) = open_store(root).generations()
    assert info.nbytes == sum(path.stat().st_size for path in files_of(made, 1))
    make_again(root)


def test_a_broken_shard_stays_away_when_the_manifest_is_rebuilt(root: Path) -> None:
    _cut(reading(root), files_of(reading(root), 0)[0])
    assert repair(root)[1] == SECOND
    (root / "manifest.sqlite").write_bytes(b"not a database " * 1000)
    assert repair(root) == ([], SECOND)
    make_again(root)


def test_a_disk_that_fails_to_read_costs_the_shard(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = files_of(reading(root), 1)[0]
    real = os.pread

    def pread(descriptor: int, *arguments: Any) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(victim):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, "pread", pread)
    messages, there = repair(root)
    assert f"{victim}: it cannot be read (Input/output error)" in messages[0]
    assert there == FIRST


def test_a_bad_place_on_the_disk_costs_its_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bad_offset, _ = place_of(reading(root), "features", 4)
    real = os.pread

    def pread(descriptor: int, nbytes: int, offset: int) -> bytes:
        if offset == bad_offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, nbytes, offset)

    monkeypatch.setattr(os, "pread", pread)
    with open_store(root, "a") as store:
        (problem,) = open_made(store).repair()
    assert "P01_4" in str(problem)
    assert problem.row_keys == (make_key(4),)
    assert quarantined(root) == []


def test_a_manifest_that_takes_a_shard_for_another_learns_better(root: Path) -> None:
    change_manifest(root, "UPDATE shards SET checks = replace(checks, ': ', ': 1') WHERE shard = 0")
    messages, there = repair(root)
    assert "it is not the file that was committed" in messages[0]
    assert there == [*FIRST, *SECOND]
    assert quarantined(root) == []


def test_a_manifest_that_tells_rows_wrong_learns_better(root: Path) -> None:
    change_manifest(root, "UPDATE rows SET video_id = 'P99' WHERE clip_id = 'P01_4'")
    messages, there = repair(root)
    assert "it lists other rows than the manifest; clips 'P01_4'" in messages[0]
    assert there == [*FIRST, *SECOND]
    assert reading(root).infos([make_key(4)])[0].video_id == "P01"


def a_place_for_other_programs(made: Any) -> tuple[Path, int]:
    """A file of the second shard, and where in it no row, footer or index lies."""
    if made.layout.format != "hdf5":
        pytest.skip("its shards say nothing to other programs")
    return files_of(made, 1)[0], 0


def test_a_shard_that_only_other_programs_cannot_read_is_written_anew(root: Path) -> None:
    path, place = a_place_for_other_programs(reading(root))
    flip(path, place)
    with open_store(root, "a") as store:
        open_made(store).forget([make_key(10)])
    messages, there = repair(root)
    assert messages == [f"{path}: what it says to other programs is damaged, the rows are not"]
    assert there == [*FIRST, 11]
    assert quarantined(root) == ["all.shard.1.h5"]
    assert [info.clip_id for info in reading(root).infos([make_key(11)])] == ["P01_11"]
    make_again(root)


def test_a_crash_while_a_shard_is_written_anew_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(*a_place_for_other_programs(reading(root)))

    def crash(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stores.repair, "quarantine_shard", crash)
        with open_store(root, "a") as store, pytest.raises(KeyboardInterrupt):
            open_made(store).repair()
    assert repair(root)[1] == [*FIRST, *SECOND]


def test_rows_that_somebody_forgot_stay_forgotten(root: Path) -> None:
    with open_store(root, "a") as store:
        open_made(store).forget([make_key(2), make_key(11)])
    damage_row(reading(root), "count", 5)
    change_manifest(root, "UPDATE shards SET checks = replace(checks, ': ', ': 1') WHERE shard = 1")
    assert repair(root)[1] == [n for n in (*FIRST, *SECOND) if n not in (2, 5, 11)]


def test_a_crash_before_files_are_moved_is_finished_by_the_next_writer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(reading(root), files_of(reading(root), 0)[0])
    damage_row(reading(root), "count", 11)

    def crash(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stores.repair, "quarantine_shard", crash)
        with open_store(root, "a") as store, pytest.raises(KeyboardInterrupt):
            open_made(store).repair()
    assert repair(root) == ([], [10])
    assert quarantined(root) != []
    make_again(root)


def test_documents_follow(root: Path) -> None:
    for path in files_of(reading(root), 1):
        path.unlink()
    repair(root)
    listing = (reading(root).path / "rows.csv").read_text()
    assert "P01_9," in listing
    assert "P01_10," not in listing
    if (reading(root).path / "zarr.json").exists():
        assert '"shape": [\n    10,' in (reading(root).path / "mask/zarr.json").read_text()


def test_a_reader_cannot_repair(root: Path) -> None:
    with pytest.raises(io.UnsupportedOperation, match="open the store with mode 'a'"):
        reading(root).repair()


def test_the_bytes_read_are_told(root: Path) -> None:
    read: list[int] = []
    with open_store(root, "a") as store:
        made = open_made(store)
        made.repair(read.append)
        files = [path for shard in (0, 1) for path in files_of(made, shard)]
    assert read == [path.stat().st_size for path in files]


def test_memory() -> None:
    made = MemoryStore().generation(STAGE, make_key(1000), SPECS)
    made.append(make_rows(1, 2, 3))
    assert (made.repair(), len(made)) == ([], 3)
    made.shards[0][1]["mask"][0] ^= 1
    (problem,) = made.repair()
    assert problem.row_keys == (make_key(2),)
    assert made.missing([make_key(n) for n in (1, 2, 3)]) == [make_key(2)]


# ---- beyond rows


@pytest.mark.parametrize("damage", ["deleted", "empty", "garbage", "a digit", "a word"])
def test_stage_json_is_restored_from_the_manifest(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = reading(root).path / "stage.json"
    before = path.read_text()
    after = {
        "empty": "",
        "garbage": "{",
        "a digit": before.replace('"rows_per_shard": 10', '"rows_per_shard": 18'),
        "a word": before.replace("float16", "float32"),
    }.get(damage)
    if after is None:
        path.unlink()
    else:
        assert after != before
        path.write_text(after)
    (problem,) = open_store(root).check()
    assert str(path) in str(problem)
    assert "12 rows of stage 'objects' cannot be read" in str(problem)
    assert repair(root) == ([], [*FIRST, *SECOND])
    assert path.read_text() == before
    assert f"{path} was not what was written; restored it from the manifest" in caplog.text
    aside = path.parent / ".quarantine" / "stage.json"
    assert aside.exists() == (after is not None)
    assert after is None or aside.read_text() == after


@pytest.mark.parametrize("value", ["x'7b7d'", "'text'"])
def test_a_damaged_copy_of_stage_json_is_not_believed(root: Path, value: str) -> None:
    path = reading(root).path / "stage.json"
    before = path.read_bytes()
    change_manifest(root, f"UPDATE descriptions SET document = {value}", sealed=False)
    (problem,) = open_store(root).check()
    assert "got a changed description in" in str(problem)
    assert repair(root) == ([], [*FIRST, *SECOND])
    assert path.read_bytes() == before


def test_a_manifest_without_descriptions_gets_them(root: Path) -> None:
    change_manifest(root, "DELETE FROM descriptions")
    assert open_store(root).check() == []
    open_store(root, "a").close()
    (reading(root).path / "stage.json").unlink()
    assert repair(root) == ([], [*FIRST, *SECOND])


def test_a_folder_that_is_gone_is_forgotten_when_asked_to(root: Path) -> None:
    folder = reading(root).path
    shutil.rmtree(folder)
    open_store(root, "a").close()
    (problem,) = open_store(root).check()
    assert str(problem).startswith(f"{folder}/stage.json: the file is gone; 12 rows of")
    with open_store(root, "a") as store:
        (problem,) = store.repair()
        assert str(problem).startswith(f"{folder}: the folder is gone, and 12 rows of 'objects'")
        assert (store.check(), store.repair()) == ([], [])
        open_made(store)
    make_again(root)


@pytest.mark.parametrize("loss", ["deleted", "garbage", "torn"])
def test_a_lost_manifest_is_told_and_rebuilt(root: Path, loss: str) -> None:
    path = root / "manifest.sqlite"
    if loss == "deleted":
        path.unlink()
    elif loss == "garbage":
        path.write_bytes(b"not a database " * 1000)
    else:
        data = path.read_bytes()
        path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    (problem,) = open_store(root).check()
    assert str(path) in str(problem)
    assert "open the store for writing" in str(problem)
    assert repair(root) == ([], [*FIRST, *SECOND])
