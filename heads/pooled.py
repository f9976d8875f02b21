"""The baseline: a linear classifier on each stream's own global average pooling (table 3.1,
"Baseline"). No objects, no exchange between the streams.
"""

from __future__ import annotations

from torch import nn

from heads.base import Batch, Head, HeadDims


class PooledHead(Head):
    """Verb from GAP of the verb map, noun from GAP of the noun map.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
    """

    name = "pooled"
    inputs = ("verb_gap", "noun_gap")

    def __init__(self, dims: HeadDims, *, num_verbs: int, num_nouns: int) -> None:
        super().__init__()
        self.verb = nn.Linear(dims.verb_channels, num_verbs)
        self.noun = nn.Linear(dims.noun_channels, num_nouns)

    def forward(self, batch: Batch) -> Batch:
        """Logits of both classifiers."""
        return {"verb": self.verb(batch["verb_gap"]), "noun": self.noun(batch["noun_gap"])}
