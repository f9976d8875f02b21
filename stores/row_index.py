"""Row key → row number for a whole generation, in 48 bytes per row.

A million rows fit in 48 MB, are looked up by bisection for a whole batch at a time, and travel
to worker processes as a few arrays. Rows that were added last lie in a small table of their own,
so that adding some does not copy all.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stores.row_keys import KEY_DTYPE, check_packed, key_texts, packed_array, prefixes_of

Numbers = Sequence[int] | NDArray[np.int64]

_MAX_RECENT = 2**14


class _Table(NamedTuple):
    """Different keys in their order, their first 8 bytes, their row numbers; `end` is past all."""

    keys: NDArray[np.bytes_]
    prefixes: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    end: int

    @classmethod
    def of_sorted(cls, keys: NDArray[np.bytes_], numbers: NDArray[np.int64]) -> Self:
        return cls(keys, prefixes_of(keys), numbers, int(numbers.max(initial=-1)) + 1)

    @classmethod
    def of(cls, keys: NDArray[np.bytes_], numbers: NDArray[np.int64]) -> Self:
        """Of a key that comes twice the first stays."""
        order = _order(keys, prefixes_of(keys))
        keys, numbers = keys[order], numbers[order]
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        return cls.of_sorted(keys[first], numbers[first])

    def with_rows(self, other: "_Table") -> "_Table":
        """Return both together."""
        if not len(self.keys):
            return other
        keys = np.concatenate([self.keys, other.keys])
        return _Table.of(keys, np.concatenate([self.numbers, other.numbers]))

    def places(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return where contiguous keys lie, -1 for those that do not."""
        found = np.full(len(keys), -1)
        if not len(self.keys):
            return found
        prefixes = prefixes_of(keys)
        order = np.argsort(prefixes)  # neighbours in memory are looked at one after the other
        keys, prefixes = keys[order], prefixes[order]
        places = np.searchsorted(self.prefixes, prefixes)
        places[places == len(self.keys)] = 0
        same = self.keys[places] == keys
        # The first of several keys with the same 8 bytes was compared; it may be another of them.
        again = np.flatnonzero(~same & (self.prefixes[places] == prefixes))
        if len(again):
            places[again] = np.searchsorted(self.keys, keys[again])
            places[places == len(self.keys)] = 0
            same[again] = self.keys[places[again]] == keys[again]
        found[order] = np.where(same, places, -1)
        return found

    def only(self, chosen: NDArray[np.bool_]) -> "_Table":
        return _Table.of_sorted(self.keys[chosen], self.numbers[chosen])

    def without(self, keys: NDArray[np.bytes_]) -> "_Table":
        places = self.places(keys)
        stay = np.ones(len(self.keys), bool)
        stay[places[places >= 0]] = False
        return self.only(stay)


def _order(keys: NDArray[np.bytes_], prefixes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the order of keys; equal ones stay in theirs."""
    order = np.argsort(prefixes, kind="stable")
    in_order = prefixes[order]
    if (in_order[1:] == in_order[:-1]).any():  # hardly ever among hashes
        order = np.argsort(keys, kind="stable")
    return order


_EMPTY = _Table.of_sorted(np.empty(0, KEY_DTYPE), np.empty(0, np.int64))


class RowIndex:
    """Keys and their numbers; a key that is there already keeps its number."""

    def __init__(self, keys: bytes = b"", numbers: Numbers = ()) -> None:
        # One tuple, replaced in one step, so that threads that read see all or nothing of a change.
        self._tables = (_EMPTY, _EMPTY)
        self.add(keys, numbers)

    @classmethod
    def of_sorted(cls, keys: NDArray[np.bytes_], numbers: NDArray[np.int64]) -> Self:
        """Return the index of different keys, (n,) of S32, that are in their order."""
        index = cls()
        index._tables = (_Table.of_sorted(keys, numbers), _EMPTY)
        return index

    def __len__(self) -> int:
        return sum(len(table.keys) for table in self._tables)

    @property
    def end(self) -> int:
        """One more than the highest row number."""
        return max(table.end for table in self._tables)

    def add(self, keys: bytes, numbers: Numbers) -> None:
        """Add rows; of a key that comes twice the first stays.

        Args:
            keys: 32 bytes per row, one after the other.
        """
        rows = _Table.of(np.frombuffer(keys, KEY_DTYPE), np.asarray(numbers, np.int64))
        held, recent = self._tables
        recent = recent.with_rows(rows.only(held.places(rows.keys) < 0))
        if len(recent.keys) > _MAX_RECENT:
            held, recent = held.with_rows(recent), _EMPTY
        self._tables = (held, recent)

    def remove(self, keys: Iterable[str]) -> None:
        """Take rows out; unknown keys are fine."""
        gone = packed_array(keys)
        held, recent = self._tables
        self._tables = (held.without(gone), recent.without(gone))

    def numbers_of(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """Return the row number of each key, -1 where there is no such row."""
        return self.numbers_of_packed(packed_array(keys))

    def numbers_of_packed(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the row numbers of packed keys, -1 where there is no such row.

        Raises:
            ValueError: they are not (n,) of dtype S32.
        """
        keys = check_packed(keys)
        found = np.full(len(keys), -1)
        for table in self._tables:
            places = table.places(keys)
            there = places >= 0
            found[there] = table.numbers[places[there]]
        return found

    def rows(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """Return all keys in their order, packed, and their row numbers."""
        held, recent = self._tables
        every = held.with_rows(recent) if len(recent.keys) else held
        return every.keys, every.numbers

    def keys(self) -> list[str]:
        """Return all keys in the order of their row numbers."""
        keys, numbers = self.rows()
        return key_texts(keys[np.argsort(numbers)])
