"""LFB-max: the strongest operator of long-term feature banks on EPIC-Kitchens (Wu et al., 2019),
which SAOA is compared with in table 3.5: the maximum over a bank of features beside the backbone's.

Guesses, and what differs from Wu et al., whose code fixes the operator:
- their noun bank holds 10 objects of 1 frame per second over 12 seconds; here it is the stored
  row's objects, in number, rate and window as `stages.objects` and `stages.aligned` have them;
- their verb bank holds features of the verb network over 40 seconds, which a row does not have:
  here verbs use the object bank, too;
- padded objects take no part in the maximum; theirs are zeros that do;
- they train the backbone along, with dropout before the classifier; here it is frozen, and none.
"""

from __future__ import annotations

from heads.branch import LinearBranch, RescalingHead, Stream
from heads.pooling import MaxDetection


class LfbMaxHead(RescalingHead):
    """Verb and noun from `[GAP of the own map; maximum over the object bank]`."""

    name = "lfb_max"
    inputs = ("verb_gap", "noun_gap", "object_features", "object_mask")

    def verb_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The verb GAP beside the bank's maximum."""
        return own.linear(own.gap(), beside=MaxDetection(own.dims))

    def noun_branch(self, own: Stream, other: Stream) -> LinearBranch:
        """The noun GAP beside the bank's maximum."""
        return own.linear(own.gap(), beside=MaxDetection(own.dims))
