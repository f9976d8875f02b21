"""Journals: events from threads, trouble with the disk, and who is still running."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import journal as journal_module
from pipeline.journal import LIVE_FILE, Journal
from pipeline.journal_files import last_event, read_live, read_log, run_logs
from pipeline.reproduce import ConfigSource
from pipeline.worker_board import WorkerLine
from stores.base import ArraySpec, Failure, Row, RowInfo
from stores.registry import open_store

PATIENCE_SECONDS = 20.0


def events(folder: Path) -> list[dict[str, Any]]:
    (log,) = run_logs(folder)
    return list(read_log(log))


def wait_for(holds: Callable[[], bool]) -> None:
    """Until something that a thread does has been done."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def test_events_are_lines_of_json_with_their_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("run_started", config=tmp_path / "a.yaml", stages=["verb"])
    journal.event("failure", message='a "quoted"\nline \udcff')
    journal.close()
    first, second = events(tmp_path)
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    config = str(tmp_path / "a.yaml")
    assert first == {"event": "run_started", "config": config, "stages": ["verb"]}
    assert second["message"] == 'a "quoted"\nline \udcff'


def test_events_of_many_threads_are_all_there_and_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def tell(number: int) -> None:
        for i in range(200):
            journal.event("tick", number=number, i=i, text="x" * 300)

    threads = [threading.Thread(target=tell, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = [(event["number"], event["i"]) for event in events(tmp_path)]
    assert sorted(found) == [(n, i) for n in range(8) for i in range(200)]


def test_a_full_disk_loses_lines_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()
    write = os.write

    def fail_when_full(descriptor: int, data: bytes) -> int:
        if not full.is_set():
            return write(descriptor, data)
        if len(data) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:20])  # what still fits

    monkeypatch.setattr(os, "write", fail_when_full)
    journal = Journal(tmp_path)
    journal.event("one")
    full.set()
    with caplog.at_level(logging.WARNING):
        journal.event("two")
        journal.event("three", text="x" * 100)
        full.clear()
        journal.event("four")
        journal.close()
    assert [event["event"] for event in events(tmp_path)] == ["one", "four"]
    assert len(caplog.records) == 1


def test_a_folder_that_vanishes_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    journal = Journal(store)
    journal.event("before")
    journal.live(done=1)
    assert not store.exists()  # nothing but a store makes stores
    store.mkdir()
    journal.event("there")
    journal.close()
    assert [event["event"] for event in events(store)] == ["there"]
    assert not (store / LIVE_FILE).exists()


def test_closing_where_the_folder_is_gone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    journal = Journal(store)
    journal.event("there")
    journal.live(done=1)
    wait_for((store / LIVE_FILE).exists)
    shutil.rmtree(store)
    journal.event("gone")
    journal.close()
    journal.close()
    assert not store.exists()


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.event("run_started")
    journal.live(done=1)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_the_live_state_is_replaced_whole_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "LIVE_SECONDS", 0.01)
    journal = Journal(tmp_path)
    journal.live(stages={"verb": {"done": 1}}, workers=[])
    wait_for((tmp_path / LIVE_FILE).exists)
    inode = (tmp_path / LIVE_FILE).stat().st_ino
    journal.live(stages={"verb": {"done": 2}})

    def is_new() -> bool:
        live = read_live(tmp_path)  # each time whole, or it would be None
        assert live is not None
        return bool(live.state["stages"]["verb"]["done"] == 2)

    wait_for(is_new)
    assert (tmp_path / LIVE_FILE).stat().st_ino != inode
    live = read_live(tmp_path)
    assert live is not None
    assert live.verdict == "running"
    assert live.who == f"a run on host {socket.gethostname()}, pid {os.getpid()}"
    assert live.state["workers"] == []
    journal.close()
    journal.live(stages={})
    assert read_live(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_states_are_not_written_more_than_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(
        journal_module, "replace_file", lambda path, text, durable: written.append(text)
    )
    journal = Journal(tmp_path)
    for done in range(1000):
        journal.live(done=done)
    wait_for(lambda: b'"done": 999' in written[-1] if written else False)
    journal.close()
    assert len(written) <= 2


def left_behind(folder: Path, **changes: Any) -> None:
    """The state of a run of another process, which was killed."""
    script = (
        "import os, sys; from pathlib import Path; from pipeline.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); journal.live(done=1)\n"
        "while not (Path(sys.argv[1]) / 'run.json').exists(): pass\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=False)
    state = json.loads((folder / LIVE_FILE).read_text())
    (folder / LIVE_FILE).write_text(json.dumps(state | changes))


def test_a_run_that_was_killed_is_known_to_be_dead(tmp_path: Path) -> None:
    left_behind(tmp_path)
    live = read_live(tmp_path)
    assert live is not None
    assert (live.verdict, live.state["done"]) == ("dead", 1)
    journal = Journal(tmp_path)
    journal.live(done=2)
    wait_for(lambda: read_live(tmp_path).state["done"] == 2)  # type: ignore[union-attr]
    journal.close()
    assert read_live(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "running"),
        ({"process_started": 1}, "dead"),  # another process that has its number now
        ({"boot": "an earlier one"}, "dead"),
        ({"pid": 2**22 + 1, "process_started": None}, "dead"),
        ({"host": "elsewhere", "boot": "its own"}, "running"),
        ({"host": "elsewhere", "updated": "2020-01-01T00:00:00.000Z"}, "silent"),
    ],
)
def test_who_is_running(tmp_path: Path, changes: dict[str, Any], verdict: str) -> None:
    journal = Journal(tmp_path)
    journal.live(done=1)
    wait_for((tmp_path / LIVE_FILE).exists)
    state = json.loads((tmp_path / LIVE_FILE).read_text())
    journal.close()
    (tmp_path / LIVE_FILE).write_text(json.dumps(state | changes))
    live = read_live(tmp_path)
    assert live is not None
    assert live.verdict == verdict
    if verdict == "silent":
        years = datetime.now(UTC).year - 2020
        assert live.silent_seconds > years * 364 * 24 * 3600


