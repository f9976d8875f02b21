"""One vector per clip without any attention: pooled maps, pooled detections, and two of them side
by side. Each part has `channels` and makes (B, channels) of a batch.

Option, as in `alignment`:
- `l2_rescale`: bring the second of two concatenated vectors to the length of the first.

Guesses where the papers are silent:
- detections are pooled as they are, with no layer before, and rescaled after pooling;
- padded objects take no part. A clip with no object at all has zeros for its pooled detections.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heads.alignment import rescale
from heads.base import Batch, HeadDims


class ClipFeature(nn.Module):
    """A part that makes one vector per clip: `forward(batch)` is (B, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


class Gap(ClipFeature):
    """A stream's global average pooling.

    Args:
        stream: `verb` or `noun`.
        dims: sizes.
    """

    def __init__(self, stream: str, dims: HeadDims) -> None:
        super().__init__(dims.channels(stream))
        self.stream = stream

    def forward(self, batch: Batch) -> Tensor:
        """`<stream>_gap` (B, C)."""
        return batch[f"{self.stream}_gap"]


class MeanDetection(ClipFeature):
    """Mean of a clip's detection features.

    Args:
        dims: sizes.
    """

    def __init__(self, dims: HeadDims) -> None:
        super().__init__(dims.object_channels)

    def forward(self, batch: Batch) -> Tensor:
        """(B, C1) of `object_features` (B, N, C1)."""
        objects = batch["object_features"]
        return (mean_weights(batch["object_mask"], objects).unsqueeze(1) @ objects).squeeze(1)


class MaxDetection(ClipFeature):
    """Per channel the largest of a clip's detection features.

    Args:
        dims: sizes.
    """

    def __init__(self, dims: HeadDims) -> None:
        super().__init__(dims.object_channels)

    def forward(self, batch: Batch) -> Tensor:
        """(B, C1) of `object_features` (B, N, C1)."""
        objects, mask = batch["object_features"], batch["object_mask"]
        lowest = torch.finfo(objects.dtype).min
        largest = objects.masked_fill(~mask.unsqueeze(2), lowest).amax(dim=1)
        return largest * mask.any(dim=1, keepdim=True)


class Concatenated(ClipFeature):
    """Two vectors side by side.

    Args:
        first: gives the length that `second` is brought to by `l2_rescale`.
        second: any other part.
        l2_rescale: see above.
    """

    def __init__(self, first: ClipFeature, second: ClipFeature, *, l2_rescale: bool) -> None:
        super().__init__(first.channels + second.channels)
        self.first = first
        self.second = second
        self.l2_rescale = l2_rescale

    def forward(self, batch: Batch) -> Tensor:
        """(B, channels of both)."""
        first, second = self.first(batch), self.second(batch)
        return torch.cat([first, rescale(second, first) if self.l2_rescale else second], dim=1)


def mean_weights(mask: Tensor, like: Tensor) -> Tensor:
    """Weights (B, N) of the mean over real objects, zeros where a clip has none.

    Args:
        mask: (B, N) bool, True = a real object.
        like: gives the dtype.
    """
    real = mask.to(like.dtype)
    return real / real.sum(dim=1, keepdim=True).clamp(min=1)
