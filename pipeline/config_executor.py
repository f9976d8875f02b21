"""Section ``executor``: who does the work of a run."""

from __future__ import annotations

from typing import Literal

from pipeline.config_base import Natural, Positive, Section

__all__ = ["ExecutorConfig", "LocalExecutorConfig"]


class LocalExecutorConfig(Section):
    """Processes of this machine.

    ``workers``: 0 works in the main process; on CUDA each worker has a GPU, in turn.
    ``worker_stall_seconds``: a worker that gives no sign of life for so long is ended.
    """

    name: Literal["local"] = "local"
    workers: Natural = 0
    worker_stall_seconds: Positive = 900.0


ExecutorConfig = LocalExecutorConfig
