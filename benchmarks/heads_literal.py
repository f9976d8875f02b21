"""SAOA as its equations are printed: what `heads.saoa` is timed against.

Every object is concatenated with its backbone feature and goes through one linear layer; the gated
objects are made; each of them is projected to C/4 numbers and compared with the query. Nothing is
factored out, nothing is slow on purpose: whole batches, one kernel per step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.base import Batch, HeadDims


class LiteralBranch(nn.Module):
    """One stream: eq 3.1 or 3.2, 3.3 to 3.8, 3.9 to 3.11, and the classifier.

    Args:
        channels: C of this stream.
        query_channels: of the other stream's GAP.
        object_channels: C1.
        num_classes: of the classifier.
    """

    def __init__(
        self, channels: int, query_channels: int, object_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        self.align = nn.Linear(channels + object_channels, channels)
        self.gate = nn.Linear(query_channels, channels)
        self.query = nn.Linear(query_channels, channels // 4, bias=False)
        self.key = nn.Linear(channels, channels // 4, bias=False)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor, query: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
        """Classify.

        Args:
            features: (B, N, C).
            query: (B, query_channels).
            objects: (B, N, C1).
            mask: (B, N) bool; at least one object per clip is real.

        Returns:
            Logits (B, num_classes).
        """
        aligned = F.relu(self.align(torch.cat([features, objects], dim=2)))
        gated = torch.sigmoid(self.gate(query)).unsqueeze(1) * aligned
        scores = (self.key(gated) @ self.query(query).unsqueeze(2)).squeeze(2)
        attention = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=1)
        return self.classifier((attention.unsqueeze(1) @ gated).squeeze(1))


class LiteralSaoa(nn.Module):
    """SAOA, every object by itself.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
    """

    def __init__(self, dims: HeadDims, *, num_verbs: int, num_nouns: int) -> None:
        super().__init__()
        verb, noun, objects = dims.verb_channels, dims.noun_channels, dims.object_channels
        self.local_slice = dims.local_slice
        self.verb = LiteralBranch(verb, noun, objects, num_verbs)
        self.noun = LiteralBranch(noun, verb, objects, num_nouns)

    def forward(self, batch: Batch) -> Batch:
        """The inputs and logits of `heads.saoa.SaoaHead`."""
        objects, mask = batch["object_features"], batch["object_mask"]
        verb_gap, noun_gap = batch["verb_gap"], batch["noun_gap"]
        local = self.local_slice
        everywhere = noun_gap.unsqueeze(1).expand(-1, objects.shape[1], -1)
        return {
            "verb": self.verb(batch["verb_roi"], noun_gap, objects[:, local], mask[:, local]),
            "noun": self.noun(everywhere, verb_gap, objects, mask),
        }
