"""A store in memory: the contract in its plainest form, for tests of whatever uses a store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stores.base import (
    CorruptRowError,
    FeatureStore,
    GenerationInfo,
    Lease,
    Leftovers,
    MissingGenerationError,
    MissingRowsError,
    ShardRange,
    Store,
)
from stores.checks import allocate, check_finite, check_rows, rows_per_shard, wanted_outputs
from stores.infos import check_free
from stores.layout import generation_folder
from stores.names import check_key
from stores.records import (
    ArraySpec,
    Failure,
    Problem,
    Receipt,
    Row,
    RowInfo,
    check_specs,
)


class MemoryGeneration(FeatureStore):
    """Rows in dicts; `shards` holds what was written, `rows` says where committed rows are.

    `reserved` is how many shard numbers were handed out.
    """

    def __init__(
        self, path: Path, stage: str, key: str, specs: Mapping[str, ArraySpec], shard_mib: float
    ) -> None:
        self.path, self.stage, self.key = path, stage, key
        self.specs = check_specs(specs)
        self.rows_per_shard = rows_per_shard(specs, shard_mib)
        self.provenance: Mapping[str, Any] = {}
        self.compression = "none"
        self.created = datetime.now(UTC).isoformat(timespec="microseconds")
        self.shards: dict[int, list[dict[str, NDArray[Any]]]] = {}
        self.rows: dict[str, tuple[int, int, RowInfo, dict[str, int]]] = {}
        self._checks: dict[int, list[dict[str, int]]] = {}
        self._failures: dict[str, Failure] = {}
        self._committed: set[int] = set()
        self.reserved = 0

    def missing(self, keys: Iterable[str]) -> list[str]:
        """See `FeatureReader.missing`."""
        asked = dict.fromkeys(check_key("row key", key) for key in keys)
        return [key for key in asked if key not in self.rows]

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `FeatureReader.read`."""
        missing = self.missing(keys)
        if missing:
            raise MissingRowsError(self.stage, missing)
        arrays = allocate(self.specs, len(keys), wanted_outputs(self.specs, outputs, out), out)
        for output, array in arrays.items():
            for position, key in enumerate(keys):
                if not self._is_intact(key, output):
                    clip_id = self.rows[key][2].clip_id
                    raise CorruptRowError(
                        f"got stage {self.stage!r}, output {output!r}, clips {clip_id!r} damaged",
                        [key],
                    )
                shard, slot, _, _ = self.rows[key]
                array[position] = self.shards[shard][slot][output]
        return arrays

    def keys(self) -> list[str]:
        """See `FeatureReader.keys`."""
        return sorted(self.rows, key=lambda key: self.rows[key][:2])

    def __len__(self) -> int:
        return len(self.rows)

    def reserve_shards(self, count: int) -> int:
        """See `FeatureStore.reserve_shards`."""
        if count < 0:
            raise ValueError(f"got a reservation of {count} shards, expected 0 or more")
        self.reserved += count
        return self.reserved - count

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        """See `FeatureStore.write_shard`."""
        check_rows(self.stage, self.specs, self.rows_per_shard, rows)
        for row in rows:
            for output in self.specs:
                check_finite(self.stage, output, row)
        if shard in self.shards:
            raise FileExistsError(f"got shard {shard}, which was written before; reserve another")
        self.shards[shard] = [
            {name: np.array(row.arrays[name]) for name in self.specs} for row in rows
        ]
        self._checks[shard] = [
            {name: crc32c(array.tobytes()) for name, array in arrays.items()}
            for arrays in self.shards[shard]
        ]
        nbytes = len(rows) * sum(spec.row_nbytes for spec in self.specs.values())
        slots = {slot: (row.key, row.info) for slot, row in enumerate(rows)}
        return Receipt(self.stage, self.key, shard, slots, nbytes, dict.fromkeys(self.specs, 0))

    def shard_writer(self) -> "MemoryGeneration":
        """See `FeatureStore.shard_writer`; of use in this process only."""
        return self

    def commit(self, receipts: Sequence[Receipt], failures: Sequence[Failure] = ()) -> None:
        """See `FeatureStore.commit`."""
        for receipt in receipts:
            if (receipt.stage, receipt.key) != (self.stage, self.key):
                raise ValueError(
                    f"got a receipt of stage {receipt.stage!r}, expected {self.stage!r}"
                )
            if not 0 <= receipt.shard < self.reserved:
                raise ValueError(f"got a receipt for shard {receipt.shard}, never reserved")
            if receipt.shard not in self.shards:
                raise FileNotFoundError(f"got a receipt for shard {receipt.shard}, never written")
        for receipt in receipts:
            self._committed.add(receipt.shard)
            for slot, (key, info) in receipt.slots.items():
                checks = self._checks[receipt.shard][slot]
                self.rows.setdefault(key, (receipt.shard, slot, info, checks))
        self._failures.update({failure.row_key: failure for failure in failures})
        for key in self.rows:
            self._failures.pop(key, None)

    def infos(self, keys: Sequence[str]) -> list[RowInfo]:
        """See `FeatureStore.infos`."""
        if missing := self.missing(keys):
            raise MissingRowsError(self.stage, missing)
        return [self.rows[key][2] for key in keys]

    def failures(self) -> list[Failure]:
        """See `FeatureStore.failures`."""
        return [self._failures[key] for key in sorted(self._failures)]

    def clear_failures(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.clear_failures`."""
        for key in keys:
            self._failures.pop(key, None)

    def forget(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.forget`."""
        for key in keys:
            self.rows.pop(key, None)

    def verify(
        self, deep: bool = True, on_read: Callable[[int], None] | None = None
    ) -> list[Problem]:
        """See `FeatureStore.verify`."""
        if not deep:
            return []
        if on_read is not None:
            on_read(len(self) * sum(spec.row_nbytes for spec in self.specs.values()))
        return [
            Problem(
                f"output {output!r}: the checksum does not match; clips {info.clip_id!r}", (key,)
            )
            for key, (_, _, info, _) in self.rows.items()
            for output in self.specs
            if not self._is_intact(key, output)
        ]

    def repair(self, on_read: Callable[[int], None] | None = None) -> list[Problem]:
        """See `FeatureStore.repair`."""
        problems = self.verify(on_read=on_read)
        for problem in problems:
            self.forget(problem.row_keys)
        return problems

    def empty_shards(self) -> list[int]:
        """Return the committed shards that hold no row any more."""
        known = self._committed & self.shards.keys()
        return sorted(known - {shard for shard, *_ in self.rows.values()})

    def _is_intact(self, key: str, output: str) -> bool:
        shard, slot, _, checks = self.rows[key]
        return crc32c(self.shards[shard][slot][output].tobytes()) == checks[output]


class MemoryStore(Store):
    """A store that lives as long as its object."""

    format = "memory"

    def __init__(self, path: Path = Path("memory")) -> None:
        self.path = path
        self._generations: dict[tuple[str, str], MemoryGeneration] = {}
        self._leases: dict[str, Lease] = {}

    def generation(
        self,
        stage: str,
        key: str,
        specs: Mapping[str, ArraySpec] | None = None,
        provenance: Mapping[str, Any] | None = None,
        shard_mib: float = 32,
        compression: str = "none",
    ) -> MemoryGeneration:
        """See `Store.generation`; compression does not matter here."""
        folder = generation_folder(self.path, stage, key)
        generation = self._generations.get((stage, key))
        if generation is None:
            if specs is None:
                raise MissingGenerationError(
                    f"got stage {stage!r} with key {key}, which is not here"
                )
            generation = MemoryGeneration(folder, stage, key, specs, shard_mib)
            generation.provenance = dict(provenance or {})
            self._generations[stage, key] = generation
        if specs is not None and dict(specs) != generation.specs:
            raise ValueError(f"got specs {dict(specs)}, expected {generation.specs}")
        return generation

    def generations(self) -> list[GenerationInfo]:
        """See `Store.generations`."""
        infos = [
            GenerationInfo(
                *(made.stage, made.key, made.path, len(made), len(made.failures())),
                nbytes=sum(a.nbytes for s in made.shards.values() for r in s for a in r.values()),
                created=made.created,
            )
            for made in self._generations.values()
        ]
        return sorted(infos, key=lambda info: (info.stage, info.created))

    def check(self) -> list[Problem]:
        """See `Store.check`; there is nothing that could be."""
        return []

    def repair(self) -> list[Problem]:
        """See `Store.repair`."""
        return []

    def remove(self, stage: str, key: str) -> int:
        """See `Store.remove`; nobody else can be reading."""
        check_free(self.leases(), stage, key)
        nbytes = sum(i.nbytes for i in self.generations() if (i.stage, i.key) == (stage, key))
        if self._generations.pop((stage, key), None) is None:
            raise MissingGenerationError(f"got stage {stage!r} with key {key}, which is not here")
        return nbytes

    def leftovers(self) -> list[Leftovers]:
        """See `Store.leftovers`."""
        found = []
        for generation in self._generations.values():
            empty = generation.empty_shards()
            nbytes = sum(a.nbytes for s in empty for r in generation.shards[s] for a in r.values())
            if empty:
                found.append(Leftovers(generation.stage, generation.key, len(empty), nbytes))
        return found

    def remove_leftovers(self, leftovers: Leftovers) -> int:
        """See `Store.remove_leftovers`."""
        check_free(self.leases(), leftovers.stage, leftovers.key)
        generation = self._generations[leftovers.stage, leftovers.key]
        for shard in generation.empty_shards():
            del generation.shards[shard]
        return leftovers.nbytes

    def lease(self, name: str, shards: Iterable[ShardRange]) -> Lease:
        """See `Store.lease`; a note and nothing more, since nobody else can be writing."""
        if name in self._leases:
            raise FileExistsError(f"got lease {name!r}, which is there already; name another")
        lease = Lease(name, datetime.now(UTC).isoformat(), tuple(shards))
        if any(
            r.first + r.count > self._generations[r.stage, r.key].reserved for r in lease.shards
        ):
            raise ValueError(f"got {lease.shards}, expected reserved shards")
        return self._leases.setdefault(name, lease)

    def release(self, name: str) -> None:
        """See `Store.release`."""
        self._leases.pop(name, None)

    def leases(self) -> list[Lease]:
        """See `Store.leases`."""
        return [self._leases[name] for name in sorted(self._leases)]

    def close(self) -> None:
        """See `Store.close`; nothing to do."""
