"""SAOA: symbiotic attention with object-centric alignment (Wang et al., chapter 3; first place in
the EPIC-Kitchens 2020 action recognition challenge).

Two branches of the same make. The verb branch aligns locally (each object with the verb map under
its box), the noun branch globally (each object with the noun map's GAP); then each is gated and
attended by the *other* stream's GAP and classified by one linear layer.

Options and guesses: see `alignment`, `relation` and `branch`.
"""

from __future__ import annotations

from typing import ClassVar

from heads.branch import AttendingHead, ObjectBranch, ObjectPart, Stream


class SaoaHead(AttendingHead):
    """The whole head, eq 3.1 to 3.13. A clip without objects gets the classifiers' biases."""

    name = "saoa"
    inputs: ClassVar[tuple[str, ...]] = (
        "verb_gap",
        "noun_gap",
        "verb_roi",
        "object_features",
        "object_mask",
    )

    def verb_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Local alignment, eq 3.2."""
        return self.related(own.locally(), own, other)

    def noun_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Global alignment, eq 3.1."""
        return self.related(own.globally(), own, other)

    def related(self, aligned: ObjectPart, own: Stream, other: Stream) -> ObjectBranch:
        """Symbiotic attention: the other stream gates and attends, eq 3.3 to 3.11."""
        return own.attended(aligned, by=other, gated_by=other)
