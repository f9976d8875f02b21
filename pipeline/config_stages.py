"""Sections of the stages: what is extracted, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.config_base import (
    PLAIN_VALUE,
    Count,
    FloatType,
    NetworkConfig,
    Positive,
    Precision,
    Section,
    Switch,
    WeightedConfig,
)
from pipeline.config_flow import FlowConfig

__all__ = [
    "AlignedConfig",
    "BoxStoreConfig",
    "ClipConfig",
    "ClipStageConfig",
    "ObjectsConfig",
    "StagesConfig",
]


DEFAULT_SIZE_PX = 256  # the papers' second stage


class ClipConfig(Section):
    """``frames`` frames, ``stride`` apart, counted at ``rate_fps`` whatever the file's rate."""

    frames: Count = 64
    stride: Count = 2
    rate_fps: Positive = 60.0


class ClipStageConfig(WeightedConfig):
    """VerbNet or NounNet: a 3-D CNN over clips.

    ``geometry``: ``square`` resizes whole frames to ``size_px`` squared; ``published`` resizes and
    crops as the publisher of the network's weights tests, at the size that gives.
    """

    network: NetworkConfig
    flow: FlowConfig | None = None
    clip: ClipConfig = ClipConfig()
    geometry: Literal["square", "published"] = "square"
    size_px: Count | None = None
    outputs: tuple[Literal["map", "pooled", "logits"], ...] = ("map",)
    dtype: FloatType = "float16"
    precision: Precision = "float32"
    compile: Switch = False
    batch_size: Count = 8

    @property
    def square_px(self) -> int:
        """Side of the square that frames are resized to."""
        return self.size_px or DEFAULT_SIZE_PX

    @model_validator(mode="after")
    def _published_has_its_own_size(self) -> ClipStageConfig:
        if self.geometry == "published" and self.size_px is not None:
            raise ValueError("size_px goes with geometry: square; published sets its own size")
        return self

    @model_validator(mode="after")
    def _outputs_hold_the_map(self) -> ClipStageConfig:
        if "map" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(
                "outputs must hold map, which the stage aligned reads, and each name once"
            )
        return self


class BoxStoreConfig(Section):
    """Boxes that a stage of a store holds; ``key``: its first digits, where it has several."""

    store: Path
    stage: str = "objects"
    key: Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")] | None = None


def _kind_of_boxes(value: Any) -> str:
    is_section = isinstance(value, dict | BoxStoreConfig)
    return BoxStoreConfig.__name__ if is_section else PLAIN_VALUE


Boxes = Annotated[
    Annotated[Path, Tag(PLAIN_VALUE)] | Annotated[BoxStoreConfig, Tag(BoxStoreConfig.__name__)],
    Discriminator(_kind_of_boxes),
]


class ObjectsConfig(WeightedConfig):
    """Objects per frame: what a detector finds, or its features at ``boxes`` from elsewhere."""

    detector: NetworkConfig
    boxes: Boxes | None = None
    top_k: Count = 5
    rate_fps: Positive = 2.0
    times: Literal["grid", "centred"] = "grid"
    dtype: FloatType = "float16"
    precision: Precision = "float32"
    compile: Switch = False
    batch_size: Count = 8

    @model_validator(mode="after")
    def _boxes_when_given(self) -> ObjectsConfig:
        if self.detector.name == "given_boxes" and self.boxes is None:
            raise ValueError(
                "detector given_boxes finds no boxes of its own; give boxes: a CSV file, or a store"
            )
        return self


class AlignedConfig(Section):
    """The rows heads train from: windows of objects round a clip's centre, and their RoIAlign.

    ``noun_roi``: of the noun map as well, for heads with local alignment on both branches.
    """

    global_window_seconds: Positive = 6.0
    local_window_seconds: Positive = 4.0
    map_time: Literal["mean", "max", "nearest"] = "mean"
    output_size: Count = 7
    noun_roi: Switch = False
    dtype: FloatType = "float16"


class StagesConfig(Section):
    """One section per stage."""

    verb: ClipStageConfig
    noun: ClipStageConfig
    objects: ObjectsConfig
    aligned: AlignedConfig = AlignedConfig()

    @model_validator(mode="after")
    def _windows_hold_whole_frames(self) -> StagesConfig:
        rate = self.objects.rate_fps
        wide, narrow = self.aligned.global_window_seconds, self.aligned.local_window_seconds
        for name, frames, least in (
            ("aligned.global_window_seconds", wide * rate, 1),
            ("aligned.local_window_seconds", narrow * rate, 1),
            ("half the difference of the two windows", (wide - narrow) / 2 * rate, 0),
        ):
            if abs(frames - round(frames)) > 1e-6 or round(frames) < least:
                raise ValueError(
                    f"{name} holds {frames:g} frames at objects.rate_fps {rate:g}; expected a "
                    f"whole number of at least {least}, and the local window no longer than the "
                    "global one"
                )
        return self
