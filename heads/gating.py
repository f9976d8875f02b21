"""Cross-stream gating (SAOA, section 3.2.4): one stream's GAP turns channels of the other stream's
objects up and down.

The gate is one number per clip and channel, the same for every object, so the gated objects
`g * h_i` are never made: a product with one of them is `(g * direction) . h_i`, and a weighted sum
of them is `g` times the sum of the h_i.

The paper prints eq 3.8 with `f_v` where the symmetric eq 3.5 has the aligned features; the aligned
features are meant, and used.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from heads.base import Batch, HeadDims


class GatedObjects(NamedTuple):
    """Objects of a batch as a relation sees them.

    Attributes:
        features: h (B, N, C), before the gate.
        mask: (B, N) bool, True = a real object.
        gate: g (B, C), positive; or None for no gating.
    """

    features: Tensor
    mask: Tensor
    gate: Tensor | None = None

    def dot(self, direction: Tensor) -> Tensor:
        """Products (B, N) of every gated object with a direction (B, C)."""
        if self.gate is not None:
            direction = direction * self.gate
        return (self.features @ direction.unsqueeze(2)).squeeze(2)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Sum (B, C) of the gated objects with weights (B, N)."""
        total = (weights.unsqueeze(1) @ self.features).squeeze(1)
        return total if self.gate is None else total * self.gate


class CrossStreamGate(nn.Module):
    """`g = sigmoid(W_g f_g + b_g)`, eq 3.4 and 3.7.

    Args:
        by: the gating stream, `verb` or `noun`.
        dims: sizes.
        channels: C of the gated objects.
    """

    def __init__(self, by: str, dims: HeadDims, channels: int) -> None:
        super().__init__()
        self.by = by
        self.linear = nn.Linear(dims.channels(by), channels)

    def forward(self, batch: Batch) -> Tensor:
        """The gate (B, C), from `<by>_gap`."""
        return torch.sigmoid(self.linear(batch[f"{self.by}_gap"]))
