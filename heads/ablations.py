"""SAOA with one thing left out or changed: the rows of table 3.1, and local alignment on the noun
branch (table 3.2, "SA + Local Alignment").

Table 3.1 leaves out of both branches; table 3.2 concerns the noun alone, so its head keeps SAOA's
verb branch.

Reading: the paper describes "w/o CSG" in the words of the noun branch, "we utilize the global noun
feature to attend the object-centric matrix", that is, no gate, and the own stream asks. The verb
branch is made alike.
"""

from __future__ import annotations

from heads.branch import ObjectBranch, ObjectPart, RescalingHead, Stream
from heads.saoa import SaoaHead


class NoCsgHead(SaoaHead):
    """No cross-stream gating: nothing gates, the own stream attends."""

    name = "saoa_no_csg"

    def related(self, aligned: ObjectPart, own: Stream, other: Stream) -> ObjectBranch:
        """Attended by the own stream."""
        return own.attended(aligned, by=own)


class NoGatingHead(SaoaHead):
    """Cross attention only: nothing gates, the other stream attends."""

    name = "saoa_no_gating"

    def related(self, aligned: ObjectPart, own: Stream, other: Stream) -> ObjectBranch:
        """Attended by the other stream."""
        return own.attended(aligned, by=other)


class NoCrossStreamHead(SaoaHead):
    """The own stream gates and attends."""

    name = "saoa_no_cross_stream"

    def related(self, aligned: ObjectPart, own: Stream, other: Stream) -> ObjectBranch:
        """Gated and attended by the own stream."""
        return own.attended(aligned, by=own, gated_by=own)


class NoArmHead(RescalingHead):
    """No action-attended relation: the mean of the gated objects."""

    name = "saoa_no_arm"
    inputs = SaoaHead.inputs

    def verb_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Local alignment, gated by the other stream, averaged."""
        return own.averaged(own.locally(), gated_by=other)

    def noun_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Global alignment, gated by the other stream, averaged."""
        return own.averaged(own.globally(), gated_by=other)


class LocalNounHead(SaoaHead):
    """Local alignment on both branches: the noun branch sees the noun map under the local boxes."""

    name = "saoa_local_noun"
    inputs = (*SaoaHead.inputs, "noun_roi")

    def noun_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Local alignment, eq 3.2 with the noun stream's features."""
        return self.related(own.locally(), own, other)
