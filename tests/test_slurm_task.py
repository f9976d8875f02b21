"""A task on its node: told to end, started again, given up, and what it leaves each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs_fixtures import LOCAL, contents, run, run_task, tasks_in_this_process

from pipeline.errors import ConfigError
from pipeline.job_folder import Job, find_jobs, load_work
from pipeline.job_states import task_states
from pipeline.merge import merge_jobs
from pipeline.slurm_task import SIGNALS, Task, remaining
from pipeline.task_journal import TaskJournal, journals, read_events, settled_keys

ROWS = 22
Requeues = list[int]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of one task, submitted and not begun."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.MonkeyPatch.context() as patch:
        submit = tasks_in_this_process(at_once=False)
        patch.setattr("pipeline.executor_slurm.submit", submit)
        run(tmp_path, *LOCAL, "executor.wait=false", "executor.tasks=1")
    (found,) = find_jobs(tmp_path / "store")
    return found


@pytest.fixture
def requeues() -> Iterator[Requeues]:
    """What submitit would have done: its handler of SIGUSR2, as it finds it."""
    called: Requeues = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    yield called
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def after_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """`after_rows(act)` acts once, when rows were first written down."""

    def install(act: Callable[[], None]) -> None:
        note, acts = TaskJournal.note, [act]

        def noting(self: TaskJournal, progress: Any) -> Any:
            keys = note(self, progress)
            if keys and acts:
                acts.pop()()
            return keys

        monkeypatch.setattr(TaskJournal, "note", noting)

    return install


def events(job: Job) -> list[Any]:
    return [event for path in journals(job.folder, 0) for event in read_events(path)[0]]


def names(job: Job) -> Counter[str]:
    return Counter(event["event"] for event in events(job))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_task_that_is_told_to_end_goes_on_in_its_next_start(
    job: Job, tmp_path: Path, requeues: Requeues, after_rows: Any, number: signal.Signals
) -> None:
    after_rows(lambda: os.kill(os.getpid(), number))
    handlers = [signal.getsignal(n) for n in SIGNALS]
    run_task(job, 0)
    assert requeues == [signal.SIGUSR2]
    assert [signal.getsignal(n) for n in SIGNALS] == handlers
    first = events(job)
    assert first[-1]["event"] == "stopped"
    assert first[-1]["signal"] == number.name
    settled = set().union(*map(settled_keys, first))
    assert 0 < len(settled) == ROWS - sum(first[-1]["left"].values()) < ROWS
    run_task(job, 0)
    assert names(job)["finished"] == 1
    assert requeues == [signal.SIGUSR2]
    keys = [key for event in events(job) for key in settled_keys(event)]
    assert len(keys) == len(set(keys)) == ROWS  # nothing was made twice
    (merged,) = merge_jobs(tmp_path / "store")
    assert merged.tasks[0].stored == ROWS


@pytest.mark.parametrize(
    ("state", "requeued"), [("RUNNING", 1), ("COMPLETING", 0), ("CANCELLED", 0), ("", 0)]
)
def test_only_a_task_that_slurm_lets_run_requeues_itself(
    job: Job,
    tmp_path: Path,
    requeues: Requeues,
    after_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    requeued: int,
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n[ -n '{state}' ] && echo '9_0 {state}'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    after_rows(lambda: os.kill(os.getpid(), signal.SIGTERM))
    run_task(job, 0)
    assert len(requeues) == requeued
    assert names(job)["stopped"] == 1


def test_a_task_that_never_gets_anywhere_is_given_up(
    job: Job, requeues: Requeues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_time(folder: Path, number: int) -> Any:
        os.kill(os.getpid(), signal.SIGUSR2)
        return load_work(folder, number)

    monkeypatch.setattr("pipeline.slurm_task.load_work", no_time)
    for _ in range(3):
        run_task(job, 0)
    assert len(requeues) == 2
    assert events(job)[-1] == {"event": "given_up", "starts": 3}


def test_rows_done_in_between_count(
    job: Job, requeues: Requeues, monkeypatch: pytest.MonkeyPatch, after_rows: Any
) -> None:
    monkeypatch.setattr(
        "pipeline.slurm_task.load_work",
        lambda folder, n: (os.kill(os.getpid(), signal.SIGUSR2), load_work(folder, n))[1],
    )
    run_task(job, 0)
    run_task(job, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.slurm_task.load_work", load_work)
        after_rows(lambda: os.kill(os.getpid(), signal.SIGUSR2))
        run_task(job, 0)
    run_task(job, 0)
    run_task(job, 0)
    assert len(requeues) == 5
    assert names(job)["given_up"] == 0


def test_a_shard_without_a_word_is_passed_over_and_its_rows_are_taken_once(
    job: Job, tmp_path: Path, after_rows: Any
) -> None:
    run_task(job, 0)
    path = journals(job.folder, 0)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"started"' in line))
    run_task(job, 0)
    shards = [event["receipt"]["shard"] for event in events(job) if event["event"] == "rows"]
    assert 0 not in shards
    (merged,) = merge_jobs(tmp_path / "store")
    assert merged.tasks[0].stored == ROWS
    assert sum(len(rows) for rows in contents(tmp_path).values()) == ROWS


def test_an_error_is_written_down(job: Job, tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(setup: Any) -> None:
        raise ConfigError("other weights")

    monkeypatch.setattr("pipeline.workbench.Workbench", refuse)
    with pytest.raises(ConfigError):
        run_task(job, 0)
    assert events(job)[-1] == {
        "event": "error",
        "error_class": "ConfigError",
        "message": "other weights",
    }
    (merged,) = merge_jobs(tmp_path / "store")
    assert (merged.tasks[0].end, merged.tasks[0].reason) == ("lost", "ConfigError: other weights")


def test_a_task_of_a_job_that_is_over_does_nothing(job: Job, capsys: Any) -> None:
    job.remove()
    run_task(job, 0)
    assert "nothing to do" in capsys.readouterr().out
    assert not job.folder.exists()


def test_cores_are_those_that_slurm_gives(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("pipeline.workbench.Workbench", lambda setup: seen.append(setup.cores))
    for cores in ("", "3"):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", cores)
        with pytest.raises(AttributeError):
            run_task(job, 0)
    assert seen == [None, 3]


OVERDUE = """
import signal, sys, threading
from pathlib import Path
from pipeline import workbench
from pipeline.slurm_task import Task

