"""Clips as columns: what a stage needs to name all rows of an experiment at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.clips import Clip
from pipeline.keys import Ints

__all__ = ["ClipTable", "Identities"]

# Content digests by source: a video's id, or that of its official flow.
Identities = Mapping[str, str]

Found = TypeVar("Found")


class ClipTable:
    """Clips, and what identifies their sources.

    Attributes:
        video_ids: each once, in the order in which clips first name them.
        videos: (n,) the number of each clip's video among them.
        centres_us: (n,) microseconds.
    """

    def __init__(self, clips: Sequence[Clip], identities: Identities) -> None:
        self.clips = clips
        self.identities = identities
        numbers: dict[str, int] = {}
        videos = [numbers.setdefault(clip.segment.video_id, len(numbers)) for clip in clips]
        self.video_ids = list(numbers)
        self.videos: Ints = np.array(videos, dtype=np.int64)
        self.centres_us: Ints = np.array([clip.centre_us for clip in clips], dtype=np.int64)
        self._found: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def identities_of(self, sources: Sequence[str]) -> tuple[list[str], Ints]:
        """The identities of sources, each once, and which of them each source has; -1 for none."""
        numbers: dict[str, int] = {}
        known = [self.identities.get(source) for source in sources]
        which = [-1 if i is None else numbers.setdefault(i, len(numbers)) for i in known]
        return list(numbers), np.array(which, dtype=np.int64)

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """What ``find`` gives, found out the first time it is asked for; stages share it."""
        if what not in self._found:
            self._found[what] = find()
        found: Found = self._found[what]
        return found
