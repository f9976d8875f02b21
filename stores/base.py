"""The contract of a feature store, whatever it is kept in.

A store holds *generations*: the rows of one stage under one stage key. A generation is written
shard by shard (`reserve_shards`, `write_shard`, `commit`) and read row by row (`read`).
A row exists once its receipt is committed, and never changes after that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

from stores.errors import (
    CorruptRowError,
    GenerationInUseError,
    MissingGenerationError,
    MissingRowsError,
    RefusedRowError,
    StorageUnavailableError,
    StoreLockedError,
    read_only_error,
)
from stores.infos import GenerationInfo, Lease, Leftovers, ShardRange
from stores.reader import FeatureReader
from stores.records import ArraySpec, Failure, Problem, Receipt, Row, RowInfo

__all__ = [
    "ArraySpec",
    "CorruptRowError",
    "Failure",
    "FeatureReader",
    "FeatureStore",
    "GenerationInUseError",
    "GenerationInfo",
    "Lease",
    "Leftovers",
    "MissingGenerationError",
    "MissingRowsError",
    "Problem",
    "Receipt",
    "RefusedRowError",
    "Row",
    "RowInfo",
    "ShardRange",
    "ShardWriter",
    "StorageUnavailableError",
    "Store",
    "StoreLockedError",
    "read_only_error",
]

APPEND_THREADS = 4


class ShardWriter(Protocol):
    """What a worker gets: it can write shards and nothing else."""

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        """See `FeatureStore.write_shard`."""


class FeatureStore(FeatureReader):
    """One generation: the rows of `stage` made under `key` (64 hex digits).

    Attributes:
        provenance: JSON values that say where the rows come from.
        compression: of single rows, "none" or "zstd".
    """

    stage: str
    key: str
    path: Path
    rows_per_shard: int
    provenance: Mapping[str, Any]
    compression: str

    @abstractmethod
    def reserve_shards(self, count: int) -> int:
        """Set `count` shard numbers aside for good; return the first of them."""

    @abstractmethod
    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        """Write rows to a reserved shard; they exist only once the receipt is committed.

        Raises:
            ValueError: no rows, too many, a key twice, or values that do not fit the specs.
            RefusedRowError: a row with NaN or Inf; without it the same shard may be written.
            FileExistsError: the shard was written before; reserve another one.
            StorageUnavailableError: the store is not there now, see there.
        """

    @abstractmethod
    def shard_writer(self) -> ShardWriter:
        """Return what writes shards of this generation from another process."""

    @abstractmethod
    def commit(self, receipts: Sequence[Receipt], failures: Sequence[Failure] = ()) -> None:
        """Make the receipts' rows exist, and record failures, all or nothing.

        A row that exists already stays as it is; a row that exists clears its failure.

        Raises:
            StorageUnavailableError: the store is not there now; call again once it is.
        """

    @abstractmethod
    def infos(self, keys: Sequence[str]) -> list[RowInfo]:
        """Return what stored rows are about, in the order of `keys`.

        Raises:
            MissingRowsError: rows that are not stored.
        """

    @abstractmethod
    def failures(self) -> list[Failure]:
        """Return the recorded failures, by row key."""

    @abstractmethod
    def clear_failures(self, keys: Iterable[str]) -> None:
        """Forget the failures of `keys`, so that they are tried again."""

    @abstractmethod
    def forget(self, keys: Iterable[str]) -> None:
        """Make rows missing again, so that they are computed anew into another shard."""

    @abstractmethod
    def verify(
        self, deep: bool = True, on_read: Callable[[int], None] | None = None
    ) -> list[Problem]:
        """Return what is not as it was written.

        Args:
            deep: read every row back; without, only what says where rows lie and which they are.
            on_read: called again and again with the bytes read since the last call.
        """

    @abstractmethod
    def repair(self, on_read: Callable[[int], None] | None = None) -> list[Problem]:
        """Verify deeply and make what is hurt missing, so that it is computed anew.

        Nothing is deleted: what is broken beyond single rows is moved aside.

        Returns:
            The problems there were; rows of theirs that are not missing now were not lost.
        """

    def append(self, rows: Sequence[Row]) -> list[Receipt]:
        """Reserve, write and commit `rows` in as many shards as they need."""
        starts = range(0, len(rows), self.rows_per_shard)
        batches = [rows[start : start + self.rows_per_shard] for start in starts]
        first = self.reserve_shards(len(batches))
        # While some threads wait for the disk, another computes checksums.
        with ThreadPoolExecutor(APPEND_THREADS) as pool:
            receipts = list(pool.map(self.write_shard, range(first, first + len(batches)), batches))
        self.commit(receipts)
        return receipts


class Store(ABC):
    """A folder of generations; a context manager that closes itself."""

    path: Path
    format: str

    @abstractmethod
    def generation(
        self,
        stage: str,
        key: str,
        specs: Mapping[str, ArraySpec] | None = None,
        provenance: Mapping[str, Any] | None = None,
        shard_mib: float = 32,
        compression: str = "none",
    ) -> FeatureStore:
        """Open the generation of `stage` under `key`, or create it where `specs` are given.

        Args:
            provenance: JSON values that say where the rows come from; kept when creating.
            shard_mib: size of a shard in MiB over all outputs together; used when creating.
            compression: of single rows, "none" or "zstd"; used when creating.

        Raises:
            MissingGenerationError: it does not exist and `specs` is None.
            ValueError: it exists with other specs, or its folder belongs to another key.
        """

    @abstractmethod
    def generations(self) -> list[GenerationInfo]:
        """List what the store holds, by stage and age."""

    @abstractmethod
    def check(self) -> list[Problem]:
        """Return what is wrong beyond the rows of single generations, which `verify` looks at."""

    @abstractmethod
    def repair(self) -> list[Problem]:
        """Mend what `check` finds and opening the store did not; return what that was."""

    @abstractmethod
    def remove(self, stage: str, key: str) -> int:
        """Delete a generation for good; return how many bytes that freed.

        Raises:
            MissingGenerationError: there is none.
            GenerationInUseError: another process, or another opened store, reads it, or a lease
                is about it.
        """

    @abstractmethod
    def leftovers(self) -> list[Leftovers]:
        """List the files that hold no row any more."""

    @abstractmethod
    def remove_leftovers(self, leftovers: Leftovers) -> int:
        """Delete such files for good; return how many bytes that freed.

        Raises:
            GenerationInUseError: somebody reads the generation, who may know such a row yet, or
                a lease is about it.
        """

    @abstractmethod
    def lease(self, name: str, shards: Iterable[ShardRange]) -> Lease:
        """Note durably that reserved shards are being written by somebody who holds no store.

        As long as the lease is there, whoever opens the store for writing leaves these shards
        and their temporary files alone, and nobody removes their generations. Commit receipts of
        such shards as of any other.

        Args:
            name: at most 100 letters, digits, '.', '_' and '-'.

        Raises:
            FileExistsError: there is a lease of that name.
            ValueError: shards that were never reserved, none at all, or a bad name.
        """

    @abstractmethod
    def release(self, name: str) -> None:
        """Remove a lease; nothing happens where there is none of that name.

        The next time the store is opened for writing, whole shards that were under it and are
        not committed are taken in, and what is torn is put aside.
        """

    @abstractmethod
    def leases(self) -> list[Lease]:
        """List the leases by name, those with damaged files among them."""

    @abstractmethod
    def close(self) -> None:
        """Bring everything on disk up to date and let go of it; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except OSError as late:
            if error is None:
                raise
            error.add_note(f"and closing the store failed: {late}")  # the first error says more
