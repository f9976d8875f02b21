"""SAOA: symbiotic attention with object-centric alignment (Wang et al., chapter 3; first place in
the EPIC-Kitchens 2020 action recognition challenge).

Two branches of the same make. The verb branch aligns locally (each object with the verb map under
its box), the noun branch globally (each object with the noun map's GAP); then each is gated and
attended by the *other* stream's GAP and classified by one linear layer.

Guesses where the paper is silent, besides those in `alignment` and `relation`:
- the verb branch attends the objects of its own, shorter window only (40 of 60);
- it writes C for both streams; where they differ, each branch keeps its own stream's channels and
  the maps that take in the other stream's GAP change the width;
- classifiers have a bias; initial weights and biases are PyTorch's defaults; no dropout.
"""

from __future__ import annotations

from torch import Tensor, nn

from heads.alignment import ObjectAlignment
from heads.base import Batch, Head, HeadDims
from heads.gating import CrossStreamGate
from heads.relation import ActionAttendedRelation


class SymbioticBranch(nn.Module):
    """Alignment, gating, relation and classifier of one stream.

    Args:
        channels: C of this stream.
        query_channels: of the GAP that gates and attends.
        object_channels: C1.
        num_classes: of this branch's classifier.
        l2_rescale: see `ObjectAlignment`.
    """

    def __init__(
        self,
        channels: int,
        query_channels: int,
        object_channels: int,
        num_classes: int,
        *,
        l2_rescale: bool,
    ) -> None:
        super().__init__()
        self.alignment = ObjectAlignment(channels, object_channels, l2_rescale=l2_rescale)
        self.gate = CrossStreamGate(query_channels, channels)
        self.relation = ActionAttendedRelation(query_channels, channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(
        self, features: Tensor, query: Tensor, objects: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Classify.

        Args:
            features: (B, 1, C) for global, (B, N, C) for local alignment.
            query: (B, query_channels).
            objects: (B, N, C1) detection features.
            mask: (B, N) bool, True = a real object.

        Returns:
            Logits (B, num_classes) and attention weights (B, N).
        """
        aligned = self.alignment(features, objects)
        attended, attention = self.relation(self.gate(aligned, query), query, mask)
        return self.classifier(attended), attention


class SaoaHead(Head):
    """The whole head, eq 3.1 to 3.13.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
        l2_rescale: bring detection features to the length of the backbone feature they are
            aligned with: the paper does so for I3D, and not for R-50.
    """

    name = "saoa"
    inputs = ("verb_gap", "noun_gap", "verb_roi", "object_features", "object_mask")

    def __init__(
        self, dims: HeadDims, *, num_verbs: int, num_nouns: int, l2_rescale: bool = False
    ) -> None:
        super().__init__()
        self.local_slice = dims.local_slice
        self.verb = SymbioticBranch(
            dims.verb_channels,
            dims.noun_channels,
            dims.object_channels,
            num_verbs,
            l2_rescale=l2_rescale,
        )
        self.noun = SymbioticBranch(
            dims.noun_channels,
            dims.verb_channels,
            dims.object_channels,
            num_nouns,
            l2_rescale=l2_rescale,
        )

    def forward(self, batch: Batch) -> Batch:
        """Logits of both branches; a clip without objects gets the classifiers' biases."""
        return {name: logits for name, (logits, _) in self._branches(batch).items()}

    def attention(self, batch: Batch) -> Batch:
        """Attention weights: `verb` (B, N_local) over the local objects, `noun` (B, N)."""
        return {name: attention for name, (_, attention) in self._branches(batch).items()}

    def _branches(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        objects, mask = batch["object_features"], batch["object_mask"]
        local = self.local_slice
        verb = self.verb(batch["verb_roi"], batch["noun_gap"], objects[:, local], mask[:, local])
        noun = self.noun(batch["noun_gap"].unsqueeze(1), batch["verb_gap"], objects, mask)
        return {"verb": verb, "noun": noun}
