"""``symbio finetune``: one network of an experiment, trained on its own labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.boxes import BoxFile
from pipeline.config import ExperimentConfig
from pipeline.datasets import load_dataset, videos_config
from pipeline.errors import ConfigError
from pipeline.finetune import FinetuneEpoch, finetune
from pipeline.finetune_boxes import BoxTask, create_box_network
from pipeline.finetune_clips import ClipTask, create_clip_network
from pipeline.runs import start_run_folder

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
    if network == "objects":
        return _finetune_objects(config, run_folder, resume=resume, on_epoch=on_epoch)
    settings = getattr(config.finetune, network)
    if settings is None:
        raise ConfigError(f"finetune.{network}: this section is absent; say how to train it")
    stage = getattr(config.stages, network)
    dataset, videos = load_dataset(config.data), videos_config(config.data)
    names = dataset.verb_names if network == "verb" else dataset.noun_names
    module, pixels = create_clip_network(stage, settings, len(names), network)
    task = ClipTask(dataset, videos, stage, settings, network, pixels)
    start_run_folder(run_folder, config, resume=resume)
    return finetune(
        run_folder,
        module,
        task,
        settings,
        device=config.device,
        metadata={"network": stage.network.model_dump(mode="json"), "trained_on": network},
        resume=resume,
        on_epoch=on_epoch,
    )


def _finetune_objects(
    config: ExperimentConfig,
    run_folder: Path,
    *,
    resume: bool,
    on_epoch: Callable[[FinetuneEpoch], None],
) -> Path:
    settings, stage = config.finetune.objects, config.stages.objects
    if settings is None or stage.boxes is None:
        raise ConfigError(
            "finetune.objects: needs this section, and stages.objects with given_boxes and boxes"
        )
    dataset, videos = load_dataset(config.data), videos_config(config.data)
    module = create_box_network(stage, settings, len(dataset.noun_names))
    task = BoxTask(dataset, videos, BoxFile(stage.boxes), settings)
    start_run_folder(run_folder, config, resume=resume)
    return finetune(
        run_folder,
        module,
        task,
        settings,
        device=config.device,
        metadata={"network": stage.detector.model_dump(mode="json"), "trained_on": "boxes"},
        resume=resume,
        on_epoch=on_epoch,
    )
