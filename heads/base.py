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

    def channels(self, stream: str) -> int:
        """Channels of the `verb` or the `noun` stream."""
        return {"verb": self.verb_channels, "noun": self.noun_channels}[stream]

    @classmethod
    def from_specs(cls, specs: Mapping[str, ArraySpec], inputs: tuple[str, ...]) -> HeadDims:
        """Read the sizes off a store's array specs.

        Args:
            specs: per-row specs: `verb_gap` (Cv,), `noun_gap` (Cn,), `verb_roi` (N_local, Cv),
                `noun_roi` (N_local, Cn), `verb_map` (T, H, W, Cv), `noun_map` (T, H, W, Cn),
                `object_features` (N, C1), `object_mask` (N,).
            inputs: the names the head reads; other specs are ignored.

        Raises:
            ValueError: if an input is missing, or two shapes contradict each other.
        """
        if missing := [name for name in inputs if name not in specs]:
            raise ValueError(f"got a store with {sorted(specs)}, expected it to hold {missing} too")
        shapes = {name: tuple(specs[name].shape) for name in inputs}
        masks = shapes.get("object_mask", (0,))
        num_objects, object_channels = shapes.get("object_features", (*masks, 0))
        rois = [shapes[name] for name in ("verb_roi", "noun_roi") if name in shapes]
        dims = cls(
            verb_channels=_channels(shapes, "verb"),
            noun_channels=_channels(shapes, "noun"),
            object_channels=object_channels,
            num_objects=num_objects,
            num_local_objects=rois[0][0] if rois else 0,
        )
        expected = {
            "verb_gap": (dims.verb_channels,),
            "noun_gap": (dims.noun_channels,),
            "verb_roi": (dims.num_local_objects, dims.verb_channels),
            "noun_roi": (dims.num_local_objects, dims.noun_channels),
            "object_mask": (dims.num_objects,),
        }
        for name, shape in expected.items():
            if name in shapes and shapes[name] != shape:
                raise ValueError(f"got '{name}' of shape {shapes[name]}, expected {shape}")
        return dims


def _channels(shapes: Mapping[str, tuple[int, ...]], stream: str) -> int:
    """The last number of any of a stream's outputs, 0 if the head reads none."""
    names = (f"{stream}_{output}" for output in ("gap", "roi", "map"))
    return next((shapes[name][-1] for name in names if name in shapes), 0)


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

    attends: ClassVar[bool] = False
    """Whether it weighs objects, and `attention` has something to say."""

    config: HeadConfig

    def forward(self, batch: Batch) -> Batch:
        """Classify a batch.

        Args:
            batch: the tensors named in `inputs`, float32 (B, ...) as stored; `object_mask` bool.

        Returns:
            `verb` (B, num_verbs) and `noun` (B, num_nouns) logits.
        """
        raise NotImplementedError

    def attention(self, batch: Batch) -> Batch:
        """Weights of the objects, for heads with `attends`.

        Args:
            batch: as for `forward`.

        Returns:
            For each branch that attends, `verb` or `noun`, weights (B, n) of the n objects that
            `object_slices` names; 0 for padded ones, adding up to 1 where a clip has a real one.

        Raises:
            ValueError: this head does not attend.
        """
        raise ValueError(f"got head '{self.name}', expected one that attends to objects")

    @classmethod
    def object_slices(cls, dims: HeadDims) -> dict[str, slice]:
        """Which of the N objects each branch's attention weights belong to.

        A branch that reads RoIs of its stream sees the local objects, others see all of them.
        """
        everywhere = slice(0, dims.num_objects)
        return {
            stream: dims.local_slice if f"{stream}_roi" in cls.inputs else everywhere
            for stream in ("verb", "noun")
        }

    def loss(self, logits: Batch, labels: Batch) -> Tensor:
        """CE(verb) + CE(noun), each averaged over the batch (eq 3.12, 3.13).

        Args:
            logits: as returned by `forward`.
            labels: `verb` (B,) and `noun` (B,) int64 class ids.
        """
        verb = F.cross_entropy(logits["verb"], labels["verb"])
        return verb + F.cross_entropy(logits["noun"], labels["noun"])
