"""Cross-stream gating (SAOA, section 3.2.4): one stream's GAP turns channels of the other stream's
objects up and down.

The paper prints eq 3.8 with `f_v` where the symmetric eq 3.5 has the aligned features; the aligned
features are meant, and used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossStreamGate(nn.Module):
    """`g = sigmoid(W_g f_g + b_g)`, `h_i <- g * h_i`, eq 3.3 to 3.8.

    Args:
        query_channels: of the gating stream's GAP; may differ from the gated stream's.
        channels: C, of the gated objects.
    """

    def __init__(self, query_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(query_channels, channels)

    def forward(self, objects: Tensor, query: Tensor) -> Tensor:
        """Gate.

        Args:
            objects: (B, N, C) aligned object features.
            query: (B, query_channels) GAP of the gating stream.

        Returns:
            (B, N, C).
        """
        return objects * torch.sigmoid(self.linear(query)).unsqueeze(1)
