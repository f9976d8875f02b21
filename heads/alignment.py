"""Object-centric feature alignment (SAOA, section 3.2.3): one vector per object from the object's
detection feature and the backbone's feature.

Both alignments are one affine map of the concatenation `[f; f_o]`, then ReLU. Global (eq 3.1): `f`
is the clip's GAP, the same for every object. Local (eq 3.2): `f` is the backbone feature under the
object's own box. The map is never applied to the concatenation: `W [f; f_o] = W_f f + W_o f_o`, and
in the global case the first term is computed once per clip instead of once per object.

Guesses where the paper is silent:
- initial weights: PyTorch's default for a linear layer of `C + C1` inputs, that is, of the
  concatenation;
- l2 rescaling multiplies the concatenation, before the affine map, so the bias is not rescaled.
  The norm is that of the feature that is concatenated: the clip's GAP in the global alignment, the
  object's own region in the local one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ObjectAlignment(nn.Module):
    """`h_i = ReLU(W f_i + W_o f_o_i + b)`, eq 3.1 and 3.2.

    Args:
        channels: C, of the backbone feature and of the result.
        object_channels: C1.
        l2_rescale: bring the object features to the length of the backbone feature they meet. The
            paper needs it for I3D, whose features differ in scale from the detector's.
    """

    def __init__(self, channels: int, object_channels: int, *, l2_rescale: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.l2_rescale = l2_rescale
        self.linear = nn.Linear(channels + object_channels, channels)

    def forward(self, features: Tensor, objects: Tensor) -> Tensor:
        """Align.

        Args:
            features: (B, 1, C) to align globally, (B, N, C) to align locally.
            objects: (B, N, C1).

        Returns:
            (B, N, C), never negative.
        """
        if self.l2_rescale:
            objects = rescale_objects(objects, features)
        weight = self.linear.weight  # (C, C + C1)
        own = F.linear(features, weight[:, : self.channels], self.linear.bias)
        return F.relu(own + F.linear(objects, weight[:, self.channels :]))


def rescale_objects(objects: Tensor, features: Tensor) -> Tensor:
    """Give each object feature the l2 norm of the backbone feature it is concatenated with.

    This is the paper's rescaling (section 3.3.2): `|f| [f/|f|; f_o/|f_o|] = [f; |f| f_o/|f_o|]`.

    Args:
        objects: (B, N, C1); rows of zeros stay zeros.
        features: (B, 1, C) or (B, N, C).

    Returns:
        (B, N, C1).
    """
    return F.normalize(objects, dim=-1) * torch.linalg.vector_norm(features, dim=-1, keepdim=True)
