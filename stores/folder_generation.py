"""One generation in a folder: the contract of `FeatureStore` over shards and manifest."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.base import CorruptRowError, FeatureStore, MissingRowsError, read_only_error
from stores.checks import allocate, wanted_outputs
from stores.documents import NowAndThen, write_documents
from stores.formats import shard_format
from stores.index_file import write_index
from stores.layout import STAGE_FILE, GenerationLayout
from stores.lock import ReaderLock
from stores.manifest import LoadedRows, Manifest
from stores.manifest_db import DamagedManifestError, advice
from stores.manifest_writer import ManifestWriter
from stores.records import Failure, Problem, Receipt, Row, RowInfo, name_some
from stores.repair import repair_generation, rewrite_shards
from stores.row_index import RowIndex
from stores.row_keys import pack_keys, packed_array
from stores.rows_csv import write_rows_csv
from stores.shard_files import ShardFiles
from stores.shard_format import DamagedShardError, part_of
from stores.shard_set import ShardSetWriter
from stores.storage import needing_storage
from stores.verify import verify_generation

SECONDS_BETWEEN_CSV = 60.0


class FolderGeneration(FeatureStore):
    """Reads with or without a writer elsewhere; writes where `writer` is given.

    A reader sees the rows that were committed when it first looked; open the store again to
    see later ones. Pickled, it travels as a reader.
    """

    def __init__(
        self,
        layout: GenerationLayout,
        manifest: Manifest,
        writer: ManifestWriter | None,
        *,
        verify_every_read: bool,
    ) -> None:
        self.layout = layout
        self.stage = layout.stage
        self.key = layout.key
        self.path = layout.path
        self.specs = layout.specs
        self.rows_per_shard = layout.rows_per_shard
        self.provenance = layout.provenance
        self.compression = layout.compression
        self._form = shard_format(layout.format)
        self._manifest = manifest
        self._writer = writer
        self._files = ShardFiles(layout, verify_every_read=verify_every_read)
        self._loaded: LoadedRows | None = None
        self._is_saved = True  # index.bin holds all that was committed through this object
        self._guard: ReaderLock | None = None  # taken before anything is read
        self._changing = threading.RLock()
        self._documents = NowAndThen(0)
        self._listing = NowAndThen(SECONDS_BETWEEN_CSV)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writer": None, "_changing": None, "_guard": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _changing=threading.RLock())

    # ---- reading

    def missing(self, keys: Iterable[str]) -> list[str]:
        """See `FeatureReader.missing`."""
        asked = list(dict.fromkeys(keys))
        return [asked[place] for place in np.flatnonzero(~self.holds(packed_array(asked)))]

    def holds(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """See `FeatureReader.holds`."""
        held: NDArray[np.bool_] = self._index.numbers_of_packed(keys) >= 0
        return held

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `FeatureReader.read`."""
        index, checks, _ = self._load()
        numbers = index.numbers_of(keys)
        if (numbers < 0).any():
            raise MissingRowsError(self.stage, self.missing(keys))
        order = np.argsort(numbers, kind="stable")
        shards, slots = np.divmod(numbers[order], self.rows_per_shard)
        places = list(zip(shards.tolist(), slots.tolist(), order.tolist(), strict=True))
        names = wanted_outputs(self.specs, outputs, out)
        arrays: dict[str, NDArray[Any]] = {}
        output = ""
        try:
            # A description that lies about sizes must not make us allocate what it says.
            for output in names if places else ():
                self._files.look_at(output, places[0][0], checks)
            arrays = allocate(self.specs, len(keys), names, out)
            for output, array in arrays.items():
                self._files.read(output, places, checks, array)
        except DamagedShardError as error:
            with self._needing_storage():
                pass  # otherwise files are gone because all is gone
            raise self._corrupt(error, keys, places, output) from error
        return arrays

    def keys(self) -> list[str]:
        """See `FeatureReader.keys`."""
        return self._index.keys()

    def __len__(self) -> int:
        return len(self._index)

    # ---- writing

    def reserve_shards(self, count: int) -> int:
        """See `FeatureStore.reserve_shards`."""
        if count < 0:
            raise ValueError(f"got a reservation of {count} shards, expected 0 or more")
        manifest = self._writing()
        with self._needing_storage():
            return manifest.reserve(self.stage, self.key, count)

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        """See `FeatureStore.write_shard`."""
        self._writing()
        return self.shard_writer().write_shard(shard, rows)

    def shard_writer(self) -> ShardSetWriter:
        """See `FeatureStore.shard_writer`; this one may be pickled."""
        return ShardSetWriter(self.layout)

    def commit(self, receipts: Sequence[Receipt], failures: Sequence[Failure] = ()) -> None:
        """See `FeatureStore.commit`.

        Raises:
            ValueError: a receipt of another generation, or for a shard never reserved.
            FileNotFoundError: a receipt for a file that is not there.
        """
        manifest = self._writing()
        with self._needing_storage(), self._changing:
            for receipt in receipts:
                self._check_receipt(receipt)
            index, checks, _ = self._load()
            manifest.commit(self.stage, self.key, receipts, failures)
            self._is_saved = self._is_saved and not receipts
            for receipt in receipts:
                checks.setdefault(receipt.shard, dict(receipt.checks))
                first = receipt.shard * self.rows_per_shard
                packed = pack_keys(key for key, _ in receipt.slots.values())
                index.add(packed, [first + slot for slot in receipt.slots])
            self._documents.write_if_due(lambda: write_documents(self.layout, index.end))
            self._listing.write_if_due(lambda: write_rows_csv(self.layout, manifest))

    def clear_failures(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.clear_failures`."""
        manifest = self._writing()
        with self._needing_storage():
            manifest.delete("failures", self.stage, self.key, keys)

    def forget(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.forget`; the bytes stay in their shards until those are removed."""
        manifest = self._writing()
        gone = list(keys)
        with self._needing_storage(), self._changing:
            manifest.delete("rows", self.stage, self.key, gone)
            self._is_saved = False
            self._index.remove(gone)
            write_documents(self.layout, self._index.end)

    # ---- looking after it

    def infos(self, keys: Sequence[str]) -> list[RowInfo]:
        """See `FeatureStore.infos`."""
        with self._needing_storage():
            found = self._manifest.infos(self.stage, self.key, keys)
        if len(found) < len(keys):
            if missing := self.missing(keys):
                raise MissingRowsError(self.stage, missing)
            raise DamagedManifestError(  # index.bin knows better
                f"got no record of a row of {self.stage!r} in {advice(self._manifest.path)}"
            )
        return found

    def failures(self) -> list[Failure]:
        """See `FeatureStore.failures`."""
        with self._needing_storage():
            return self._manifest.failures(self.stage, self.key)

    def verify(
        self, deep: bool = True, on_read: Callable[[int], None] | None = None
    ) -> list[Problem]:
        """See `FeatureStore.verify`."""
        return verify_generation(self.layout, self._manifest, deep=deep, on_read=on_read)

    def repair(self, on_read: Callable[[int], None] | None = None) -> list[Problem]:
        """See `FeatureStore.repair`."""
        manifest = self._writing()
        with self._changing:
            problems = repair_generation(self.layout, manifest, on_read)
            self._files.close()
            self._loaded, self._is_saved = None, False
            rewrite_shards(self, self.layout, manifest, problems)
            self._loaded = None
            write_documents(self.layout, self._index.end)
        return problems

    def close(self) -> None:
        """Write index.bin and rows.csv where rows changed, and close files; the store does this."""
        self._files.close()
        self._guard = None
        if self._writer is None:
            return
        with self._needing_storage(), self._changing:
            if self._loaded and not self._is_saved:
                write_documents(self.layout, self._loaded.rows.end)
                write_index(self.path, self._loaded.rows)
                self._is_saved = True
            if self._manifest.csv_crc(self.stage, self.key) is None:
                write_rows_csv(self.layout, self._writer)

    def _load(self) -> LoadedRows:
        if self._guard is None:
            self._guard = ReaderLock(self.path / STAGE_FILE)
        if self._loaded is None:
            with self._changing:
                manifest = self._writer or self._manifest
                self._loaded = manifest.load(self.stage, self.key, self.rows_per_shard)
        return self._loaded

    @property
    def _index(self) -> RowIndex:
        return self._load().rows

    def _needing_storage(self) -> AbstractContextManager[None]:
        on_loss = self._writer.reconnect_later if self._writer else None
        return needing_storage(self.layout.root, on_loss)

    def _writing(self) -> ManifestWriter:
        if self._writer is None:
            raise read_only_error(self.path)
        return self._writer

    def _check_receipt(self, receipt: Receipt) -> None:
        if (receipt.stage, receipt.key) != (self.stage, self.key):
            raise ValueError(
                f"got a receipt of stage {receipt.stage!r} with key {receipt.key}, expected "
                f"{self.stage!r} with key {self.key}"
            )
        for part in self._form.parts(self.layout):
            path = self._form.path(self.layout, part, receipt.shard)
            if not path.is_file():
                raise FileNotFoundError(f"got a receipt for {path}, which is not there")

    def _corrupt(
        self,
        error: DamagedShardError,
        keys: Sequence[str],
        places: Sequence[tuple[int, int, int]],
        output: str,
    ) -> CorruptRowError:
        """Return the error that names the clips which damage to a file costs this batch."""
        part = part_of(self._form, self.layout, output)
        hit = [
            keys[position]
            for shard, slot, position in places
            if self._form.path(self.layout, part, shard) == error.path
            and (error.slots is None or slot in error.slots)
        ]
        clips = [i.clip_id for i in self._manifest.infos(self.stage, self.key, dict.fromkeys(hit))]
        return CorruptRowError(
            f"got stage {self.stage!r}, output {output!r}, clips {name_some(clips)} damaged: "
            f"{error.path}: {error.reason}; verify the store, forget these rows and extract them "
            "again",
            list(dict.fromkeys(hit)),
        )