def test_a_state_that_is_none_of_ours_is_no_run(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"pid": 1, "updated": "never"}', '{"pid": "x"}'):
        (tmp_path / LIVE_FILE).write_text(text)
        assert read_live(tmp_path) is None


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_store_leaves_its_logs_alone(tmp_path: Path, format: str) -> None:
    with open_store(tmp_path, mode="a", format=format) as store:
        journal = Journal(tmp_path)
        journal.event("run_started")
        journal.live(done=1)
        wait_for((tmp_path / LIVE_FILE).exists)
        generation = store.generation("verb", "a" * 64, {"map": ArraySpec((), (), "float32")})
        info = RowInfo("clip", "video")
        generation.append([Row("b" * 64, {"map": np.zeros((), np.float32)}, info)])
    with open_store(tmp_path, mode="a") as store:
        assert store.check() == []
        assert store.leftovers() == []
        assert [found.stage for found in store.generations()] == ["verb"]
        store.repair()
    journal.close()
    assert [event["event"] for event in events(tmp_path)] == ["run_started"]


def test_workers_are_known_from_events(tmp_path: Path) -> None:
    told: list[list[str]] = []

    def listen(lines: Sequence[WorkerLine]) -> None:
        told.append([f"{line.name}: {line.at_what}" for line in lines])

    journal = Journal(tmp_path, on_workers=listen)
    journal.event("worker_started", worker="worker 0", pid=11)
    journal.event("worker_started", worker="worker 1", pid=12, host="elsewhere")
    journal.event("unit_started", unit=5, worker="worker 1", videos=["a", "b", "c", "d", "e"])
    journal.event("committed", stage="verb", rows=1, nbytes=10)
    assert told[-1] == ["worker 0: waiting", "worker 1: a, b, c and 2 more"]
    assert len(told) == 3
    wait_for(lambda: bool(read_live(tmp_path)))
    journal.event("unit_started", unit=6, worker="worker 0", videos=["f"])
    journal.event("unit_lost", unit=5, reason="signal SIGKILL")
    journal.event("worker_ended", worker="worker 1", pid=12, reason="signal SIGKILL")
    assert told[-2:] == [["worker 0: f", "worker 1: waiting"], ["worker 0: f"]]
    journal.event("unit_started", unit=7, worker="worker 0", videos=["g"])
    assert told[-1] == ["worker 0: f"]  # the next one waits
    journal.event("unit_finished", unit=6, worker="worker 0")
    assert told[-1] == ["worker 0: g"]
    journal.event("unit_finished", unit=7, worker="worker 0")
    assert told[-1] == ["worker 0: waiting"]

    def workers() -> list[dict[str, Any]]:
        live = read_live(tmp_path)
        return [] if live is None else live.state["workers"]

    wait_for(lambda: [w["unit"] for w in workers()] == [None])
    assert (workers()[0]["pid"], workers()[0]["host"]) == (11, socket.gethostname())
    journal.close()


def test_failures_name_the_command_that_shows_them(tmp_path: Path) -> None:
    source = ConfigSource(Path("my kitchen.yaml"), ["device=cuda"])
    journal = Journal(tmp_path, source=source)
    failure = Failure("0" * 64, "a/1/0", "a", "FrameDecodeError", "damaged", frame=7)
    journal.failures("verb", [failure])
    journal.close()
    (found,) = events(tmp_path)
    assert (found["event"], found["stage"], found["clip"], found["video"]) == (
        "failure",
        "verb",
        "a/1/0",
        "a",
    )
    assert (found["class"], found["message"], found["frame"]) == ("decode_error", "damaged", 7)
    assert found["reproduce"] == (
        f"cd {shlex.quote(str(Path.cwd()))} && symbio explain 'my kitchen.yaml' --set device=cuda "
        "--stage verb --clip a/1/0 --try"
    )


def test_the_last_event_of_a_long_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for i in range(1000):
        journal.event("tick", i=i, text="x" * 300)
    journal.event("run_finished", stages=[])
    journal.close()
    (log,) = run_logs(tmp_path)
    found = last_event(log)
    assert found is not None
    assert found["event"] == "run_finished"
    with log.open("a") as file:
        file.write('{"time": "2026')  # cut short
    assert last_event(log) == found
    assert last_event(tmp_path / "nothing") is None
