"""The folder of a job: what its tasks are to do, and what they say about it.

    <store>/jobs/<UTC time>-<pid>/
        job.json           what it is, and the ids under which the cluster knows its tasks
        task_<n>.json      rows and shards of a task
        setup.pkl          what tasks need to work, and
        units_<n>.pkl      the units of a task; read by tasks alone
        task_<n>.<k>.jsonl what a task said in its k-th start, a line for each event
        merged.json        how much of that is committed
        submitit/          scripts and logs of the tasks

The coordinator reads JSON only. Pickles are read by tasks, which started from one anyway, and only
if nobody but their own user can have written them.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.durable import replace_file

if TYPE_CHECKING:  # they load torch, which a merge does not need
    from pipeline.work import Unit
    from pipeline.workbench import Setup

__all__ = [
    "JOBS_FOLDER",
    "DamagedJobError",
    "Job",
    "create_job",
    "find_jobs",
    "forsaken",
    "load_work",
]

JOBS_FOLDER = "jobs"
JOB_FILE, MERGED_FILE, SETUP_FILE = "job.json", "merged.json", "setup.pkl"
FORMAT_VERSION = 1
LEASE_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d+\.\d+")  # the name of a job, and a task


class DamagedJobError(ValueError):
    """A file of a job cannot be read; it says what a person can do about it."""


@dataclass(frozen=True)
class Job:
    """A job and where it lies.

    Attributes:
        created: UTC time, ISO.
        host: where it was submitted.
        cluster: "slurm" or "local".
        time_minutes: limit of a task.
        keys: stage → key, of the rows it makes.
        tasks: how many.
        ids: of the tasks at the cluster, in order; none before it is submitted.
    """

    folder: Path
    created: str
    host: str
    cluster: str
    time_minutes: int
    keys: Mapping[str, str]
    tasks: int
    ids: Sequence[str] = ()

    @property
    def name(self) -> str:
        """By which people and leases know it."""
        return self.folder.name

    @property
    def age_seconds(self) -> float:
        """Since it was made."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.created)).total_seconds()

    @property
    def submitit_folder(self) -> Path:
        """Of scripts and logs."""
        return self.folder / "submitit"

    @property
    def owner(self) -> int:
        """Id of the user who submitted it."""
        return self.folder.stat().st_uid

    def lease(self, task: int) -> str:
        """Name of the lease on a task's shards."""
        return f"{self.name}.{task}"

    def save(self) -> None:
        """Write job.json durably."""
        fields = {name: value for name, value in asdict(self).items() if name != "folder"}
        _write_json(self.folder / JOB_FILE, {"format": FORMAT_VERSION, **fields})

    def with_ids(self, ids: Sequence[str]) -> Job:
        """The same, submitted; saved."""
        submitted = replace(self, ids=list(ids))
        submitted.save()
        return submitted

    def units(self, task: int) -> list[dict[str, Any]]:
        """What a task is to do: unit, videos, shards by stage, row keys by stage."""
        file = self.folder / f"task_{task}.json"
        units = _read_json(file).get("units")
        if not isinstance(units, list):
            raise _damaged(file, "no units", "those of a task")
        return units

    def rows(self, task: int) -> dict[str, set[str]]:
        """Keys of the rows that a task is to make, by stage key."""
        rows: dict[str, set[str]] = {key: set() for key in self.keys.values()}
        for unit in self.units(task):
            for stage, keys in unit["rows"].items():
                rows[self.keys[stage]].update(keys)
        return rows

    def logs(self, task: int) -> list[Path]:
        """What a task printed."""
        return sorted(self.submitit_folder.glob(f"{self.ids[task]}_*_log.*")) if self.ids else []

    @cached_property
    def merged(self) -> dict[str, int]:
        """How many bytes of each journal are committed."""
        try:
            return dict(_read_json(self.folder / MERGED_FILE))
        except FileNotFoundError:
            return {}

    def save_merged(self) -> None:
        """Remember across processes how much is committed."""
        _write_json(self.folder / MERGED_FILE, self.merged)

    def remove(self) -> None:
        """Delete the folder; what is left of it after a crash is no job any more."""
        (self.folder / JOB_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def create_job(
    store: Path, setup: Setup, tasks: Sequence[Sequence[Unit]], *, cluster: str, time_minutes: int
) -> Job:
    """Write down a job that is not submitted yet.

    Args:
        store: folder of the store.
        setup: what every task needs.
        tasks: units of each.
    """
    now = datetime.now(UTC)
    folder = store.absolute() / JOBS_FOLDER / f"{now:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}"
    folder.parent.mkdir(exist_ok=True)
    for other in folder.parent.iterdir():
        if not (other / JOB_FILE).exists():  # a crash left it, while it was made or removed
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(mode=0o700)
    _write(folder / SETUP_FILE, pickle.dumps(setup))
    for number, units in enumerate(tasks):
        _write(folder / f"units_{number}.pkl", pickle.dumps(list(units)))
        _write_json(folder / f"task_{number}.json", {"units": [_describe(u) for u in units]})
    job = Job(
        folder,
        now.isoformat(timespec="seconds"),
        socket.gethostname(),
        cluster,
        time_minutes,
        {name: stage.key for name, stage in setup.stages.items()},
        len(tasks),
    )
    job.save()
    return job


def find_jobs(store: Path, damaged: list[DamagedJobError] | None = None) -> list[Job]:
    """The jobs of a store, oldest first; folders without job.json are what a crash left.

    Args:
        damaged: takes what is wrong with jobs that cannot be read, which are left out then.

    Raises:
        DamagedJobError: nobody takes it.
    """
    try:
        folders = sorted((store.absolute() / JOBS_FOLDER).iterdir())
    except FileNotFoundError:
        return []
    jobs = []
    for folder in folders:
        try:
            jobs.append(_read_job(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except DamagedJobError as error:
            if damaged is None:
                raise
            damaged.append(error)
    return jobs


def forsaken(store: Path, leases: Iterable[str]) -> list[str]:
    """Of names of leases, those of jobs whose folder somebody has deleted."""
    folder = store.absolute() / JOBS_FOLDER
    of_jobs = [name for name in leases if LEASE_NAME.fullmatch(name)]
    return [name for name in of_jobs if not (folder / name.rpartition(".")[0]).exists()]


def load_work(folder: Path, task: int) -> tuple[Setup, list[Unit]]:
    """What a task is to do, read on its node.

    Raises:
        PermissionError: somebody else can have written it.
    """
    setup: Setup = _unpickle(folder / SETUP_FILE)
    units: list[Unit] = _unpickle(folder / f"units_{task}.pkl")
    return setup, units


def _read_job(folder: Path) -> Job:
    file = folder / JOB_FILE
    fields = _read_json(file)
    if fields.pop("format", None) != FORMAT_VERSION:
        raise DamagedJobError(
            f"{folder}: got a job of another version of symbio, expected {FORMAT_VERSION}; "
            "merge it with that one, or delete the folder if none of its tasks runs"
        )
    kinds = {
        **dict.fromkeys(("created", "host", "cluster"), str),
        **dict.fromkeys(("time_minutes", "tasks"), int),
        "keys": dict,
        "ids": list,
    }
    if {name: type(value) for name, value in fields.items()} != kinds:
        raise _damaged(file, f"fields {', '.join(fields) or 'none'}", f"{', '.join(kinds)}")
    return Job(folder, **fields)


def _damaged(file: Path, got: str, expected: str) -> DamagedJobError:
    return DamagedJobError(
        f"{file}: got {got}, expected {expected}; once no task of the job runs, delete "
        f"{file.parent}, and symbio run makes those of its rows again that are not stored"
    )


def _describe(unit: Unit) -> dict[str, Any]:
    rows: dict[str, list[str]] = {}
    for work in unit.videos:
        for stage, found in work.rows.items():
            rows.setdefault(stage, []).extend(row.key for row in found)
    return {
        "unit": unit.number,
        "videos": [work.video.video_id for work in unit.videos],
        "shards": {stage: list(numbers) for stage, numbers in unit.shards.items()},
        "rows": rows,
    }


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path}: got a file that others can write, expected our own")
        return pickle.load(file)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, f"no JSON ({error})", "that of a job") from error
    if not isinstance(found, dict):
        raise _damaged(path, type(found).__name__, "keys and values")
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content).encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    replace_file(path, content, durable=True)
    path.chmod(0o600)
