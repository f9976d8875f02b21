"""Who does the units of a run: this process, others beside it, or a cluster.

To add a way, write a class with `run` in ``pipeline/executor_<name>.py``, give it a section in
``pipeline/config_executor.py`` and name both in `create_executor`. What a worker does is always
`Workbench.run`; what an executor yields is committed by whoever called it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Protocol

from pipeline.config_executor import ExecutorConfig
from pipeline.config_ray import RayExecutorConfig
from pipeline.config_slurm import SlurmExecutorConfig
from pipeline.journal import Journal
from pipeline.unit_queue import UnitQueue
from pipeline.work import Progress
from pipeline.workbench import Setup
from stores.base import Store

__all__ = ["Executor", "create_executor"]


class Executor(Protocol):
    """A way of having units done.

    Attributes:
        workers: how many units it works on at a time.
    """

    workers: int

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """Have all units of a queue done; yield what came of them, and None now and then.

        What was yielded before None is committed when the next one is asked for.

        Each progress of a unit is told to `queue.note` before it is yielded, each unit that is
        finished to `queue.done`, each whose worker died to `queue.lost`, whose failures are yielded
        too.

        Args:
            setup: for the workers.
            stop: when set, finished rows are written and the run ends early.
            journal: is told about units and workers.

        Raises:
            ConfigError: no worker can be built as `setup` says.
            OSError: shards cannot be written.
        """


def create_executor(config: ExecutorConfig, store: Store, tell: Callable[[str], None]) -> Executor:
    """The executor that a config asks for.

    Args:
        store: where shards go; for leases on them, never for rows.
        tell: is told what a person should know at once.
    """
    if isinstance(config, SlurmExecutorConfig):
        from pipeline.executor_slurm import SlurmJobs

        return SlurmJobs(config, store, tell)
    if isinstance(config, RayExecutorConfig):
        from pipeline.executor_ray import RayWorkers

        return RayWorkers(config, tell)
    from pipeline.executor_local import InProcess, LocalWorkers

    if config.workers == 0:
        return InProcess()
    return LocalWorkers(config.workers, stall_seconds=config.worker_stall_seconds)
