"""What becomes of a run whose worker process ends at a bad moment."""

from __future__ import annotations

import os
import signal
import struct
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from test_executor_ray_crew import SETUP, FakeQueue

from pipeline import executor_local, processes
from pipeline.executor_local import LocalWorkers
from pipeline.journal import Journal
from pipeline.local_worker import Broken, Ready
from pipeline.work import Finished, Progress


def dies_in_mid_sentence(connection: Connection, setup: Any) -> None:
    """Ends while a message is on its way, the second time it does as it should."""
    connection.send(Ready())
    unit = connection.recv()
    if unit.number < 100:
        os.write(connection.fileno(), struct.pack("!i", 1000) + b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(Progress("verb", computed=1, unit=unit.number))
    connection.send(Finished(unit.number))
    connection.recv()


def test_a_worker_killed_while_it_speaks_is_a_worker_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", dies_in_mid_sentence)
    queue: Any = FakeQueue(1)
    workers = LocalWorkers(1, stall_seconds=60)
    run = workers.run(SETUP, queue, stop=threading.Event(), journal=Journal(None))
    assert [progress for progress in run if progress] == [Progress("verb", computed=1, unit=101)]
    assert queue.fates == [("lost", 1, "signal SIGKILL"), ("noted", 101, 1), ("done", 101)]


def never_ready(connection: Connection, setup: Any) -> None:
    """Builds networks for long."""
    connection.poll(30)


def test_nobody_is_waited_for_who_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", never_ready)
    queue: Any = FakeQueue(1)
    stop = threading.Event()
    workers = LocalWorkers(1, stall_seconds=60)
    for _ in workers.run(SETUP, queue, stop=stop, journal=Journal(None)):
        stop.set()
    assert queue.fates == []


def dies_before_it_is_ready(connection: Connection, setup: Any) -> None:
    """Two of them; the third one works."""
    tries = Path(setup.device)
    number = len(list(tries.iterdir()))
    (tries / str(number)).touch()
    if number < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(Ready())
    connection.send(Finished(connection.recv().number))
    connection.recv()


def test_no_unit_is_to_blame_for_a_worker_that_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", dies_before_it_is_ready)
    queue: Any = FakeQueue(1)
    setup = replace(SETUP, device=str(tmp_path))
    workers = LocalWorkers(1, stall_seconds=60)
    list(workers.run(setup, queue, stop=threading.Event(), journal=Journal(None)))
    assert queue.fates == [("done", 1)]


def stops_in_mid_sentence(connection: Connection, setup: Any) -> None:
    """Is stopped while a message is on its way, the second time it does as it should."""
    connection.send(Ready())
    unit = connection.recv()
    if unit.number < 100:
        os.write(connection.fileno(), struct.pack("!i", 1000) + b"half of it")
        os.kill(os.getpid(), signal.SIGSTOP)
    connection.send(Finished(unit.number))
    connection.recv()


def test_a_worker_stopped_while_it_speaks_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", stops_in_mid_sentence)
    monkeypatch.setattr(processes, "HALF_A_MESSAGE_SECONDS", 1)
    queue: Any = FakeQueue(1)
    workers = LocalWorkers(1, stall_seconds=60)
    list(workers.run(SETUP, queue, stop=threading.Event(), journal=Journal(None)))
    assert queue.fates == [("lost", 1, "signal SIGKILL"), ("done", 101)]


def breaks(connection: Connection, setup: Any) -> None:
    """Its device fails with the first unit."""
    connection.send(Ready())
    unit = connection.recv()
    error = Broken(RuntimeError("CUDA error"))
    connection.send(error if unit.number < 100 else Finished(unit.number))
    connection.recv()


def test_a_device_that_breaks_costs_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", breaks)
    queue: Any = FakeQueue(1)
    workers = LocalWorkers(1, stall_seconds=60)
    list(workers.run(SETUP, queue, stop=threading.Event(), journal=Journal(None)))
    assert queue.fates == [("lost", 1, "CUDA error"), ("done", 101)]


def has_no_room(connection: Connection, setup: Any) -> None:
    """The disk is full."""
    connection.send(Ready())
    connection.recv()
    connection.send(Broken(OSError(28, "No space left on device")))
    connection.recv()


def test_a_full_disk_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", has_no_room)
    queue: Any = FakeQueue(1)
    workers = LocalWorkers(1, stall_seconds=60)
    with pytest.raises(OSError, match="No space left"):
        list(workers.run(SETUP, queue, stop=threading.Event(), journal=Journal(None)))


def only_one_begins(connection: Connection, setup: Any) -> None:
    """The GPU of all others is broken."""
    if Path(setup.device).is_dir():
        (Path(setup.device) / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(Ready())
    while True:
        connection.send(Finished(connection.recv().number))


def test_a_place_where_nobody_can_begin_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_local, "run_local_worker", only_one_begins)
    setups = [SETUP, replace(SETUP, device=str(tmp_path))]
    monkeypatch.setattr(executor_local, "_shared_out", lambda setup, size: setups)
    queue: Any = FakeQueue(200)
    workers = LocalWorkers(2, stall_seconds=60)
    list(workers.run(SETUP, queue, stop=threading.Event(), journal=Journal(None)))
    assert len(queue.fates) == 200
    assert {fate[0] for fate in queue.fates} == {"done"}
    assert len(list(tmp_path.iterdir())) <= executor_local.MOST_FALSE_STARTS
