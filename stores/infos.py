"""What a store says about itself: its generations, files without rows, and leases."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stores.errors import GenerationInUseError
from stores.records import name_some


@dataclass(frozen=True)
class GenerationInfo:
    """One line of `Store.generations`: counts of rows and failures, bytes on disk, UTC time."""

    stage: str
    key: str
    path: Path
    rows: int
    failures: int
    nbytes: int
    created: str


@dataclass(frozen=True)
class Leftovers:
    """Files of one generation that hold no row any more.

    Quarantined files, and shards all of whose rows were forgotten. Where `stage` and `key` are
    empty, damaged manifests that were put aside.
    """

    stage: str
    key: str
    files: int
    nbytes: int


@dataclass(frozen=True)
class ShardRange:
    """Shards `first` to `first + count - 1` of one generation."""

    stage: str
    key: str
    first: int
    count: int


@dataclass(frozen=True)
class Lease:
    """Shards that somebody writes who does not hold the store, such as a batch job.

    Attributes:
        created: UTC time, ISO 8601.
        damage: what is wrong with its file; such a lease may be about any shard. Else "".
    """

    name: str
    created: str
    shards: tuple[ShardRange, ...]
    damage: str = ""

    def is_about(self, stage: str, key: str) -> bool:
        """Return whether shards of a generation may be under this lease."""
        return bool(self.damage) or any((r.stage, r.key) == (stage, key) for r in self.shards)

    def covers(self, stage: str, key: str, shard: int) -> bool:
        """Return whether a shard is, or may be, under this lease."""
        return bool(self.damage) or any(
            (r.stage, r.key) == (stage, key) and r.first <= shard < r.first + r.count
            for r in self.shards
        )


def end_of_leases(leases: Iterable[Lease], stage: str, key: str) -> int:
    """Return the first shard number of a generation beyond all that are known to be leased."""
    ranges = [r for lease in leases for r in lease.shards if (r.stage, r.key) == (stage, key)]
    return max((r.first + r.count for r in ranges), default=0)


def check_free(leases: Iterable[Lease], stage: str, key: str) -> None:
    """Raise GenerationInUseError where a lease is, or may be, about a generation."""
    about = [lease for lease in leases if lease.is_about(stage, key)]
    if about:
        names = name_some([lease.name for lease in about])
        damage = "".join(f"; {lease.damage}" for lease in about if lease.damage)
        raise GenerationInUseError(
            f"got stage {stage!r} with key {key}, which jobs write to under lease {names}, "
            f"expected none; wait for the jobs, or release their leases{damage}"
        )
