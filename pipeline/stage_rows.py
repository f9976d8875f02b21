"""The rows a stage is asked for, as columns; a row itself is made when it is looked at.

    clips ─► moments (n, m) ─► each (content, moment) once ─► keys (r,) and numbers (n, m)

Naming hundreds of thousands of rows takes a second this way, and making them would take half a
minute: most of them are stored already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pipeline.clip_table import ClipTable
from pipeline.keys import Ints, Keys, row_keys
from pipeline.rows import DerivedRow, VideoRow
from stores.base import FeatureReader
from stores.row_keys import key_texts

__all__ = [
    "Naming",
    "StageRows",
    "each_once",
    "keys_once",
    "name_moments",
    "readable",
]

AnyRow = TypeVar("AnyRow", bound=VideoRow | DerivedRow)
LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Naming:
    """Which rows n clips need of a stage.

    Attributes:
        keys: (r,) of the rows, each once, in the order in which clips first need them.
        numbers: (n, m) the rows of each clip among them; -1 where its source is not there.
        firsts: (r,) where each row is first needed, counted through ``numbers``.
    """

    keys: Keys
    numbers: Ints
    firsts: Ints

    @classmethod
    def of_those(cls, there: Ints, n: int, keys: Keys, numbers: Ints, firsts: Ints) -> Naming:
        """The naming of n clips from that of those that are ``there``."""
        m = numbers.shape[1]
        everywhere = np.full((n, m), -1, dtype=np.int64)
        everywhere[there] = numbers
        return cls(keys, everywhere, there[firsts // m] * m + firsts % m)

    @property
    def named(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a clip's source is there."""
        found: npt.NDArray[np.bool_] = self.numbers[:, 0] >= 0
        return found

    @property
    def clips(self) -> Ints:
        """(r,) the clip that needs each row first."""
        found: Ints = self.firsts // self.numbers.shape[1]
        return found


class StageRows(Sequence[AnyRow]):
    """Rows a stage is asked for, or some of them.

    Args:
        keys: (r,) of each row.
        sources: (r,) what it is made from, among ``source_ids``.
        make: makes a row of its number and key.
        upstream: by stage, the keys of its rows, and (r, m) which of them each row is made from.
    """

    def __init__(
        self,
        keys: Keys,
        sources: Ints,
        source_ids: Sequence[str],
        make: Callable[[int, str], AnyRow],
        upstream: Mapping[str, tuple[Keys, Ints]] | None = None,
    ) -> None:
        self.keys = keys
        self.sources = sources
        self.source_ids = source_ids
        self._numbers: Ints = np.arange(len(keys))
        self._make = make
        self._upstream = upstream or {}

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> AnyRow: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> AnyRow | Self:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        (key,) = key_texts(self.keys[index, None])
        return self._make(int(self._numbers[index]), key)

    def __iter__(self) -> Iterator[AnyRow]:
        for number, key in zip(self._numbers.tolist(), key_texts(self.keys), strict=True):
            yield self._make(number, key)

    def take(self, which: npt.NDArray[Any]) -> Self:
        """Some of the rows.

        Args:
            which: their places, or (r,) bool.
        """
        some = copy(self)
        some.keys, some.sources = self.keys[which], self.sources[which]
        some._numbers = self._numbers[which]
        return some

    def upstream(self, stage: str) -> tuple[Keys, Ints]:
        """The keys of a stage's rows, and (n, m) which of them each of these rows is made from."""
        keys, numbers = self._upstream[stage]
        return keys, numbers[self._numbers]

    def by_source(self) -> dict[str, Self]:
        """The rows of each source, by its id."""
        order = np.argsort(self.sources, kind="stable")
        sources, starts = np.unique(self.sources[order], return_index=True)
        parts = np.split(order, starts[1:])
        return {
            self.source_ids[source]: self.take(part)
            for source, part in zip(sources.tolist(), parts, strict=False)
        }

    def count_by_source(self) -> dict[str, int]:
        """How many rows each source has, by its id; sources without any lack."""
        sources, counts = np.unique(self.sources, return_counts=True)
        ids = [self.source_ids[source] for source in sources.tolist()]
        return dict(zip(ids, counts.tolist(), strict=True))


def name_moments(
    table: ClipTable, sources: Sequence[str], moments_us: Ints, times_of: Callable[[Ints], Ints]
) -> Naming:
    """Name rows that a video's content and a moment tell apart.

    Args:
        sources: of each of the table's videos, what is decoded.
        moments_us: (n, m) of the rows that each clip needs.
        times_of: makes (k, t) times of k moments.
    """
    identities, contents = table.identities_of(sources)
    content = contents[table.videos]
    there = np.flatnonzero(content >= 0)
    m = moments_us.shape[1]
    which, moments = np.repeat(content[there], m), moments_us[there].ravel()
    firsts, numbers = each_once(which, moments)
    keys = row_keys(identities, which[firsts], moments[firsts], times_of)
    return Naming.of_those(there, len(table), keys, numbers.reshape(-1, m), firsts)


def each_once(which: Ints, moments: Ints) -> tuple[Ints, Ints]:
    """Where each pair comes first, in order, and (n,) which of these each pair is."""
    if not len(which):
        return which, which
    low, span = int(moments.min()), int(np.ptp(moments)) + 1
    if (int(which.max()) + 1) * span > LARGEST:  # longer and more than any data set
        moments = np.unique(moments, return_inverse=True)[1]
        low, span = 0, int(moments.max()) + 1
    return _in_order(which * span + (moments - low))


def keys_once(keys: Keys) -> tuple[Ints, Ints]:
    """`each_once` of keys."""
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    firsts, numbers = _in_order(keys.view(np.int64).reshape(-1, 4)[:, 0])
    if (keys[firsts][numbers] == keys).all():
        return firsts, numbers
    return _in_order(keys)  # two keys that begin alike


def _in_order(values: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    _, firsts, numbers = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return firsts[order], rank[numbers]


def readable(
    rows: StageRows[DerivedRow], readers: Mapping[str, FeatureReader]
) -> npt.NDArray[np.bool_]:
    """(n,) whether all upstream rows of a row are stored."""
    found = np.ones(len(rows), dtype=np.bool_)
    for name, reader in readers.items():
        keys, numbers = rows.upstream(name)
        wanted = np.unique(numbers)
        there = np.zeros(len(keys), dtype=np.bool_)
        there[wanted] = reader.holds(keys[wanted])
        found &= there[numbers].all(axis=1)
    return found
