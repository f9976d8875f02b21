"""What tasks are doing, as told by a stand-in for squeue and by processes of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.job_states import QUEUE_MINUTES, slurm_states, task_states


@dataclass
class FakeJob:
    """What `task_states` looks at."""

    ids: list[str]
    cluster: str = "slurm"
    time_minutes: int = 60
    age_seconds: float = 0.0
    submitit_folder: Path = Path("/jobs/one/submitit")
    owner: int = 4711
    host: str = field(default_factory=socket.gethostname)
    tasks: int = field(init=False)

    def __post_init__(self) -> None:
        self.tasks = len(self.ids) or 2


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`squeue(script)` puts a stand-in in front of the real one."""

    def install(script: str) -> None:
        path = tmp_path / "squeue"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def states(job: FakeJob) -> list[str]:
    return task_states(job)  # type: ignore[arg-type]


def test_what_slurm_says_is_told_and_the_rest_is_gone(squeue: Any) -> None:
    squeue("printf '7_0 RUNNING\\n7_1 OUT_OF_MEMORY\\n71_2 PENDING\\n\\nodd line here\\n'")
    assert states(FakeJob(["7_0", "7_1", "7_2"])) == ["RUNNING", "OUT_OF_MEMORY", "GONE"]


def test_squeue_is_asked_for_tasks_of_the_user_whose_job_it_is(squeue: Any) -> None:
    squeue('case "$*" in *"--user 4711") echo "7_0 PENDING";; esac')
    assert states(FakeJob(["7_0"])) == ["PENDING"]


def test_squeue_is_asked_for_every_task_by_itself_and_for_those_that_ended(squeue: Any) -> None:
    squeue('case "$*" in *--array*--states=all*"--jobs 5") echo "5 FAILED";; esac')
    assert slurm_states(["--jobs", "5"]) == {"5": "FAILED"}


@pytest.mark.parametrize("script", ["echo down >&2; exit 1", "exit 127"])
def test_no_answer_means_that_tasks_may_run(squeue: Any, script: str) -> None:
    squeue(script)
    job = FakeJob(["7_0"])
    assert states(job) == ["UNKNOWN"]
    job.age_seconds = (60 + QUEUE_MINUTES) * 60 - 1
    assert states(job) == ["UNKNOWN"]
    job.age_seconds += 2
    assert states(job) == ["GONE"]


def test_where_there_is_no_squeue_tasks_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states(FakeJob(["7_0"])) == ["UNKNOWN"]


def test_a_job_that_was_never_submitted_is_gone() -> None:
    assert states(FakeJob([])) == ["GONE", "GONE"]


def test_a_process_is_alive_if_it_is_the_one_that_was_started(tmp_path: Path) -> None:
    code = "import sys; sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        pid = str(process.pid)
        ours = FakeJob([pid], cluster="local", submitit_folder=tmp_path)
        other = FakeJob([pid], cluster="local", submitit_folder=tmp_path / "other")
        assert (states(ours), states(other)) == (["RUNNING"], ["GONE"])
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert states(ours) == ["GONE"]  # ended, though nobody has asked for its exit code yet
    assert states(ours) == ["GONE"]


def test_processes_of_another_machine_may_run_until_they_are_too_old() -> None:
    job = FakeJob(["1"], cluster="local", host="not-this-one")
    assert states(job) == ["UNKNOWN"]
    job.age_seconds = (60 + QUEUE_MINUTES) * 60 + 1
    assert states(job) == ["GONE"]
