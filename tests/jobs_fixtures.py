"""Jobs on a cluster as tests use them: tasks in this process, or as processes of submitit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment_fixtures import Silent, make_experiment

from pipeline.config_slurm import SlurmExecutorConfig
from pipeline.experiment import resolve
from pipeline.job_folder import Job
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from pipeline.slurm_task import Task
from pipeline.stages import STAGE_NAMES
from stores.registry import open_store

__all__ = ["LOCAL", "Contents", "Told", "contents", "run", "run_task", "tasks_in_this_process"]

ONE_THREAD = "engine.cpu_threads=1"
LOCAL = (
    "executor.name=slurm",
    "executor.cluster=local",
    "executor.tasks=2",
    "executor.time_minutes=5",
    "executor.grace_seconds=60",
)
Contents = dict[str, dict[str, dict[str, bytes]]]


class Told(Silent):
    """A reporter that keeps what it is told, and may act on the first row that is done."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self._act = act

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, stage: str, rows: int) -> None:
        act, self._act = self._act, lambda: None
        act()


def run(folder: Path, *overrides: str, **options: Any) -> RunReport:
    """A run of the small experiment."""
    defaults = {"reporter": Silent(), "stop": threading.Event(), "retry_failed": False}
    return run_experiment(
        resolve(make_experiment(folder, [ONE_THREAD, *overrides])),
        **{"stages": STAGE_NAMES} | defaults | options,
    )


def contents(folder: Path) -> Contents:
    """The bytes of a store: stage → row key → output; of several generations together."""
    found: Contents = {}
    with open_store(folder / "store") as store:
        for info in store.generations():
            generation = store.generation(info.stage, info.key)
            rows = found.setdefault(info.stage, {})
            for key in generation.keys():  # noqa: SIM118 - a generation is no mapping
                arrays = generation.read([key])
                rows[key] = {name: array.tobytes() for name, array in arrays.items()}
    return found


def run_task(job: Job, number: int) -> None:
    """A start of a task, here."""
    Task(str(job.folder), number, 60)()


def tasks_in_this_process(
    *, at_once: bool = True
) -> Callable[[Job, SlurmExecutorConfig, str], Job]:
    """What stands in for `submit`: its tasks run here and now, or when somebody calls them."""

    def submit(job: Job, config: SlurmExecutorConfig, device: str) -> Job:
        submitted = job.with_ids(["0"] * job.tasks)  # no process has that id
        for number in range(job.tasks if at_once else 0):
            run_task(submitted, number)
        return submitted

    return submit
