"""Object-centric feature alignment (SAOA, section 3.2.3): one vector per object from the object's
detection feature and the backbone's feature.

Both alignments are one affine map of the concatenation `[f; f_o]`, then ReLU. Global (eq 3.1): `f`
is the clip's GAP, the same for every object. Local (eq 3.2): `f` is the backbone feature under the
object's own box. The global map is never applied to the concatenation: `W [f; f_o] = W_f f +
W_o f_o`, and the first term is computed once per clip instead of once per object. (The local map
is: one product of the concatenation is faster than the sum of two.)

Option, where the papers do one thing for one backbone and another for the other:
- `l2_rescale`: bring detection features to the length of the backbone feature they meet. Off for
  R-50, on for I3D.

Guesses where the paper is silent:
- initial weights: PyTorch's default for a linear layer of `C + C1` inputs, that is, of the
  concatenation;
- l2 rescaling multiplies the concatenation, before the affine map, so the bias is not rescaled.
  The norm is that of the feature that is concatenated: the clip's GAP in the global alignment, the
  object's own region in the local one;
- the local alignment knows the objects of its own, shorter window only (40 of 60), since only those
  have a region.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.base import Batch, HeadDims


class ObjectAlignment(nn.Module):
    """`h_i = ReLU(W f_i + W_o f_o_i + b)`; see `GlobalAlignment` and `LocalAlignment`.

    Args:
        stream: `verb` or `noun`, whose feature is aligned.
        dims: sizes; the result has the stream's channels C.
        l2_rescale: see above.

    Attributes:
        window: which of the N objects are aligned.
    """

    window: slice

    def __init__(self, stream: str, dims: HeadDims, *, l2_rescale: bool = False) -> None:
        super().__init__()
        self.stream = stream
        self.channels = dims.channels(stream)
        self.object_channels = dims.object_channels
        self.l2_rescale = l2_rescale
        self.linear = nn.Linear(self.channels + self.object_channels, self.channels)

    def _objects(self, batch: Batch, features: Tensor) -> Tensor:
        objects = batch["object_features"][:, self.window]
        return rescale(objects, features) if self.l2_rescale else objects


class GlobalAlignment(ObjectAlignment):
    """All objects with the clip's GAP, eq 3.1."""

    def __init__(self, stream: str, dims: HeadDims, *, l2_rescale: bool = False) -> None:
        super().__init__(stream, dims, l2_rescale=l2_rescale)
        self.window = slice(0, dims.num_objects)

    def forward(self, batch: Batch) -> Tensor:
        """Align.

        Args:
            batch: `<stream>_gap` (B, C), `object_features` (B, N, C1).

        Returns:
            (B, N, C), never negative.
        """
        gap = batch[f"{self.stream}_gap"].unsqueeze(1)
        own, other = self.linear.weight.split([self.channels, self.object_channels], dim=1)
        per_clip = F.linear(gap, own, self.linear.bias)
        return F.linear(self._objects(batch, gap), other).add_(per_clip).relu_()


class LocalAlignment(ObjectAlignment):
    """The local objects, each with the region under its own box, eq 3.2."""

    def __init__(self, stream: str, dims: HeadDims, *, l2_rescale: bool = False) -> None:
        super().__init__(stream, dims, l2_rescale=l2_rescale)
        self.window = dims.local_slice

    def forward(self, batch: Batch) -> Tensor:
        """Align.

        Args:
            batch: `<stream>_roi` (B, N_local, C), `object_features` (B, N, C1).

        Returns:
            (B, N_local, C), never negative.
        """
        regions = batch[f"{self.stream}_roi"]
        both = torch.cat([regions, self._objects(batch, regions)], dim=2)
        return F.relu(self.linear(both))  # in place, autograd would copy it thrice


class ProjectedDetections(nn.Module):
    """Alignment with the backbone's feature left out: `h_i = ReLU(W_o f_o_i + b)`.

    Args:
        stream: whose channels C the result has.
        dims: sizes.
    """

    def __init__(self, stream: str, dims: HeadDims) -> None:
        super().__init__()
        self.channels = dims.channels(stream)
        self.window = slice(0, dims.num_objects)
        self.linear = nn.Linear(dims.object_channels, self.channels)

    def forward(self, batch: Batch) -> Tensor:
        """(B, N, C) of `object_features` (B, N, C1), never negative."""
        return F.relu(self.linear(batch["object_features"]))


class RawDetections(nn.Module):
    """The detection features as they are: `h_i = f_o_i`.

    Args:
        dims: sizes.
    """

    def __init__(self, dims: HeadDims) -> None:
        super().__init__()
        self.channels = dims.object_channels
        self.window = slice(0, dims.num_objects)

    def forward(self, batch: Batch) -> Tensor:
        """`object_features` (B, N, C1)."""
        return batch["object_features"]


def rescale(features: Tensor, like: Tensor) -> Tensor:
    """Give each feature the l2 norm of the backbone feature it is concatenated with.

    This is the paper's rescaling (section 3.3.2): `|f| [f/|f|; f_o/|f_o|] = [f; |f| f_o/|f_o|]`.

    Args:
        features: (..., C1); rows of zeros stay zeros.
        like: (..., C), with as many rows, or one for all rows of a clip.

    Returns:
        (..., C1).
    """
    return F.normalize(features, dim=-1) * torch.linalg.vector_norm(like, dim=-1, keepdim=True)
