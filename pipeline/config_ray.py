"""The section of the executor that sends work to a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config_base import Count, NonNegative, Positive, Section

__all__ = ["RayExecutorConfig"]


class RayExecutorConfig(Section):
    """Actors of a Ray cluster. Nothing here is in a key.

    ``address``: null starts a cluster on this machine; "auto", host:port or ray://host:port join
    one. ``gpus_per_worker``: fractions share a GPU; null is one where ``device`` is CUDA.
    ``memory_gb``: in GiB, for Ray's choice of machines. ``worker_stall_seconds``: a worker that
    gives no sign of life for so long is ended.
    """

    name: Literal["ray"]
    address: Annotated[str, Field(min_length=1)] | None = None
    workers: Count = 1
    gpus_per_worker: NonNegative | None = None
    cpus_per_worker: Count = 1
    memory_gb: Positive | None = None
    worker_stall_seconds: Positive = 900.0

    @field_validator("gpus_per_worker")
    @classmethod
    def _is_fraction_or_whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError("expected a fraction of a GPU below 1, or a whole number of GPUs")
        return value
