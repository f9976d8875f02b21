"""Where stages meet the store and their networks: generations, and what their rows are from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from extractors.base import ClipExtractor, FrameExtractor, OutputSpec
from pipeline.config_file import dump_config
from pipeline.errors import ConfigError, WeightsError
from pipeline.experiment import Experiment
from pipeline.known import Known
from pipeline.stages import Stage, VideoStage
from stores.base import ArraySpec, FeatureStore, MissingGenerationError, Store

__all__ = [
    "create_generation",
    "create_network",
    "open_generation",
    "planned_specs",
    "provenance_of",
    "row_specs",
]


def create_network(stage: VideoStage, device: str) -> ClipExtractor | FrameExtractor:
    """Build a stage's network.

    Raises:
        WeightsError: its weights cannot be read; names the stage's section.
        ConfigError: they do not fit.
    """
    from extractors.checkpoint_files import CheckpointError  # with torch, as what it creates

    try:
        return stage.create(device)
    except (CheckpointError, OSError) as error:
        raise WeightsError(f"stages.{stage.name}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"stages.{stage.name}: {error}") from error


def row_specs(outputs: Mapping[str, OutputSpec]) -> dict[str, ArraySpec]:
    """An extractor's outputs as what a store keeps."""
    return {name: ArraySpec(**vars(spec)) for name, spec in outputs.items()}


def planned_specs(known: Known, stage: VideoStage) -> dict[str, ArraySpec]:
    """Outputs of a stage without rows.

    Its network is built for that, on no device at all (the one that will run it may be elsewhere),
    once for its settings: weights that do not fit are found out here.

    Raises:
        ConfigError, WeightsError: weights that do not fit, or cannot be read.
    """

    def build() -> dict[str, Any]:
        specs = row_specs(create_network(stage, "meta").outputs)
        return {name: spec.to_json() for name, spec in specs.items()}

    gone = [path for path in stage.checkpoints if not path.exists()]
    found = build() if gone else known.recall("row specs", stage.about, build)
    return {name: ArraySpec.from_json(spec) for name, spec in found.items()}


def open_generation(store: Store | None, stage: Stage) -> FeatureStore | None:
    """The generation that holds a stage's rows, or None if there is none yet."""
    if store is None:
        return None
    try:
        return store.generation(stage.name, stage.key)
    except MissingGenerationError:
        return None


def create_generation(
    experiment: Experiment,
    store: Store,
    stage: Stage,
    specs: Mapping[str, ArraySpec],
) -> FeatureStore:
    """The generation for a stage's rows; made if there is none under its key."""
    provenance = provenance_of(experiment, stage)
    shard_mib, compression = experiment.config.store.of_stage(stage.name)
    return store.generation(stage.name, stage.key, specs, provenance, shard_mib, compression)


def provenance_of(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """Where rows come from, in plain words: first what is in the key, then what is not."""
    return {
        "settings": stage.settings,
        "not_in_key": {
            "experiment": experiment.config.name,
            "device": experiment.config.device,
            "versions": {name: version(name) for name in ("symbio", "torch", "torchvision")},
            "config": dump_config(experiment.config),
        },
    }
