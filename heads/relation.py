"""From objects to one vector per clip: the action-attended relation module (SAOA, section 3.2.4),
and the plain mean that it is compared with.

Option where the paper is silent:
- `scale_scores`: divide scores by the root of the common space's size, as attention is often made.
  The paper prints no such factor, and none is the default.

Guesses where the paper is silent:
- it writes C for both streams; where they differ, the common space has a quarter of the attended
  objects' channels;
- initial weights: PyTorch's default for two linear layers without bias, each from its own feature
  to the common space;
- padded objects take no part in the softmax or the mean. A clip with no object at all gets zeros,
  weights and result alike, and a linear classifier on top answers with its bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heads.base import Batch, HeadDims
from heads.gating import GatedObjects
from heads.pooling import mean_weights


class ActionAttendedRelation(nn.Module):
    """`a = softmax_i(f_g A B h_i)`, out = `sum_i a_i h_i`, eq 3.9 to 3.11.

    A is (channels of the query, C/4), B is (C/4, C), neither has a bias.

    Args:
        by: the asking stream, `verb` or `noun`.
        dims: sizes.
        channels: C of the attended objects; at least 4.
        scale_scores: see above.

    Raises:
        ValueError: if `channels` is below 4.
    """

    def __init__(
        self, by: str, dims: HeadDims, channels: int, *, scale_scores: bool = False
    ) -> None:
        super().__init__()
        if channels < 4:
            raise ValueError(f"got {channels} channels, expected at least 4: the space has C/4")
        self.by = by
        self.factor = 1 / math.sqrt(channels // 4) if scale_scores else 1.0
        # Their weights are A transposed, and B.
        self.query = nn.Linear(dims.channels(by), channels // 4, bias=False)
        self.key = nn.Linear(channels, channels // 4, bias=False)

    def forward(self, objects: GatedObjects, batch: Batch) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            objects: N objects of C channels.
            batch: has `<by>_gap`.

        Returns:
            The attended feature (B, C) and the attention weights (B, N): 0 for padded objects,
            adding up to 1 where there is a real one.
        """
        # Through the query first: one (C/4, C) product per clip instead of one per object.
        direction = self.query(batch[f"{self.by}_gap"]) @ self.key.weight  # (B, C)
        scores = objects.dot(direction) * self.factor
        # Not -inf: a row of nothing but -inf has no softmax, and its gradient would be NaN.
        scores = scores.masked_fill(~objects.mask, torch.finfo(scores.dtype).min)
        attention = torch.softmax(scores, dim=1) * objects.mask
        return objects.weighted_sum(attention), attention


class MeanRelation(nn.Module):
    """No attention: every real object counts the same."""

    def forward(self, objects: GatedObjects, batch: Batch) -> tuple[Tensor, None]:
        """The mean (B, C) of the real gated objects, and no weights."""
        return objects.weighted_sum(mean_weights(objects.mask, objects.features)), None
