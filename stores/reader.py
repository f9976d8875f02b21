"""The contract of whoever only reads rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from stores.records import ArraySpec


class FeatureReader(ABC):
    """Rows of one stage, addressed by row key; plain numpy arrays come out.

    Attributes:
        specs: output name → shape, dtype and dims of one row.
    """

    specs: Mapping[str, ArraySpec]

    @abstractmethod
    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of `keys` that hold no row, in their order, each once."""

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
