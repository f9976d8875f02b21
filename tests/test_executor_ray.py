"""Actors of a Ray cluster: the same rows to the byte, and what becomes of actors that end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from experiment_fixtures import Silent, make_experiment
from run_fixtures import ONE_THREAD, Contents, contents, events, run, wait_for

from pipeline import run as coordinator
from pipeline import run_setup
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.ray_cluster import OBJECT_STORE_NBYTES, import_ray
from pipeline.run import run_experiment
from pipeline.stages import STAGE_NAMES
from stores.base import Receipt, Row, ShardWriter

RAY = ("executor.name=ray", "executor.workers=2")
# Actors that start no processes of their own are quicker to start.
PLAIN = (*RAY, "engine.decode_processes=0")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster that says it has four cores and a GPU; its actors find the tests."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    ray = import_ray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        ray.init(
            "local",
            num_cpus=4,
            num_gpus=1,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_NBYTES,
            logging_level="ERROR",
            log_to_driver=False,
        )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Deadly:
    """Ends the process that writes a row of a video."""

    writer: ShardWriter
    video_id: str

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        if any(row.info.video_id == self.video_id for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.writer.write_shard(shard, rows)


@dataclass(frozen=True)
class Meeting:
    """Writes no row until two processes want to."""

    writer: ShardWriter
    place: Path

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        self.place.mkdir(exist_ok=True)
        (self.place / str(os.getpid())).touch()
        wait_for(lambda: len(list(self.place.iterdir())) == 2)
        return self.writer.write_shard(shard, rows)


def wrap_writers(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[ShardWriter], ShardWriter]
) -> None:
    """Give the workers of runs that follow other writers of shards."""

    def make_setup(*args: Any) -> Any:
        setup = run_setup.make_setup(*args)
        writers = {name: wrap(writer) for name, writer in setup.writers.items()}
        return replace(setup, writers=writers)

    monkeypatch.setattr(coordinator, "make_setup", make_setup)


def test_actors_make_the_same_rows_to_the_byte(
    tmp_path: Path, undisturbed: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share a GPU by halves, that is, Ray believes so: both work at a time."""
    wrap_writers(monkeypatch, lambda writer: Meeting(writer, tmp_path / "met"))
    assert run(tmp_path, *RAY, "executor.gpus_per_worker=0.5").complete
    assert contents(tmp_path) == undisturbed
    assert [worker["gpus"] for worker in events(tmp_path, "worker_started")] == ["0", "0"]
    started, finished = events(tmp_path, "unit_started"), events(tmp_path, "unit_finished")
    assert {event["worker"] for event in started} == {"worker 0", "worker 1"}
    assert {event["unit"] for event in started} == {event["unit"] for event in finished}
    assert max(event["time"] for event in started) < min(event["time"] for event in finished)
    assert {event["reason"] for event in events(tmp_path, "worker_ended")} == {"done"}


def test_an_actor_that_is_killed_is_replaced(tmp_path: Path, undisturbed: Contents) -> None:
    def kill() -> None:
        os.kill(events(tmp_path, "worker_started")[0]["pid"], signal.SIGKILL)

    assert run(tmp_path, *PLAIN, act=kill).complete
    assert contents(tmp_path) == undisturbed
    reasons = [event["reason"] for event in events(tmp_path, "worker_ended")]
    assert sum("its worker process has died" in reason for reason in reasons) == 1


class Killer(Silent):
    """Ends an actor when something is stored since the last one was ended, so many times."""

    def __init__(self, folder: Path, times: int) -> None:
        self._folder = folder
        self._left = times
        self._stored = 0
        self._ended: set[int] = set()

    def advance(self, stage: str, rows: int) -> None:
        stored = len(events(self._folder, "committed"))
        pid = events(self._folder, "worker_started")[-1]["pid"]
        # What an actor said before its end is committed after it.
        if self._left and stored > self._stored and pid not in self._ended:
            self._left -= 1
            self._stored = stored
            self._ended.add(pid)
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_an_actor_killed_again_and_again_loses_nothing(
    tmp_path: Path, undisturbed: Contents
) -> None:
    small = ("stages.verb.batch_size=1", "stages.noun.batch_size=1", "engine.commit_seconds=0.001")
    overrides = [ONE_THREAD, *PLAIN, "executor.workers=1", *small]
    report = run_experiment(
        resolve(make_experiment(tmp_path, overrides)),
        stages=STAGE_NAMES,
        retry_failed=False,
        reporter=Killer(tmp_path, times=4),
        stop=threading.Event(),
    )
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert len(events(tmp_path, "unit_lost")) == 4


@pytest.mark.slow
def test_a_video_that_ends_every_actor_fails_alone(
    tmp_path: Path, undisturbed: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap_writers(monkeypatch, lambda writer: Deadly(writer, "kitchen_a"))
    report = run(tmp_path, *PLAIN, "executor.workers=1")
    assert not report.complete
    failed = Counter(
        (failure.video_id, failure.error_class)
        for stage in report.stages
        for failure in stage.failures
    )
    assert failed == {("kitchen_a", "WorkerDied"): 4 + 4 + 5}
    stored = contents(tmp_path)
    assert {name: len(rows) for name, rows in stored.items()} == {
        "verb": 2, "noun": 2, "objects": 5, "aligned": 2
    }  # fmt: skip
    for name, rows in stored.items():
        assert rows.items() <= undisturbed[name].items()


@pytest.mark.slow
def test_an_actor_that_is_stopped_is_replaced(tmp_path: Path, undisturbed: Contents) -> None:
    stopped: list[int] = []

    def freeze() -> None:
        stopped.append(events(tmp_path, "worker_started")[0]["pid"])
        os.kill(stopped[0], signal.SIGSTOP)

    report = run(tmp_path, *PLAIN, "executor.worker_stall_seconds=8", act=freeze)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert "no sign of life for 8 s" in {e["reason"] for e in events(tmp_path, "worker_ended")}


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_keeps_what_is_finished(
    tmp_path: Path, undisturbed: Contents
) -> None:
    stop = threading.Event()
    report = run(tmp_path, *PLAIN, "executor.workers=1", act=stop.set, stop=stop)
    assert report.interrupted
    kept = sum(len(rows) for rows in contents(tmp_path).values())
    assert 0 < kept < sum(len(rows) for rows in undisturbed.values())
    assert run(tmp_path).complete
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_weights_that_are_not_those_planned_with_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [(tmp_path / "weights.pt", "ab" * 32)]
    monkeypatch.setattr(run_setup, "_weights", lambda stage: weights)
    message = rf"host {socket.gethostname()}: .*weights\.pt: got other weights than when"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, *PLAIN)


@pytest.mark.needs_cuda
@pytest.mark.slow
def test_two_actors_share_a_gpu(tmp_path: Path) -> None:
    assert run(tmp_path, *RAY, "device=cuda", "executor.gpus_per_worker=0.5").complete
    workers = events(tmp_path, "worker_started")
    assert len(workers) == 2
    assert len({worker["gpus"] for worker in workers}) == 1
    assert {name: len(rows) for name, rows in contents(tmp_path).items()} == {
        "verb": 6, "noun": 6, "objects": 10, "aligned": 6
    }  # fmt: skip
