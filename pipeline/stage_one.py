"""``symbio finetune``: one network of an experiment, trained on its own labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import nn

from extractors.inference import resolve_device
from pipeline.boxes_store import load_boxes
from pipeline.config import ExperimentConfig
from pipeline.config_data import VideosConfig
from pipeline.config_training import ClipFinetuneConfig, StageOneSection
from pipeline.datasets import load_dataset, videos_config
from pipeline.errors import ConfigError
from pipeline.finetune import FinetuneEpoch, Task, finetune
from pipeline.finetune_boxes import BoxTask, create_box_network
from pipeline.finetune_clips import ClipTask, Target, create_clip_network
from pipeline.runs import start_run_folder
from pipeline.segments import Dataset

__all__ = ["NETWORKS", "default_finetune_folder", "run_finetune"]

Network = Literal["verb", "noun", "objects"]
NETWORKS: tuple[Network, ...] = ("verb", "noun", "objects")


def default_finetune_folder(config: ExperimentConfig, network: Network) -> Path:
    """Where a stage-one training goes unless it is told otherwise."""
    return config.runs / f"{config.name}-finetune-{network}"


def run_finetune(
    config: ExperimentConfig,
    network: Network,
    run_folder: Path,
    *,
    resume: bool,
    on_epoch: Callable[[FinetuneEpoch], None],
) -> Path:
    """Train one network.

    Returns:
        The checkpoint to name as ``stages.<network>.weights``.

    Raises:
        ConfigError: no section ``finetune.<network>``, or settings that do not fit together.
        RunFolderError: the folder is taken.
        VideoError: a video cannot be read.
    """
    resolve_device(config.device)
    dataset, videos = load_dataset(config.data), videos_config(config.data)
    build = _objects if network == "objects" else _clips
    module, task, settings = build(config, network, dataset, videos)
    start_run_folder(run_folder, config, resume=resume)
    return finetune(
        run_folder,
        module,
        task,
        settings,
        device=config.device,
        metadata={"network": network, "architecture": _architecture(config, network)},
        resume=resume,
        on_epoch=on_epoch,
    )


Parts = tuple[nn.Module, Task, StageOneSection]


def _clips(
    config: ExperimentConfig, network: Network, dataset: Dataset, videos: VideosConfig
) -> Parts:
    settings: ClipFinetuneConfig | None = getattr(config.finetune, network)
    if settings is None:
        raise ConfigError(f"finetune.{network}: this section is absent; say how to train it")
    stage = getattr(config.stages, network)
    target: Target = "verb" if network == "verb" else "noun"
    names = dataset.verb_names if target == "verb" else dataset.noun_names
    module, pixels = create_clip_network(stage, settings, len(names), network)
    return module, ClipTask(dataset, videos, stage, settings, target, pixels), settings


def _objects(
    config: ExperimentConfig, network: Network, dataset: Dataset, videos: VideosConfig
) -> Parts:
    settings, stage = config.finetune.objects, config.stages.objects
    if settings is None or stage.boxes is None:
        raise ConfigError(
            "finetune.objects: needs this section, and stages.objects with given_boxes and boxes"
        )
    module = create_box_network(stage, settings, len(dataset.noun_names))
    return module, BoxTask(dataset, videos, load_boxes(stage.boxes), settings), settings


def _architecture(config: ExperimentConfig, network: Network) -> dict[str, Any]:
    stage = config.stages
    section = stage.objects.detector if network == "objects" else getattr(stage, network).network
    described: dict[str, Any] = section.model_dump(mode="json")
    return described
