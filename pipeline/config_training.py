"""Sections of the trainings: stage one, heads, evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config_base import (
    NAME_PATTERN,
    Count,
    Natural,
    NetworkConfig,
    NonNegative,
    Positive,
    Section,
    Switch,
    WeightedConfig,
)
from pipeline.presets import HEAD_PRESETS, STAGE_ONE_PRESETS, PresetName, fill_preset

__all__ = [
    "BoxFinetuneConfig",
    "ClipFinetuneConfig",
    "EvaluateConfig",
    "HeadConfig",
    "StageOneConfig",
    "StageOneSection",
    "TrainConfig",
]


class HeadConfig(NetworkConfig):
    """Which head, and its options."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "saoa"


class StageOneSection(WeightedConfig):
    """What all stage-one trainings share. ``weights``: what training starts from.

    ``decay_epochs``: after each of these epochs, counted from 1, the rate is multiplied by
    ``decay_factor``.
    """

    epochs: Count = 35
    batch_size: Count = 32
    learning_rate: Positive = 0.003
    decay_epochs: tuple[Count, ...] = (30,)
    decay_factor: Positive = 0.1
    momentum: NonNegative = 0.9
    weight_decay: NonNegative = 1e-4
    cache_mib: Natural = 4096
    seed: Natural = 0


class ClipFinetuneConfig(StageOneSection):
    """VerbNet or NounNet; the defaults are the papers' for ResNet50-3D and I3D.

    ``cached_views``: 0 decodes a clip with a new centre for each segment and epoch; n decodes n
    centres per segment once and keeps them in memory (``cache_mib``), for small data sets.
    ``preset`` fills in what the section does not say. ``workers``: processes that decode.
    """

    preset: PresetName | None = None
    crop_px: Count = 224
    scale_range_px: tuple[Count, Count] = (224, 288)
    test_resize_px: Count = 256
    cached_views: Natural = 0
    workers: Natural = 2

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        return fill_preset(STAGE_ONE_PRESETS, given)

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipFinetuneConfig:
        low, high = self.scale_range_px
        if not self.crop_px <= low <= high or self.crop_px > self.test_resize_px:
            raise ValueError(
                f"got crop_px {self.crop_px}, scale_range_px [{low}, {high}], test_resize_px "
                f"{self.test_resize_px}; expected crop_px <= low <= high and <= test_resize_px"
            )
        return self


class BoxFinetuneConfig(StageOneSection):
    """The 2-D network behind given boxes, on the boxes' own classes."""

    epochs: Count = 12
    batch_size: Count = 16
    learning_rate: Positive = 0.01
    decay_epochs: tuple[Count, ...] = ()
    frames_per_video: Count = 20


class StageOneConfig(Section):
    """``symbio finetune``, one section per network; absent ones are not trained."""

    verb: ClipFinetuneConfig | None = None
    noun: ClipFinetuneConfig | None = None
    objects: BoxFinetuneConfig | None = None


class TrainConfig(Section):
    """Head training; the defaults are the papers' for R-50.

    ``preset`` fills in what the section does not say. ``features``: ``aligned`` reads that stage's
    rows; ``maps`` makes the same of whole maps. ``heads.settings`` says what the settings of the
    optimizer mean, and which go together.
    """

    preset: PresetName | None = None
    features: Literal["aligned", "maps"] = "aligned"
    epochs: Count = 15
    batch_size: Count = 32
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 1e-4
    warmup_epochs: Natural = 0
    schedule: Literal["step", "cosine"] = "step"
    decay_epochs: tuple[Count, ...] = ()
    decay_factor: Positive = 0.1
    momentum: NonNegative = 0.9
    nesterov: Switch = False
    betas: tuple[NonNegative, NonNegative] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 1e-4
    gradient_clip_norm: Positive | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Switch = False
    keep_every: Natural = 0
    resident_mib: Natural = 8192
    seed: Natural = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        return fill_preset(HEAD_PRESETS, given)


class EvaluateConfig(Section):
    """``action_prior``: mu of eq 3.14, or P(noun | verb), or none.

    ``split``: any that the data set has.
    """

    action_prior: Literal["frequency", "conditional", "none"] = "frequency"
    split: Annotated[str, Field(pattern=NAME_PATTERN)] = "val"
