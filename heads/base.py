"""What every head is: features of one clip in, verb and noun logits out.

A head never sees a video. It reads rows of the `aligned` stage (or of another stored stage), so it
trains in minutes on features that were extracted once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from stores.base import ArraySpec

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class HeadDims:
    """Sizes of a head's inputs; what a head does not read is 0.

    The local objects are the middle of all objects: the detections of a shorter window round the
    same clip centre, so a contiguous slice of them.
    """

    verb_channels: int
    noun_channels: int
    object_channels: int = 0
    num_objects: int = 0
    num_local_objects: int = 0

    def __post_init__(self) -> None:
        if self.num_local_objects > self.num_objects:
            raise ValueError(
                f"got {self.num_local_objects} local objects, expected at most the "
                f"{self.num_objects} objects of the whole window"
            )

    @property
    def local_start(self) -> int:
        """Index of the first local object."""
        return (self.num_objects - self.num_local_objects) // 2

    @property
    def local_slice(self) -> slice:
        """The local objects among all of them."""
        return slice(self.local_start, self.local_start + self.num_local_objects)

    @classmethod
    def from_specs(cls, specs: Mapping[str, ArraySpec], inputs: tuple[str, ...]) -> HeadDims:
        """Read the sizes off a store's array specs.

        Args:
            specs: per-row specs: `verb_gap` (Cv,), `noun_gap` (Cn,), `verb_roi` (N_local, Cv),
                `object_features` (N, C1), `object_mask` (N,).
            inputs: the names the head reads; other specs are ignored.

        Raises:
            ValueError: if an input is missing, or two shapes contradict each other.
        """
        if missing := [name for name in inputs if name not in specs]:
            raise ValueError(f"got a store with {sorted(specs)}, expected it to hold {missing} too")
        shapes = {name: tuple(specs[name].shape) for name in inputs}
        num_objects, object_channels = shapes.get("object_features", (0, 0))
        dims = cls(
            verb_channels=shapes["verb_gap"][0],
            noun_channels=shapes["noun_gap"][0],
            object_channels=object_channels,
            num_objects=num_objects,
            num_local_objects=shapes.get("verb_roi", (0, 0))[0],
        )
        expected = {
            "verb_roi": (dims.num_local_objects, dims.verb_channels),
            "object_mask": (dims.num_objects,),
        }
        for name, shape in expected.items():
            if name in shapes and shapes[name] != shape:
                raise ValueError(f"got '{name}' of shape {shapes[name]}, expected {shape}")
        return dims


@dataclass(frozen=True)
class HeadConfig:
    """Everything needed to build a head again: what a checkpoint keeps beside the weights."""

    name: str
    dims: HeadDims
    num_verbs: int
    num_nouns: int
    options: Mapping[str, Any]


class Head(nn.Module):
    """Base of all heads.

    A subclass takes `(dims, *, num_verbs, num_nouns, **its own options with defaults)`. Build heads
    with `create_head`, which fills in `config` and makes the initial weights a function of a seed.
    """

    name: ClassVar[str]
    """The name it is registered under."""

    inputs: ClassVar[tuple[str, ...]]
    """Stored outputs that `forward` reads."""

    config: HeadConfig

    def forward(self, batch: Batch) -> Batch:
        """Classify a batch.

        Args:
            batch: the tensors named in `inputs`, float32 (B, ...) as stored; `object_mask` bool.

        Returns:
            `verb` (B, num_verbs) and `noun` (B, num_nouns) logits.
        """
        raise NotImplementedError

    def loss(self, logits: Batch, labels: Batch) -> Tensor:
        """CE(verb) + CE(noun), each averaged over the batch (eq 3.12, 3.13).

        Args:
            logits: as returned by `forward`.
            labels: `verb` (B,) and `noun` (B,) int64 class ids.
        """
        verb = F.cross_entropy(logits["verb"], labels["verb"])
        return verb + F.cross_entropy(logits["noun"], labels["noun"])
