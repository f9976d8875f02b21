"""One YAML file per experiment, read into models that refuse what they do not know.

Paths in the file are relative to the folder the command runs in. The models hold settings only;
the modules they configure take plain arguments. Sections: ``config_data``, ``config_stages``,
``config_training``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config_base import Count, Natural, Positive, Section
from pipeline.config_data import DataConfig
from pipeline.config_executor import ExecutorConfig, LocalExecutorConfig
from pipeline.config_stages import StagesConfig
from pipeline.config_training import EvaluateConfig, HeadConfig, StageOneConfig, TrainConfig

__all__ = ["EngineConfig", "ExperimentConfig", "StoreConfig", "ViewsConfig"]


class StoredStageConfig(Section):
    """How the rows of one stage are kept, where it differs from the rest of the store."""

    shard_mib: Count | None = None
    compression: Literal["none", "zstd"] | None = None


class StoredStagesConfig(Section):
    """One section per stage."""

    verb: StoredStageConfig = StoredStageConfig()
    noun: StoredStageConfig = StoredStageConfig()
    objects: StoredStageConfig = StoredStageConfig()
    aligned: StoredStageConfig = StoredStageConfig()


class StoreConfig(Section):
    """Where features live, and how. Nothing here decides a number, so nothing is in a key.

    ``format``: of a new store. ``shard_mib`` and ``compression``: of new generations, all outputs
    of a shard together; ``stages`` says otherwise for single stages.
    """

    path: Path
    format: Literal["zarr", "hdf5"] | None = None
    shard_mib: Count = 32
    compression: Literal["none", "zstd"] = "none"
    stages: StoredStagesConfig = StoredStagesConfig()

    def of_stage(self, name: str) -> tuple[int, str]:
        """Size of a shard in MiB, and compression, of a stage."""
        stage: StoredStageConfig = getattr(self.stages, name)
        return stage.shard_mib or self.shard_mib, stage.compression or self.compression


class EngineConfig(Section):
    """How extraction uses the machine. Nothing here decides a number, so nothing is in a key.

    ``decode_processes``: null is one beside a network on the CPU, else one per core but one; 0
    decodes in the main process. ``stall_seconds``: a decode process that says nothing for so long
    is ended, and so is one that is busy with a video for ``video_seconds``. ``decode_memory_mib``:
    what it may take beyond what it starts with; null is no limit. ``commit_seconds``: finished rows
    wait no longer than this to be written. ``cpu_threads``: of networks on a CPU; null is one for
    each core that a worker has.
    ``storage_seconds``: how long a store's folder that vanished is waited for.
    """

    cpu_threads: Count | None = None
    decode_processes: Natural | None = None
    stall_seconds: Positive = 600.0
    video_seconds: Positive = 14_400.0
    decode_memory_mib: Count | None = 8192
    commit_seconds: Positive = 300.0
    storage_seconds: Positive = 600.0


class ViewsConfig(Section):
    """Clips per segment.

    ``train``: with seeded random centres. ``test``: of segments of the other splits, evenly spread;
    one is in the middle.
    """

    train: Count = 1
    test: Count = 1
    seed: Natural = 0


class ExperimentConfig(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    store: StoreConfig
    engine: EngineConfig = EngineConfig()
    executor: ExecutorConfig = LocalExecutorConfig()
    runs: Path = Path("runs")
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    stages: StagesConfig
    finetune: StageOneConfig = StageOneConfig()
    head: HeadConfig = HeadConfig(name="saoa")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
