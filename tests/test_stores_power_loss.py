"""The power goes at any moment, and the disk has kept what it promised to keep, and no more."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fault_calls import Call, CrashAt, crash, intercepted, syncs
from fault_disk import cut_power
from fault_harness import STEPS, Kind, Work, check_store, every_compression, every_kind
from fault_recorder import Recorder
from store_suite import fast_folder

from stores.durable import Block, create_file
from stores.folder_generation import FolderGeneration
from stores.manifest_db import MANIFEST_FILE
from stores.manifest_writer import ManifestWriter

CASES = 100


@functools.cache
def recorded(kind: Kind) -> Recorder:
    """Return what the whole work does to a folder."""
    with fast_folder() as folder:
        recorder = Recorder(folder)
        with intercepted(recorder):
            Work(kind, folder / "store", 0, recorder.acknowledge).run()
        assert recorder.files() == real_files(folder)
    return recorder


def real_files(folder: Path) -> dict[Path, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths if not path.name.startswith(MANIFEST_FILE)}


def check_cut(
    kind: Kind, recorder: Recorder, cut: int, choose: random.Random, *likely: Sequence[float]
) -> None:
    """Cut the power after some events; assert that nothing is lost."""
    done = recorder.acknowledged(cut)
    try:
        with fast_folder() as folder:
            cut_power(recorder, cut, choose, folder, *likely)
            check_store(kind, folder / "store", done)
    except BaseException as error:
        step = (*STEPS, "the end")[done]
        error.add_note(f"power cut after event {cut}, in step {step}")
        raise


def check_some_cut(kind: Kind, recorder: Recorder, case: int) -> None:
    choose = random.Random(case)
    check_cut(kind, recorder, choose.randint(0, len(recorder.events)), choose)


@every_compression
def test_a_power_cut_loses_nothing_that_was_acknowledged(kind: Kind) -> None:
    recorder = recorded(kind)
    for case in range(CASES):
        check_some_cut(kind, recorder, case)


def crash_and_go_on(kind: Kind, folder: Path, crash_at: CrashAt) -> tuple[Recorder, int] | None:
    """Record the work up to where its process dies, and then the rest of it by another process.

    What the dead process did is still in the page cache then, and looks as if it were on disk.

    Returns:
        As well how many events came before the crash; None where it came to no crash.
    """
    recorder, saved = Recorder(folder), folder.with_suffix(".recorded")
    crash_at.hook, crash_at.last_act = recorder, lambda: saved.write_bytes(pickle.dumps(recorder))
    crashed, done = crash(
        lambda say: Work(
            kind, folder / "store", 0, lambda done: (recorder.acknowledge(done), say(done))
        ).run(),
        crash_at,
    )
    if not crashed:
        return None
    recorder = pickle.loads(saved.read_bytes())
    saved.unlink()
    before = len(recorder.events)
    recorder.forget_descriptors()
    with intercepted(recorder):
        Work(kind, folder / "store", done, recorder.acknowledge).run()
    assert recorder.files() == real_files(folder)
    return recorder, before


def crash_and_cut(kind: Kind, crash_at: CrashAt, case: int, *likely: Sequence[float]) -> bool:
    """Cut the power soon after a crash, a few times; return whether it came to the crash."""
    choose = random.Random(case)
    with fast_folder() as folder:
        found = crash_and_go_on(kind, folder, crash_at)
    if found is None:
        return False
    recorder, crash_event = found
    for later in choose.sample(range(60), 4):
        cut = min(crash_event + later, len(recorder.events))
        check_cut(kind, recorder, cut, choose, *likely)
    return True


def crash_before_each_fsync(kind: Kind) -> int:
    points = itertools.count(1)
    return next(n for n in points if not crash_and_cut(kind, CrashAt(n, syncs), n, (0, 0.1)))


@every_kind
def test_nothing_is_built_on_what_a_dead_process_did_not_sync(
    kind: Kind, small_process: Any
) -> None:
    """Crash before each fsync, go on, and lose what nobody synced to a later power cut."""
    assert small_process(crash_before_each_fsync, kind) > 20


@pytest.mark.slow
@every_compression
def test_many_power_cuts(kind: Kind, small_process: Any) -> None:
    for case in range(CASES, 1000):
        check_some_cut(kind, recorded(kind), case)
    for case in range(150):
        small_process(crash_and_cut, kind, CrashAt(random.Random(case).randint(1, 220)), case)


# ---- these tests notice what they are there for


def loses_something(kind: Kind, recorder: Recorder) -> bool:
    try:
        for case in range(CASES):
            check_some_cut(kind, recorder, case)
    except (AssertionError, OSError) as error:
        return "power cut after event" in "".join(error.__notes__)
    return False


def is_shard(path: Path) -> bool:
    return path.name.removeprefix(".").startswith(("c.", "shard."))


@every_kind
@pytest.mark.parametrize("lost", ["file", "folder"])
def test_a_missing_fsync_is_found(kind: Kind, lost: str) -> None:
    """Leave out those of shard files, or of all folders."""

    def hook(name: str, call: Call) -> Any:
        if name == "fsync":
            path = Path(os.readlink(f"/proc/self/fd/{call.args[0]}"))
            if lost == "folder" if path.is_dir() else lost == "file" and is_shard(path):
                return None
        return recorder(name, call)

    with fast_folder() as folder:
        recorder = Recorder(folder)
        with intercepted(hook):
            Work(kind, folder / "store", 0, recorder.acknowledge).run()
    assert loses_something(kind, recorder)


@every_kind
def test_a_commit_before_its_files_is_found(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Any] = []
    commit = ManifestWriter.commit

    def create_later(folder: Path, name: str, blocks: Iterable[Block], nbytes: int) -> int:
        late.append((folder, name, list(blocks), nbytes))
        return nbytes

    def commit_first(writer: ManifestWriter, *args: Any) -> None:
        commit(writer, *args)
        while late:
            create_file(*late.pop())

    monkeypatch.setattr("stores.shard_set.create_file", create_later)
    monkeypatch.setattr(ManifestWriter, "commit", commit_first)
    monkeypatch.setattr(FolderGeneration, "_check_receipt", lambda made, receipt: None)
    with fast_folder() as folder:
        recorder = Recorder(folder)
        with intercepted(recorder):
            Work(kind, folder / "store", 0, recorder.acknowledge).run()
    monkeypatch.undo()
    assert loses_something(kind, recorder)


def recovery_that_syncs_nothing_loses_something(kind: Kind) -> bool:
    with mock.patch("stores.recovery.sync_folder"):
        try:
            crash_before_each_fsync(kind)
        except (AssertionError, OSError):
            return True
    return False


@every_kind
def test_a_recovery_that_syncs_nothing_is_found(kind: Kind, small_process: Any) -> None:
    assert small_process(recovery_that_syncs_nothing_loses_something, kind)
