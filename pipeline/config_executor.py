"""Section ``executor``: who does the work of a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config_base import Natural, Positive, Section
from pipeline.config_ray import RayExecutorConfig
from pipeline.config_slurm import SlurmExecutorConfig

__all__ = [
    "ExecutorConfig",
    "LocalExecutorConfig",
    "RayExecutorConfig",
    "SlurmExecutorConfig",
    "worker_count",
    "works_here",
]


class LocalExecutorConfig(Section):
    """Processes of this machine.

    ``workers``: 0 works in the main process; on CUDA each worker has a GPU, in turn.
    ``worker_stall_seconds``: a worker that gives no sign of life for so long is ended.
    """

    name: Literal["local"] = "local"
    workers: Natural = 0
    worker_stall_seconds: Positive = 900.0


def worker_count(config: LocalExecutorConfig | RayExecutorConfig | SlurmExecutorConfig) -> int:
    """How many units are worked on at a time; the main process alone counts as one worker."""
    return config.tasks if config.name == "slurm" else max(config.workers, 1)


def works_here(config: LocalExecutorConfig | RayExecutorConfig | SlurmExecutorConfig) -> bool:
    """Whether networks run on the machine of the command, and nowhere else."""
    if config.name == "slurm":
        return config.cluster == "local"
    return config.name == "local" or config.address is None


def _named(section: Any) -> Any:
    """Without a name it is this machine that works."""
    return {"name": "local", **section} if isinstance(section, dict) else section


ExecutorConfig = Annotated[
    SlurmExecutorConfig | RayExecutorConfig | LocalExecutorConfig,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
