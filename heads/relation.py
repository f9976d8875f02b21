"""Action-attended relation module (SAOA, section 3.2.4): one stream's GAP asks which of the other
stream's objects matter, and those are summed.

Guesses where the paper is silent:
- it writes C for both streams; where they differ, the common space has a quarter of the attended
  stream's channels;
- initial weights: PyTorch's default for two linear layers without bias, each from its own feature
  to the common space;
- padded objects take no part in the softmax. A clip with no object at all is attended nowhere: its
  weights and its result are zeros, and a linear classifier on top answers with its bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ActionAttendedRelation(nn.Module):
    """`a = softmax_i(f_g A B h_i)`, out = `sum_i a_i h_i`, eq 3.9 to 3.11.

    A is (query_channels, C/4), B is (C/4, C), neither has a bias, and scores are not scaled.

    Args:
        query_channels: of the asking stream's GAP.
        channels: C, of the attended objects; at least 4.

    Raises:
        ValueError: if `channels` is below 4.
    """

    def __init__(self, query_channels: int, channels: int) -> None:
        super().__init__()
        if channels < 4:
            raise ValueError(f"got {channels} channels, expected at least 4: the space has C/4")
        self.query = nn.Linear(query_channels, channels // 4, bias=False)  # weight = A transposed
        self.key = nn.Linear(channels, channels // 4, bias=False)  # weight = B

    def forward(self, objects: Tensor, query: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            objects: (B, N, C).
            query: (B, query_channels).
            mask: (B, N) bool, True = a real object.

        Returns:
            The attended feature (B, C) and the attention weights (B, N): 0 for padded objects,
            adding up to 1 where there is a real one.
        """
        # Through the query first: one (C/4, C) product per clip instead of one per object.
        direction = self.query(query) @ self.key.weight  # (B, C)
        scores = (objects @ direction.unsqueeze(2)).squeeze(2)  # (B, N)
        # Not -inf: a row of nothing but -inf has no softmax, and its gradient would be NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        attention = torch.softmax(scores, dim=1) * mask
        return (attention.unsqueeze(1) @ objects).squeeze(1), attention
