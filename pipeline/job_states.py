"""Which tasks of a job are still to come or running, as the cluster tells.

Slurm is asked with `squeue`, which answers with or without accounting. A task that it does not know
any more has ended. Where it gives no answer at all (it is down, or this machine is no part of it),
tasks count as running until they can no longer be: they are older than their time limit and a
margin for the queue. So do processes of another machine, which cannot be seen from this one.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.job_folder import Job

__all__ = ["ENDED", "RUNNING", "is_elsewhere", "slurm_states", "task_states"]

ANSWER_SECONDS = 60.0
# Tasks may wait so long for their turn before they are thought lost where nobody can tell.
QUEUE_MINUTES = 7 * 24 * 60

RUNNING = "RUNNING"
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    )
)


def task_states(job: Job) -> list[str]:
    """The state of each task, as Slurm calls them; "GONE" where the cluster knows it no more."""
    if not job.ids:
        return ["GONE"] * job.tasks  # its driver died before it was submitted
    if is_elsewhere(job):
        return _unseen(job)
    if job.cluster == "local":
        return [RUNNING if _is_alive(job, int(pid)) else "GONE" for pid in job.ids]
    try:
        states = slurm_states(["--user", str(job.owner)])
    except (OSError, subprocess.SubprocessError, ValueError):
        return _unseen(job)
    return [states.get(task_id, "GONE") for task_id in job.ids]


def is_elsewhere(job: Job) -> bool:
    """Whether its tasks are processes of another machine, where alone they can be seen."""
    return job.cluster == "local" and job.host != socket.gethostname()


def slurm_states(chosen: Sequence[str]) -> dict[str, str]:
    """The states of tasks that Slurm still knows, by id.

    Args:
        chosen: options of squeue that say which.

    Raises:
        OSError, subprocess.SubprocessError: squeue gives no answer.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", *chosen]
    asked = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
    )
    lines = (line.split() for line in asked.stdout.splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _unseen(job: Job) -> list[str]:
    """The states of tasks that nobody here knows of."""
    too_old = job.age_seconds > (job.time_minutes + QUEUE_MINUTES) * 60
    return ["GONE" if too_old else "UNKNOWN"] * job.tasks


def _is_alive(job: Job, pid: int) -> bool:
    """Whether a process is the one that submitit's local executor runs the task in."""
    process = Path(f"/proc/{pid}")
    try:
        command = (process / "cmdline").read_bytes()
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # One that is just being started has no command yet, as has one that ended ("Z").
    return state not in "ZX" and (not command or os.fsencode(job.submitit_folder) in command)
