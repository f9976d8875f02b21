"""Jobs as processes of this machine: they outlive the terminal, and the printed command ends them.

Each task pauses when its first rows are written down, until it is told to end.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs_fixtures import LOCAL
from run_fixtures import command, is_alive, make_five_videos, wait_for

from pipeline.job_folder import Job, find_jobs
from pipeline.job_states import task_states
from pipeline.merge import merge_jobs
from pipeline.task_journal import journals, read_events

PAUSE = """
import threading
from pipeline.slurm_task import _Order
from pipeline.task_journal import TaskJournal

note, take, told = TaskJournal.note, _Order.take, threading.Event()

def pausing(self, progress):
    keys = note(self, progress)
    if keys:
        told.wait(60)
    return keys

def taking(self, number, frame):
    told.set()
    take(self, number, frame)

TaskJournal.note, _Order.take = pausing, taking
"""


def setup_lines(folder: Path) -> str:
    """Of a job whose tasks pause."""
    (folder / "sitecustomize.py").write_text(PAUSE)
    path = f"{folder}:{os.environ['PYTHONPATH']}" if "PYTHONPATH" in os.environ else str(folder)
    return f"executor.setup=[cd ., export PYTHONPATH={shlex.quote(path)}]"


def events(job: Job, task: int) -> list[Any]:
    return [event for path in journals(job.folder, task) for event in read_events(path)[0]]


def names(job: Job, task: int) -> Counter[str]:
    return Counter(event["event"] for event in events(job, task))


def submitted(folder: Path, driver: subprocess.Popen[str]) -> list[Job]:
    assert not driver.poll(), driver.communicate()
    return [job for job in find_jobs(folder / "store") if job.ids]


@contextmanager
def paused_job(folder: Path, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], Job]]:
    """The driver of a job whose two tasks have written some rows."""
    make_five_videos(folder)
    with command(folder, *LOCAL, setup_lines(folder), *overrides) as driver:
        (job,) = wait_for(lambda: submitted(folder, driver))
        try:
            wait_for(lambda: all(names(job, task)["rows"] for task in (0, 1)))
            yield driver, job
        finally:
            for pid in job.ids:
                if is_alive(int(pid)):
                    os.kill(int(pid), signal.SIGKILL)


def test_the_command_that_is_told_ends_a_job_for_good(tmp_path: Path) -> None:
    with paused_job(tmp_path) as (driver, job):
        os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        driver.wait(60)
        assert driver.stdout is not None
        told = os.read(driver.stdout.fileno(), 2**16).decode()  # the job keeps the pipe open
        assert task_states(job) == ["RUNNING"] * 2
        (ends_it,) = re.findall(r"; (kill [\d\s]+) ends\s+it", told)
        subprocess.run(["sh", "-c", " ".join(ends_it.split())], check=True)
        wait_for(lambda: task_states(job) == ["GONE"] * 2)
    pids = [event["pid"] for task in (0, 1) for event in events(job, task) if "pid" in event]
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    for task in (0, 1):
        assert events(job, task)[-1].items() >= {"event": "stopped", "signal": "SIGTERM"}.items()
    (merged,) = merge_jobs(tmp_path / "store")
    assert all(0 < task.stored < task.rows for task in merged.tasks)
    reason = "it was told to end (SIGTERM) and not started again"
    assert [(task.end, task.reason) for task in merged.tasks] == [("lost", reason)] * 2


def test_a_task_ends_with_the_process_that_stands_for_it(tmp_path: Path) -> None:
    with paused_job(tmp_path, "executor.wait=false") as (_, job):
        (started, *_) = events(job, 0)
        assert is_alive(started["pid"])
        os.kill(int(job.ids[0]), signal.SIGKILL)
        wait_for(lambda: not is_alive(started["pid"]))
        assert task_states(job) == ["GONE", "RUNNING"]
