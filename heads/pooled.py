"""Linear classifiers on global average pooling, without any object: the baseline (tables 3.1 and
3.3, "Baseline") and the fusion of both streams (table 3.3, "Verb+Noun Fusion").

Table 3.3 fuses for verbs alone. The fusion here classifies both verbs and nouns from both streams,
each in the order own, other.
"""

from __future__ import annotations

from heads.branch import LinearBranch, RescalingHead, Stream, TwoBranchHead


class PooledHead(TwoBranchHead):
    """Verb from GAP of the verb map, noun from GAP of the noun map."""

    name = "pooled"
    inputs = ("verb_gap", "noun_gap")

    def verb_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The own stream's GAP."""
        return own.linear(own.gap())

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The own stream's GAP."""
        return own.linear(own.gap())


class FusionHead(RescalingHead):
    """Verb and noun from `[GAP of the own map; GAP of the other map]`."""

    name = "fusion"
    inputs = ("verb_gap", "noun_gap")

    def verb_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """`[verb GAP; noun GAP]`."""
        return own.linear(own.gap(), beside=other.gap())

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """`[noun GAP; verb GAP]`."""
        return own.linear(own.gap(), beside=other.gap())
