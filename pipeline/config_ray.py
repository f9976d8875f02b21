"""The section of the executor that sends work to a Ray cluster."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from pipeline.config_base import Count, NonNegative, Positive, Section

__all__ = ["RayExecutorConfig", "host_and_port"]

CLIENT_PORT = "10001"  # of addresses that begin with ray:// and name no port
MOST_PORT = 65_535


class RayExecutorConfig(Section):
    """Actors of a Ray cluster. Nothing here is in a key.

    ``address``: null starts a cluster on this machine; "auto", host:port or ray://host:port join
    one. ``gpus_per_worker``: fractions share a GPU; null is one where ``device`` is CUDA.
    ``memory_gb``: in GiB, for Ray's choice of machines. ``worker_stall_seconds``: a worker that
    gives no sign of life for so long is ended.
    """

    name: Literal["ray"]
    address: str | None = None
    workers: Count = 1
    gpus_per_worker: NonNegative | None = None
    cpus_per_worker: Count = 1
    memory_gb: Positive | None = None
    worker_stall_seconds: Positive = 900.0

    def gpus(self, device: str) -> float:
        """GPUs of each worker whose networks run on that device."""
        if self.gpus_per_worker is None:
            return float(device.startswith("cuda"))
        return self.gpus_per_worker

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and value != "auto":
            host_and_port(value)
        return value

    @field_validator("gpus_per_worker")
    @classmethod
    def _is_fraction_or_whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError("expected a fraction of a GPU below 1, or a whole number of GPUs")
        return value


def host_and_port(address: str) -> tuple[str, int]:
    """Where a cluster listens that is named "host:port", "ray://host:port" or "ray://host".

    Raises:
        ValueError: that is none of them.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("ray://") and not host:
        host, port = port, CLIENT_PORT
    is_port = re.fullmatch(r"[0-9]{1,5}", port) is not None and 0 < int(port) <= MOST_PORT
    if not is_port or re.fullmatch(r"[^/\s]+", host) is None:
        raise ValueError(
            "expected auto, host:port or ray://host:port; null starts a cluster on this machine"
        )
    return host.strip("[]"), int(port)
