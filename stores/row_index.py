"""Row key → row number for a whole generation, in 40 bytes per row.

A million rows fit in 40 MB, are looked up by bisection for a whole batch at a time, and travel
to worker processes as two arrays.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stores.names import check_key

_KEY_DTYPE = "S32"

Numbers = Sequence[int] | NDArray[np.int64]


class RowIndex:
    """Sorted keys and their numbers; a key that is there already keeps its number."""

    def __init__(self, keys: bytes = b"", numbers: Numbers = ()) -> None:
        # One tuple, replaced in one step, so that threads that read see both or neither.
        self._table = (np.empty(0, _KEY_DTYPE), np.empty(0, np.int64))
        self.add(keys, numbers)

    def __len__(self) -> int:
        return len(self._table[0])

    @property
    def end(self) -> int:
        """One more than the highest row number."""
        return int(self._table[1].max(initial=-1)) + 1

    def add(self, keys: bytes, numbers: Numbers) -> None:
        """Add rows; of a key that comes twice the first stays.

        Args:
            keys: 32 bytes per row, one after the other.
        """
        fresh, first = np.unique(np.frombuffer(keys, _KEY_DTYPE), return_index=True)
        new = self._find(fresh) < 0
        fresh, fresh_numbers = fresh[new], np.asarray(numbers, np.int64)[first][new]
        held, held_numbers = self._table
        places = np.searchsorted(held, fresh)
        self._table = (
            np.insert(held, places, fresh),
            np.insert(held_numbers, places, fresh_numbers),
        )

    def remove(self, keys: Iterable[str]) -> None:
        """Take rows out; unknown keys are fine."""
        held, numbers = self._table
        stay = ~np.isin(held, np.frombuffer(pack_keys(keys), _KEY_DTYPE))
        self._table = (held[stay], numbers[stay])

    def numbers_of(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """Return the row number of each key, -1 where there is no such row."""
        return self._find(np.frombuffer(pack_keys(keys), _KEY_DTYPE))

    def keys(self) -> list[str]:
        """Return all keys in the order of their row numbers."""
        held, numbers = self._table
        text = held[np.argsort(numbers)].tobytes().hex()
        return [text[start : start + 64] for start in range(0, len(text), 64)]

    def _find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        held, numbers = self._table
        if not len(held):
            return np.full(len(keys), -1)
        places = np.searchsorted(held, keys)
        places[places == len(held)] = 0
        return np.where(held[places] == keys, numbers[places], -1)


def pack_keys(keys: Iterable[str]) -> bytes:
    """Return row keys as bytes, 32 each; raise ValueError for what is no row key."""
    listed = list(keys)
    try:
        text = "".join(listed)
        packed = bytes.fromhex(text)
        # All in one look: lower case, nothing that fromhex skips, each of the right length.
        fine = packed.hex() == text and set(map(len, listed)) <= {64}
    except (TypeError, ValueError):
        fine = False
    if not fine:
        for key in listed:
            check_key("row key", key)  # says which one it is
    return packed
