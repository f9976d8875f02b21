"""The contract of whoever only reads rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.records import ArraySpec
from stores.row_keys import key_texts


class FeatureReader(ABC):
    """Rows of one stage, addressed by row key; plain numpy arrays come out.

    Attributes:
        specs: output name → shape, dtype and dims of one row.
    """

    specs: Mapping[str, ArraySpec]

    @abstractmethod
    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of `keys` that hold no row, in their order, each once."""

    def holds(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Return which of `keys` hold a row; a million takes well under a second in a folder.

        Args:
            keys: row keys as 32 bytes each, (n,) of dtype S32; `stores.row_keys` makes them.

        Returns:
            (n,) of bool.

        Raises:
            ValueError: another dtype or shape.
        """
        texts = key_texts(keys)
        missing = set(self.missing(texts))
        return np.array([text not in missing for text in texts], bool)

    @abstractmethod
    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Read rows into batch arrays of shape (len(keys), *row shape), in the order of `keys`.

        Args:
            keys: row keys; one may come several times.
            outputs: names to read; by default those in `out`, or all.
            out: C-contiguous arrays of exactly the right shape and dtype to read into.

        Raises:
            MissingRowsError: rows that are not stored; nothing has been read.
            CorruptRowError: stored bytes do not match their checksum.
            ValueError: unknown outputs, or arrays in `out` that do not fit.
        """

    @abstractmethod
    def keys(self) -> list[str]:
        """Return all row keys, in the order of their row numbers."""

    @abstractmethod
    def __len__(self) -> int: ...
