"""SAP: symbiotic attention with privileged information, the forerunner of SAOA (table 3.3, "SAP").

Both branches align globally, over all N objects; everything after that is SAOA's. So no branch
reads boxes or maps.
"""

from __future__ import annotations

from heads.branch import ObjectBranch, Stream
from heads.saoa import SaoaHead


class SapHead(SaoaHead):
    """SAOA with global alignment of verbs, too."""

    name = "sap"
    inputs = ("verb_gap", "noun_gap", "object_features", "object_mask")

    def verb_branch(self, own: Stream, other: Stream) -> ObjectBranch:
        """Global alignment, eq 3.1 with the verb stream's features."""
        return self.related(own.globally(), own, other)
