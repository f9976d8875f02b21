"""Nouns from detection features by other means than SAOA's (table 3.2).

Table 3.2 concerns the noun alone. The heads that pool classify verbs as the baseline does, from the
verb map's GAP; the one that attends keeps SAOA's verb branch. The branches share no weights, so the
noun's numbers hang on neither choice, except that the kept epoch is the one of the best action.

Option where the paper is silent:
- `project` of `detections_attended`: whether the detection features go through SAOA's affine map
  and ReLU, the backbone's feature left out (the default, since only "the integration of the global
  noun feature" is said to be missing), or are gated and attended as they are.

Guesses where the paper is silent:
- "directly apply average pooling and max pooling": no layer and no ReLU between detections and
  classifier;
- detections alone: over all N objects; gate and query from the verb GAP, as in SAOA.
"""

from __future__ import annotations

from heads.alignment import ProjectedDetections, RawDetections
from heads.base import Head, HeadDims
from heads.branch import LinearBranch, ObjectBranch, RescalingHead, Stream, TwoBranchHead
from heads.pooling import MaxDetection, MeanDetection
from heads.saoa import SaoaHead


class MeanDetectionsHead(TwoBranchHead):
    """Noun from the mean of the detection features ("Det Feat+Avg Pooling")."""

    name = "detections_mean"
    inputs = ("verb_gap", "object_features", "object_mask")

    def verb_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The baseline's."""
        return own.linear(own.gap())

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """Mean over real objects."""
        return own.linear(MeanDetection(own.dims))


class MaxDetectionsHead(MeanDetectionsHead):
    """Noun from the maximum of the detection features ("Det Feat+Max Pooling")."""

    name = "detections_max"

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """Maximum over real objects."""
        return own.linear(MaxDetection(own.dims))


class NounDetectionsHead(RescalingHead):
    """Noun from `[noun GAP; maximum of the detection features]` ("Noun + Det Feat")."""

    name = "noun_detections"
    inputs = ("verb_gap", "noun_gap", "object_features", "object_mask")

    def verb_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The baseline's."""
        return own.linear(own.gap())

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The noun GAP beside the maximum over real objects."""
        return own.linear(own.gap(), beside=MaxDetection(own.dims))


class AttendedDetectionsHead(SaoaHead):
    """Noun from symbiotic attention over detection features alone ("SA (Det Feat only)").

    Args:
        dims: sizes of the inputs.
        num_verbs: verb classes.
        num_nouns: noun classes.
        l2_rescale: of the verb branch, as in SAOA.
        scale_scores: of both branches, as in SAOA.
        project: see the top of the file.
    """

    name = "detections_attended"

    def __init__(
        self,
        dims: HeadDims,
        *,
        num_verbs: int,
        num_nouns: int,
        l2_rescale: bool = False,
        scale_scores: bool = False,
        project: bool = True,
    ) -> None:
        Head.__init__(self)
        self.project = project
        self._assemble(dims, num_verbs, num_nouns, l2_rescale=l2_rescale, scale_scores=scale_scores)

    def noun_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Detections without the noun GAP, gated and attended by the verb GAP."""
        if self.project:
            return self.related(ProjectedDetections(own.name, own.dims), own, other)
        return self.related(RawDetections(own.dims), own, other)
