"""What the config sections share: strict types, named networks, weights; no unknown keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

__all__ = [
    "NAME_PATTERN",
    "PLAIN_VALUE",
    "Count",
    "FloatType",
    "Natural",
    "NetworkConfig",
    "NonNegative",
    "Positive",
    "Precision",
    "Section",
    "Switch",
    "WeightedConfig",
]

Count = Annotated[int, Strict(), Field(ge=1)]
Natural = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
NAME_PATTERN = r"^[a-z][a-z0-9_:.]*$"
# What the checker calls the alternative to a section in the places of its errors.
PLAIN_VALUE = "(plain value)"
FloatType = Literal["float16", "bfloat16", "float32"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Switch = Annotated[bool, Strict()]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightedConfig(Section):
    """``weights`` is a checkpoint file, or the word ``random`` with ``weights_seed``."""

    weights: Literal["random"] | Path
    weights_seed: Natural | None = None

    @model_validator(mode="after")
    def _seed_goes_with_random(self) -> Self:
        if (self.weights == "random") != (self.weights_seed is not None):
            raise ValueError(
                "weights_seed goes with weights: random and with nothing else; "
                "a checkpoint needs no seed, and nothing is random without one"
            )
        return self

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file, or None for random weights."""
        return None if self.weights == "random" else Path(self.weights)


class NetworkConfig(BaseModel):
    """``name`` of a registered extractor; every other key is an option of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Annotated[str, Field(pattern=NAME_PATTERN)]

    @property
    def options(self) -> dict[str, Any]:
        """The settings apart from the name."""
        return dict(self.model_extra or {})
