"""Heads made of parts: two branches, each a chain of parts that ends in a linear classifier.

A head says in two lines which parts its verb and its noun branch have, and which stream's GAP gates
and attends. A part reads what it needs of the batch by itself.

Guesses where the papers are silent:
- they write C for both streams; where they differ, each branch keeps its own stream's channels and
  the maps that take in the other stream's GAP change the width;
- classifiers have a bias; initial weights and biases are PyTorch's defaults; no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from heads.alignment import GlobalAlignment, LocalAlignment, ProjectedDetections, RawDetections
from heads.base import Batch, Head, HeadDims
from heads.gating import CrossStreamGate, GatedObjects
from heads.pooling import ClipFeature, Concatenated, Gap
from heads.relation import ActionAttendedRelation, MeanRelation

ObjectPart = GlobalAlignment | LocalAlignment | ProjectedDetections | RawDetections
Relation = ActionAttendedRelation | MeanRelation


class ObjectBranch(nn.Module):
    """Objects, gate, relation, classifier.

    Args:
        alignment: makes h (B, N, C) of a batch.
        gate: makes g (B, C), or None for no gating.
        relation: makes one vector of the gated objects.
        num_classes: of the classifier.
    """

    def __init__(
        self,
        alignment: ObjectPart,
        gate: CrossStreamGate | None,
        relation: Relation,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.alignment = alignment
        self.gate = gate
        self.relation = relation
        self.classifier = nn.Linear(alignment.channels, num_classes)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, num_classes), and attention weights (B, N) if the relation has any."""
        objects = GatedObjects(
            self.alignment(batch),
            batch["object_mask"][:, self.alignment.window],
            None if self.gate is None else self.gate(batch),
        )
        attended, attention = self.relation(objects, batch)
        return self.classifier(attended), attention


class LinearBranch(nn.Module):
    """A linear classifier on one vector per clip.

    Args:
        feature: makes the vector.
        num_classes: of the classifier.
    """

    def __init__(self, feature: ClipFeature, num_classes: int) -> None:
        super().__init__()
        self.feature = feature
        self.classifier = nn.Linear(feature.channels, num_classes)

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        """Logits (B, num_classes), and no attention."""
        return self.classifier(self.feature(batch)), None


Branch = ObjectBranch | LinearBranch


@dataclass(frozen=True)
class Stream:
    """One stream, `verb` or `noun`, and what its branch can be made of.

    Attributes:
        name: `verb` or `noun`.
        dims: sizes of all inputs.
        num_classes: of the stream's classifier.
        l2_rescale: see `alignment` and `pooling`.
        scale_scores: see `relation`.
    """

    name: str
    dims: HeadDims
    num_classes: int
    l2_rescale: bool = False
    scale_scores: bool = False

    def gap(self) -> Gap:
        """This stream's global average pooling."""
        return Gap(self.name, self.dims)

    def globally(self) -> GlobalAlignment:
        """All objects, each aligned with this stream's GAP."""
        return GlobalAlignment(self.name, self.dims, l2_rescale=self.l2_rescale)

    def locally(self) -> LocalAlignment:
        """The local objects, each aligned with this stream's map under its box."""
        return LocalAlignment(self.name, self.dims, l2_rescale=self.l2_rescale)

    def attended(
        self, objects: ObjectPart, *, by: Stream, gated_by: Stream | None = None
    ) -> ObjectBranch:
        """A branch that attends to objects, each stream asking with its GAP."""
        return ObjectBranch(
            objects,
            self._gate(objects, gated_by),
            ActionAttendedRelation(
                by.name, self.dims, objects.channels, scale_scores=self.scale_scores
            ),
            self.num_classes,
        )

    def averaged(self, objects: ObjectPart, *, gated_by: Stream) -> ObjectBranch:
        """A branch that takes the mean of gated objects."""
        gate = self._gate(objects, gated_by)
        return ObjectBranch(objects, gate, MeanRelation(), self.num_classes)

    def linear(self, feature: ClipFeature, beside: ClipFeature | None = None) -> LinearBranch:
        """A linear classifier on one vector, or on two side by side."""
        if beside is not None:
            feature = Concatenated(feature, beside, l2_rescale=self.l2_rescale)
        return LinearBranch(feature, self.num_classes)

    def _gate(self, objects: ObjectPart, by: Stream | None) -> CrossStreamGate | None:
        return None if by is None else CrossStreamGate(by.name, self.dims, objects.channels)


class TwoBranchHead(Head):
    """A verb and a noun branch. A subclass says what they are made of, and which options it takes.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
    """

    def __init__(self, dims: HeadDims, *, num_verbs: int, num_nouns: int) -> None:
        super().__init__()
        self._assemble(dims, num_verbs, num_nouns)

    def _assemble(self, dims: HeadDims, num_verbs: int, num_nouns: int, **options: bool) -> None:
        verb = Stream("verb", dims, num_verbs, **options)
        noun = Stream("noun", dims, num_nouns, **options)
        self.verb = self.verb_branch(verb, noun)
        self.noun = self.noun_branch(noun, verb)

    def verb_branch(self, own: Stream, other: Stream) -> Branch:
        """The verb branch; `own` is the verb stream."""
        raise NotImplementedError

    def noun_branch(self, own: Stream, other: Stream) -> Branch:
        """The noun branch; `own` is the noun stream."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Batch:
        """Logits of both branches."""
        return {"verb": self.verb(batch)[0], "noun": self.noun(batch)[0]}

    def attention(self, batch: Batch) -> Batch:
        """Weights of the branches that attend; see `Head.attention`."""
        if not self.attends:
            return super().attention(batch)
        weights = {"verb": self.verb(batch)[1], "noun": self.noun(batch)[1]}
        return {stream: found for stream, found in weights.items() if found is not None}


class RescalingHead(TwoBranchHead):
    """Two branches of which at least one puts detections beside a backbone's feature.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
        l2_rescale: bring the second feature to the length of the first: the paper does so with I3D,
            and not with R-50.
    """

    def __init__(
        self, dims: HeadDims, *, num_verbs: int, num_nouns: int, l2_rescale: bool = False
    ) -> None:
        Head.__init__(self)
        self._assemble(dims, num_verbs, num_nouns, l2_rescale=l2_rescale)


class AttendingHead(TwoBranchHead):
    """Two branches of which at least one attends to objects.

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
        l2_rescale: bring detection features to the length of the backbone feature they meet: the
            paper does so with I3D, and not with R-50.
        scale_scores: divide attention scores by the root of the common space's size; the paper
            prints no such factor.
    """

    attends = True

    def __init__(
        self,
        dims: HeadDims,
        *,
        num_verbs: int,
        num_nouns: int,
        l2_rescale: bool = False,
        scale_scores: bool = False,
    ) -> None:
        Head.__init__(self)
        self._assemble(dims, num_verbs, num_nouns, l2_rescale=l2_rescale, scale_scores=scale_scores)
