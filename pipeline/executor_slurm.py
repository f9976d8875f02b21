"""Units done by the tasks of a Slurm job array, or of submitit's stand-in on this machine.

    units ─► packed into tasks ─► job folder, leases ─► submitted ─► journals read ─► progress

The driver may wait, committing what tasks report, or leave; `symbio merge` and the next `symbio
run` take in what they left. Nobody else writes to the store while a driver waits.
"""

from __future__ import annotations

import heapq
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checks import refuse
from pipeline.config_slurm import SlurmExecutorConfig
from pipeline.errors import ConfigError
from pipeline.executor_checks import check_jobs
from pipeline.job_folder import Job, create_job
from pipeline.job_watch import JobWatch
from pipeline.journal import Journal
from pipeline.patience import Patience
from pipeline.processes import unheard
from pipeline.slurm_task import Task
from pipeline.unit_queue import UnitQueue
from pipeline.work import Progress, Unit
from pipeline.workbench import Setup
from stores.base import ShardRange, Store

__all__ = ["SlurmJobs", "pack", "submit"]

# Tasks end early again and again where jobs are preempted, or longer than their time limit.
MOST_TIMEOUTS = 1000


class SlurmJobs:
    """Job arrays.

    Args:
        config: of the jobs.
        store: where their shards go.
        tell: is told what a person should know: which job, and what to do about it.
    """

    def __init__(
        self, config: SlurmExecutorConfig, store: Store, tell: Callable[[str], None]
    ) -> None:
        self.workers = config.tasks
        self._config = config
        self._store = store
        self._tell = tell

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `Executor`; what is lost is left to the next run."""
        units = list(iter(queue.take, None))
        if not units or stop.is_set():
            return
        tasks = pack(units, self._config.tasks, setup.rows_per_shard)
        job = self._submit(setup, tasks)
        journal.event("job_submitted", job=job.name, cluster=job.cluster, ids=list(job.ids))
        self._tell(
            f"job {job.name}: {len(tasks)} tasks, {_array(job)}, logs in {job.submitit_folder}"
        )
        if self._config.wait:
            yield from JobWatch(
                job, tasks, self._store, journal, self._tell, Patience(setup.storage_seconds)
            ).progress(queue, stop)
        if stop.is_set() or not self._config.wait:
            self._tell(
                f"the job goes on by itself; symbio merge takes in what it made, and so does the "
                f"next symbio run; {_cancel(job)} ends it"
            )

    def _submit(self, setup: Setup, tasks: Sequence[Sequence[Unit]]) -> Job:
        """Write the job down, keep everybody else from its shards, and hand it in."""
        config = self._config
        refuse(check_jobs(config, Path(self._store.path), setup.device))
        job = create_job(
            Path(self._store.path),
            setup,
            tasks,
            cluster=config.cluster,
            time_minutes=config.time_minutes,
        )
        for number, units in enumerate(tasks):
            self._store.lease(job.lease(number), list(_leased(units, job.keys)))
        try:
            return submit(job, config, setup.device)
        except BaseException:
            for number in range(job.tasks):
                self._store.release(job.lease(number))
            job.remove()
            raise


def pack(units: Sequence[Unit], tasks: int, rows_per_shard: Mapping[str, int]) -> list[list[Unit]]:
    """Share units out among at most so many tasks, with about as many bytes each."""

    def shards(unit: Unit) -> float:
        rows = [(name, len(rows)) for work in unit.videos for name, rows in work.rows.items()]
        return sum(count / rows_per_shard[name] for name, count in rows)

    sizes = {unit.number: shards(unit) for unit in units}
    packed: list[list[Unit]] = [[] for _ in range(min(tasks, len(units)))]
    lightest = [(0.0, place) for place in range(len(packed))]
    for unit in sorted(units, key=lambda unit: -sizes[unit.number]):
        size, place = heapq.heappop(lightest)
        packed[place].append(unit)
        heapq.heappush(lightest, (size + sizes[unit.number], place))
    return [sorted(share, key=lambda unit: unit.number) for share in packed]


def submit(job: Job, config: SlurmExecutorConfig, device: str) -> Job:
    """Hand a job to the cluster; it goes on whatever becomes of this process.

    Raises:
        ConfigError: the cluster is not there, or refuses the job.
    """
    functions = [Task(str(job.folder), n, config.grace_seconds) for n in range(job.tasks)]
    try:
        executor = _executor(job, config, device)
        with unheard(signal.SIGINT, signal.SIGHUP):  # of the terminal; the job goes on without it
            jobs = executor.submit_array(functions)
        if config.cluster == "local":
            for started in jobs:  # they are children of this process, and somebody has to wait
                threading.Thread(target=started.wait, daemon=True).start()
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"executor: the job could not be submitted: {error}") from error
    return job.with_ids([str(submitted.job_id) for submitted in jobs])


def _executor(job: Job, config: SlurmExecutorConfig, device: str) -> Any:
    """Of submitit, with its own names for what a job needs."""
    import submitit

    gpus = config.gpus(device)
    if config.cluster == "local":
        local = submitit.LocalExecutor(
            job.submitit_folder, max_num_timeout=MOST_TIMEOUTS, python=_python_after(config.setup)
        )
        local.update_parameters(
            timeout_min=config.time_minutes,
            signal_delay_s=config.grace_seconds,
            gpus_per_node=gpus,
        )
        return local
    named = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "gpus_per_node": gpus or None,
        "mem": f"{config.mem_gb}GB" if config.mem_gb else None,
    }
    options = {name.replace("_", "-"): value for name, value in config.extra.items()}
    slurm = submitit.SlurmExecutor(job.submitit_folder, max_num_timeout=MOST_TIMEOUTS)
    slurm.update_parameters(
        job_name=f"symbio-{job.name}",
        time=config.time_minutes,
        cpus_per_task=config.cpus_per_task,
        signal_delay_s=config.grace_seconds,
        array_parallelism=config.max_running or job.tasks,
        additional_parameters={"requeue": True, **options},
        # Since Slurm 22.05 steps do not get the cores of their job unless they ask for them.
        srun_args=[f"--cpus-per-task={config.cpus_per_task}"],
        **{name: value for name, value in named.items() if value is not None},
        **({"setup": list(config.setup)} if config.setup else {}),
    )
    return slurm


def _python_after(setup: Sequence[str]) -> str:
    """What starts Python, in words for a shell, when lines of setup are done.

    submitit's own way runs them around what starts tasks, in a shell that takes their signals.
    """
    # Shells unblock signals, so those of the terminal are ignored here as well.
    lines = " && ".join(["trap '' INT HUP", *setup, 'exec "$0" "$@"'])
    command = ["/bin/sh", "-c", lines, sys.executable] if setup else [sys.executable]
    return shlex.join(command)


def _leased(units: Sequence[Unit], keys: Mapping[str, str]) -> Iterator[ShardRange]:
    for unit in units:
        for stage, numbers in unit.shards.items():
            listed = list(numbers)
            yield ShardRange(stage, keys[stage], listed[0], len(listed))


def _array(job: Job) -> str:
    if job.cluster == "local":
        return f"processes {', '.join(job.ids)}"
    return f"Slurm job {job.ids[0].split('_')[0]}"


def _cancel(job: Job) -> str:
    if job.cluster == "local":
        return f"kill {' '.join(job.ids)}"
    return f"scancel {job.ids[0].split('_')[0]}"
