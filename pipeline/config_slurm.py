"""The section of the executor that sends work to Slurm."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from pipeline.config_base import Count, Natural, Section, Switch

__all__ = ["SlurmExecutorConfig"]

Line = Annotated[str, Strict(), Field(min_length=1, pattern=r"^[^\n\r\x00]+$")]
OptionValue = Annotated[int, Strict()] | Annotated[float, Strict()] | Switch | Line

# Options of sbatch that other keys decide, or that this program needs as they are.
_TAKEN = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time": "time_minutes",
    "gpus-per-node": "gpus_per_task",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_gb",
    "array": "tasks",
    "signal": "grace_seconds",
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "nodes", "requeue"), ""),
    **dict.fromkeys(("ntasks", "ntasks-per-node", "no-requeue", "chdir", "wait"), ""),
}


class SlurmExecutorConfig(Section):
    """A job array: ``tasks`` jobs, each with its share of the videos. Nothing here is in a key.

    ``gpus_per_task``: null is 1 where ``device`` is cuda, else 0. ``grace_seconds``: how long
    before its time limit a task is told to end, and how long it may take then. ``extra``: further
    options of sbatch, without the dashes. ``cluster``: local runs the tasks as processes of this
    machine, to try things out.
    """

    name: Literal["slurm"]
    cluster: Literal["slurm", "local"] = "slurm"
    tasks: Count = 8
    max_running: Count | None = None
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    time_minutes: Count = 240
    gpus_per_task: Natural | None = None
    cpus_per_task: Count = 4
    mem_gb: Count | None = None
    setup: tuple[Line, ...] = ()
    extra: dict[str, OptionValue] = Field(default={})
    grace_seconds: Count = 120
    wait: Switch = True

    def gpus(self, device: str) -> int:
        """GPUs of each task whose networks run on that device."""
        if self.gpus_per_task is None:
            return int(device.startswith("cuda"))
        return self.gpus_per_task

    @field_validator("extra")
    @classmethod
    def _is_free(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            plain = name.replace("_", "-")
            if not plain.replace("-", "").isalnum() or plain.startswith("-"):
                raise ValueError(f"got option {name!r}, expected the name of an option of sbatch")
            if plain in _TAKEN:
                hint = f"; set {_TAKEN[plain]} instead" if _TAKEN[plain] else ""
                raise ValueError(f"got option {name!r}, which is set by this program{hint}")
        return extra

    @model_validator(mode="after")
    def _ends_in_time(self) -> Self:
        if self.grace_seconds >= self.time_minutes * 60:
            raise ValueError(
                f"got grace_seconds {self.grace_seconds}, expected less than time_minutes, "
                f"which is {self.time_minutes * 60} seconds"
            )
        return self
