"""A disturbed run: afterwards the store holds what an undisturbed one makes, to the byte."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from experiment_fixtures import Silent, make_experiment
from run_fixtures import (
    ONE_THREAD,
    TWO_WORKERS,
    WAIT_SECONDS,
    Contents,
    command,
    contents,
    events,
    is_alive,
    make_five_videos,
    run,
    wait_for,
)
from video_files import write_video

from extractors.resnet3d import ResNet3D
from extractors.weights import save_checkpoint, seeded_init
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.stages import STAGE_NAMES
from stores.registry import open_store

DAY_SECONDS = 86_400.0


class Starting(Silent):
    """Does something when the first stage begins: all is planned, nothing is decoded."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def start(self, stage: str, total: int) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


@pytest.fixture(scope="module")
def undisturbed_five(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("five")
    make_five_videos(folder)
    assert run(folder).complete
    return contents(folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_workers_killed_at_random(tmp_path: Path, undisturbed_five: Contents, seed: int) -> None:
    make_five_videos(tmp_path)
    chance, over, kills = random.Random(seed), threading.Event(), set[int]()

    def kill_one() -> None:
        """Of those that had a unit."""
        pids = {e["worker"]: e["pid"] for e in events(tmp_path, "worker_started")}
        busy = {pids[e["worker"]] for e in events(tmp_path, "unit_started")} - kills
        if busy:
            pid = chance.choice(sorted(busy))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills.add(pid)

    def kill_more() -> None:
        """Not for ever: a video that ends three workers is to blame for it."""
        while not over.wait(chance.uniform(0.0, 1.0)) and len(kills) < 2:
            kill_one()

    killer = threading.Thread(target=kill_more)
    killer.start()
    try:
        report = run(tmp_path, TWO_WORKERS, act=kill_one)
    finally:
        over.set()
        killer.join()
    assert kills
    assert [failure for stage in report.stages for failure in stage.failures] == []
    assert report.complete
    assert contents(tmp_path) == undisturbed_five
    # A unit for each video at first, and another for what was left of each that was lost: nothing
    # else is done twice, and no row is committed twice.
    lost = len(events(tmp_path, "unit_lost"))
    assert len(events(tmp_path, "unit_started")) == 5 + lost <= 5 + 2 * len(kills)
    rows = sum(map(len, undisturbed_five.values()))
    assert sum(event["rows"] for event in events(tmp_path, "committed")) == rows


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on(tmp_path: Path, undisturbed: Contents, workers: int) -> None:
    with command(tmp_path, f"executor.workers={workers}", "engine.commit_seconds=0.1") as process:
        wait_for(lambda: events(tmp_path, "committed"))
        process.kill()
    for event in events(tmp_path, "worker_started"):
        wait_for(lambda pid=event["pid"]: not is_alive(pid))
    kept = sum(event["rows"] for event in events(tmp_path, "committed"))
    report = run(tmp_path, f"executor.workers={workers}")
    assert report.complete
    assert sum(stage.made for stage in report.stages) <= sum(map(len, undisturbed.values())) - kept
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGUSR1,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_signalled_keeps_what_is_finished(
    tmp_path: Path, undisturbed: Contents, number: signal.Signals
) -> None:
    with command(tmp_path, TWO_WORKERS, "engine.commit_seconds=0.1") as process:
        wait_for(lambda: events(tmp_path, "worker_started"))
        process.send_signal(number)
        said, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, said
    assert "interrupted: what was finished is stored; the same command goes on" in said
    assert run(tmp_path).complete
    assert contents(tmp_path) == undisturbed


def test_a_second_coordinator_is_told_who_holds_the_store(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    with (
        open_store(tmp_path / "store", mode="a", format="zarr"),
        command(tmp_path) as process,
    ):
        said, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode not in (0, 130), said
    assert str(os.getpid()) in said


@pytest.mark.parametrize("jump_seconds", [DAY_SECONDS, -DAY_SECONDS])
def test_a_clock_that_jumps_by_a_day(
    tmp_path: Path, undisturbed: Contents, monkeypatch: pytest.MonkeyPatch, jump_seconds: float
) -> None:
    seconds, nanoseconds = time.time, time.time_ns

    def jump() -> None:
        monkeypatch.setattr(time, "time", lambda: seconds() + jump_seconds)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(jump_seconds * 1e9))

    report = run(tmp_path, "engine.commit_seconds=5", act=jump)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert sum(stage.made for stage in run(tmp_path).stages) == 0


def test_a_video_replaced_while_running_gives_no_row(tmp_path: Path, undisturbed: Contents) -> None:
    video = tmp_path / "videos" / "kitchen_b.mp4"

    def replace() -> None:
        os.replace(write_video(tmp_path / "other.mp4", num_frames=70), video)

    report = run_experiment(
        resolve(make_experiment(tmp_path, [ONE_THREAD])),
        stages=STAGE_NAMES,
        retry_failed=False,
        reporter=Starting(replace),
        stop=threading.Event(),
    )
    failures = [failure for stage in report.stages for failure in stage.failures]
    assert {failure.error_class for failure in failures} == {"VideoChanged"}
    assert {failure.video_id for failure in failures} == {"kitchen_b"}
    for stage, rows in contents(tmp_path).items():
        assert 0 < len(rows) < len(undisturbed[stage])
        assert all(undisturbed[stage][key] == values for key, values in rows.items())


def test_weights_replaced_while_running_end_the_run(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"

    def write(seed: int) -> None:
        save_checkpoint(weights, seeded_init(lambda: ResNet3D(10, width=4), seed))

    write(0)
    overrides = [f"stages.verb.weights={weights}", "stages.verb.weights_seed=null"]
    config = make_experiment(tmp_path, [ONE_THREAD, TWO_WORKERS, *overrides])
    experiment = resolve(config)
    with pytest.raises(ConfigError, match=r"weights\.safetensors: got other weights than when"):
        run_experiment(
            experiment,
            stages=STAGE_NAMES,
            retry_failed=False,
            reporter=Starting(lambda: write(1)),
            stop=threading.Event(),
        )
    assert not contents(tmp_path).get("verb")
    assert resolve(config).aligned.verb.key != experiment.aligned.verb.key
