"""What a run's workers and its queue of units need to know, from an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.decode_limits import DecodeLimits
from pipeline.experiment import Experiment
from pipeline.patience import Patience
from pipeline.stages import ObjectsStage, VideoStage
from pipeline.unit_queue import StageShards
from pipeline.workbench import Setup
from stores.base import FeatureStore

__all__ = ["make_setup", "stage_shards"]


def make_setup(experiment: Experiment, generations: Mapping[str, FeatureStore]) -> Setup:
    """What workers need to make rows of these generations, by stage."""
    config = experiment.config
    stages = {name: experiment.video_stages[name] for name in generations}
    engine = config.engine
    return Setup(
        stages={name: _portable(stage) for name, stage in stages.items()},
        writers={name: generation.shard_writer() for name, generation in generations.items()},
        rows_per_shard={name: found.rows_per_shard for name, found in generations.items()},
        weights={path: digest for stage in stages.values() for path, digest in _weights(stage)},
        device=config.device,
        cores=None,
        cpu_threads=engine.cpu_threads,
        decode_processes=engine.decode_processes,
        decode_limits=DecodeLimits(
            engine.stall_seconds, engine.video_seconds, engine.decode_memory_mib
        ),
        commit_seconds=engine.commit_seconds,
        storage_seconds=engine.storage_seconds,
    )


def stage_shards(generation: FeatureStore, patience: Patience) -> StageShards:
    """How rows of a generation become shards; storage that is gone is waited for."""
    return StageShards(
        row_nbytes=sum(spec.row_nbytes for spec in generation.specs.values()),
        rows_per_shard=generation.rows_per_shard,
        reserve=lambda count: patience(partial(generation.reserve_shards, count)),
    )


def _portable(stage: VideoStage) -> VideoStage:
    """A stage without its table of boxes: rows carry their own."""
    return replace(stage, boxes=None) if isinstance(stage, ObjectsStage) else stage


def _weights(stage: VideoStage) -> list[tuple[Path, str]]:
    """Checkpoints that a stage reads, each with the digest that is in its key."""
    found = [(stage.config.checkpoint, stage.weights)]
    if not isinstance(stage, ObjectsStage) and stage.config.flow is not None:
        found.append((stage.config.flow.checkpoint, stage.flow_weights or {}))
    return [(path, str(key["sha256"])) for path, key in found if path is not None]
