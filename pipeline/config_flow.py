"""Sections of optical flow: where official flow lies, and how flow is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config_base import NAME_PATTERN, Count, Natural, Positive, Precision

__all__ = ["FlowConfig"]


class FlowConfig(BaseModel):
    """``method`` and what goes with it; every key that is not named here is an option of it.

    ``folders`` reads the official flow of ``data.flow``; the other methods compute flow from the
    videos, of frames whose shorter side is ``short_side_px``, between frames ``span`` clip strides
    apart, clipped to ±``bound_px``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    method: Annotated[str, Field(pattern=NAME_PATTERN)]
    weights: Literal["random"] | Path | None = None
    weights_seed: Natural | None = None
    bound_px: Positive = 20.0
    span: Count = 1
    short_side_px: Count = 256
    precision: Precision = "float32"
    batch_size: Count = 8

    @property
    def computed(self) -> bool:
        """Whether flow is computed from the videos."""
        return self.method != "folders"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the method."""
        return dict(self.model_extra or {})

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file, or None for random weights and for methods without."""
        return None if self.weights in (None, "random") else Path(self.weights)

    @model_validator(mode="after")
    def _seed_goes_with_random(self) -> FlowConfig:
        if (self.weights == "random") != (self.weights_seed is not None):
            raise ValueError("weights_seed goes with weights: random and with nothing else")
        return self

    @model_validator(mode="after")
    def _folders_have_no_settings(self) -> FlowConfig:
        others = sorted((self.model_fields_set | set(self.options)) - {"method"})
        if not self.computed and others:
            raise ValueError(
                f"got {', '.join(others)} with method: folders, whose flow is made already; "
                "expected no other key, and data.flow to say where it lies"
            )
        return self