class Stuck:
    def __init__(self, setup): ...
    def run(self, unit, stop):
        import os
        os.kill(os.getpid(), signal.SIGUSR1)
        threading.Event().wait()
        yield

def requeue(number, frame):
    Path(sys.argv[2]).write_text("requeued")
    sys.exit(144)

workbench.Workbench = Stuck
signal.signal(signal.SIGUSR2, requeue)
Task(sys.argv[1], 0, 1)()
"""


def test_a_task_that_does_not_end_in_its_grace_time_is_requeued_as_it_is(
    job: Job, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-c", OVERDUE, str(job.folder), str(said)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, check=False, env=environment, timeout=120).returncode == 144
    assert said.read_text() == "requeued"
    assert events(job)[-1] == {"event": "overdue", "signal": "SIGUSR1"}


def test_a_unit_keeps_only_what_is_left(job: Job) -> None:
    _, units = load_work(job.folder, 0)
    unit = units[0]
    (work, *_) = unit.videos
    settled = {("verb", row.key) for row in work.rows["verb"]}
    left = remaining(unit, settled)
    assert "verb" not in left.videos[0].rows
    assert left.videos[0].rows["objects"] == work.rows["objects"]
    everything = {
        (stage, row.key) for w in unit.videos for stage, rows in w.rows.items() for row in rows
    }
    assert remaining(unit, everything) == replace(unit, videos=())


def test_a_task_says_how_to_start_it_again() -> None:
    task = Task("/jobs/one", 3, 60)
    assert task.checkpoint().function == task


@pytest.mark.slow
def test_submitit_starts_a_preempted_task_again(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, "executor.wait=false", "executor.tasks=1")
    (job,) = find_jobs(tmp_path / "store")
    started: list[Any] = []
    while not started:
        assert task_states(job) == ["RUNNING"]
        started = [event for event in events(job) if event["event"] == "started"]
        time.sleep(0.1)
    os.kill(started[0]["pid"], signal.SIGUSR2)
    while task_states(job) == ["RUNNING"]:
        time.sleep(0.1)
    assert names(job)["started"] == 2
    assert names(job)["stopped"] == 1
    (merged,) = merge_jobs(tmp_path / "store")
    assert (merged.tasks[0].end, merged.tasks[0].stored) == ("finished", ROWS)
