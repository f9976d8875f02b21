"""Jobs on a real Slurm cluster, whose nodes share the folder of temporary files with this machine.

A cluster of this machine alone will do; CONTRIBUTING.md says how to start one.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from jobs_fixtures import Told, contents, run

from pipeline.job_folder import Job, find_jobs
from pipeline.job_states import RUNNING, task_states
from pipeline.merge import merge_jobs
from pipeline.task_journal import journals, read_events

pytestmark = pytest.mark.needs_slurm

SLURM = (
    "executor.name=slurm",
    "executor.tasks=2",
    "executor.cpus_per_task=1",
    "executor.time_minutes=10",
    "executor.grace_seconds=60",
)
NO_WAIT = "executor.wait=false"
# Slurm lets a task that was requeued wait for two minutes.
LONGEST_SECONDS = 400


def the_job(folder: Path) -> Job:
    (job,) = find_jobs(folder / "store")
    return job


def slurm(*command: str) -> None:
    subprocess.run(command, check=True)


def said(job: Job, task: int) -> set[str]:
    return {e["event"] for path in journals(job.folder, task) for e in read_events(path)[0]}


def wait_for(job: Job, what: str, *tasks: int) -> None:
    """Until all of these tasks said something."""
    for _ in range(LONGEST_SECONDS):
        if all(what in said(job, task) for task in tasks):
            return
        time.sleep(1)
    raise AssertionError(f"no {what} in {LONGEST_SECONDS} s; the tasks are {task_states(job)}")


def wait_until_ended(job: Job) -> None:
    for _ in range(LONGEST_SECONDS):
        if not {RUNNING, "PENDING", "COMPLETING", "CONFIGURING"} & set(task_states(job)):
            return
        time.sleep(1)
    raise AssertionError(f"the tasks are still {task_states(job)}")


@pytest.mark.slow
def test_a_cluster_makes_the_same_rows_to_the_byte(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    told = Told()
    assert run(here).complete
    assert run(there, *SLURM, reporter=told).complete
    assert "Slurm job" in told.lines[0]
    assert contents(there) == contents(here)
    assert find_jobs(there / "store") == []


@pytest.mark.slow
def test_a_task_that_is_cancelled_stays_so_and_one_that_is_preempted_comes_back(
    tmp_path: Path,
) -> None:
    run(tmp_path, *SLURM, NO_WAIT, "executor.extra.hold=true")
    job = the_job(tmp_path)
    assert task_states(job) == ["PENDING"] * 2
    slurm("scancel", job.ids[1])
    slurm("scontrol", "release", job.ids[0])
    wait_for(job, "started", 0)
    slurm("scancel", "--signal=USR1", job.ids[0])
    wait_for(job, "finished", 0)
    wait_until_ended(job)
    (merged,) = merge_jobs(tmp_path / "store")
    assert [task.end for task in merged.tasks] == ["finished", "lost"]
    assert merged.tasks[0].missing == 0
    report = run(tmp_path)
    assert report.complete
    assert sum(stage.made for stage in report.stages[:3]) == merged.tasks[1].missing
