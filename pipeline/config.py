"""One YAML file per experiment, read into models that refuse what they do not know.

Paths in the file are relative to the folder the command runs in. The models hold settings only;
the modules they configure take plain arguments. Sections: ``config_data``, ``config_stages``,
``config_training``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.config_base import Count, Natural, Section
from pipeline.config_data import DataConfig
from pipeline.config_stages import StagesConfig
from pipeline.config_training import EvaluateConfig, HeadConfig, StageOneConfig, TrainConfig

__all__ = ["ExperimentConfig", "StoreConfig", "ViewsConfig"]


class StoreConfig(Section):
    """Where features live. ``shard_mib``: size of one shard file."""

    path: Path
    shard_mib: Count = 32


class ViewsConfig(Section):
    """Clips per segment. Training clips have seeded random centres; a test clip is the middle."""

    train: Count = 1
    seed: Natural = 0


class ExperimentConfig(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    store: StoreConfig
    runs: Path = Path("runs")
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    stages: StagesConfig
    finetune: StageOneConfig = StageOneConfig()
    head: HeadConfig = HeadConfig(name="saoa")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
