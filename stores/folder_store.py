"""A store in a folder, in any of the formats.

<root>/symbio.json       marks the folder as ours
<root>/.lock             held by the one writer
<root>/manifest.sqlite   which rows exist
<root>/.leases/          what is written meanwhile by others, see `stores.leases`
<root>/<stage>/<key>/    one generation, see `stores.layout`

In a Zarr store each folder also has a zarr.json, so that Zarr readers walk through all of it.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stores.base import (
    GenerationInfo,
    Lease,
    Leftovers,
    MissingGenerationError,
    ShardRange,
    Store,
    read_only_error,
)
from stores.checks import rows_per_shard
from stores.compression import check_compression
from stores.descriptions import check_store, forget_lost_generations
from stores.documents import write_documents
from stores.durable import make_folder, make_root, open_folder, replace_file
from stores.folder_generation import FolderGeneration
from stores.formats import shard_format
from stores.infos import check_free, end_of_leases
from stores.layout import STAGE_FILE, GenerationLayout, generation_folder, read_layout
from stores.leases import read_leases, remove_lease, write_lease
from stores.lock import WriterLock
from stores.manifest import Manifest
from stores.manifest_db import MANIFEST_FILE
from stores.manifest_writer import ManifestWriter
from stores.marker import check_free_or_ours, check_marker, write_marker
from stores.records import ArraySpec, Problem, check_specs
from stores.recovery import recover
from stores.removal import list_leftovers, remove_generation, remove_leftovers
from stores.shard_format import shards_on_disk
from stores.storage import needing_storage


class FolderStore(Store):
    """Opens a store, and creates it where mode is "a" and the folder is new or empty.

    Args:
        mode: "r" to read, "a" to read and write; one process at a time may write.
        format: of the store, one of `FORMATS`.
        verify_every_read: compare checksums at each read, not only on first touch.
        recheck: see `open_store`.

    Raises:
        FileNotFoundError: mode "r", and there is no store.
        FileExistsError: the folder holds things and is not a store.
        StoreLockedError: mode "a", and somebody else is writing.
    """

    def __init__(
        self, path: Path, mode: str, format: str, *, verify_every_read: bool, recheck: bool
    ) -> None:
        # Absolute, so that the store can be read after a change of folder and in workers.
        self.path = Path(os.path.realpath(path))
        self.format = format
        self._verify_every_read = verify_every_read
        self._open: dict[tuple[str, str], FolderGeneration] = {}
        self._lock: WriterLock | None = None
        self._writer: ManifestWriter | None = None
        self._manifest = Manifest(self.path / MANIFEST_FILE)
        if mode == "r":
            check_marker(self.path, self.format)
        else:
            self._open_for_writing(recheck)

    def _open_for_writing(self, recheck: bool) -> None:
        check_free_or_ours(self.path, self.format)
        make_root(self.path)
        self._lock = WriterLock(self.path)
        try:
            write_marker(self.path, self.format)
            self._writer = recover(self.path, self.path / MANIFEST_FILE, recheck=recheck)
        except BaseException:
            self._lock.release()
            raise

    def generation(
        self,
        stage: str,
        key: str,
        specs: Mapping[str, ArraySpec] | None = None,
        provenance: Mapping[str, Any] | None = None,
        shard_mib: float = 32,
        compression: str = "none",
    ) -> FolderGeneration:
        """See `Store.generation`; the same object comes back each time."""
        folder = generation_folder(self.path, stage, key)
        generation = self._open.get((stage, key))
        if generation is None:
            if (folder / STAGE_FILE).exists():
                layout = self._read_layout(folder, key)
            elif specs is None:
                held = ", ".join(f"{info.stage} {info.key[:12]}" for info in self.generations())
                raise MissingGenerationError(
                    f"got stage {stage!r} with key {key}, expected one of: {held or 'none yet'}"
                )
            else:
                layout = self._create(
                    GenerationLayout(
                        path=folder,
                        stage=stage,
                        key=key,
                        specs=check_specs(specs),
                        rows_per_shard=rows_per_shard(specs, shard_mib),
                        created=datetime.now(UTC).isoformat(timespec="microseconds"),
                        provenance=dict(provenance or {}),
                        format=self.format,
                        compression=check_compression(compression),
                    )
                )
            generation = self._open[stage, key] = FolderGeneration(
                layout, self._manifest, self._writer, verify_every_read=self._verify_every_read
            )
        if specs is not None and dict(specs) != generation.specs:
            raise ValueError(
                f"got specs {dict(specs)} for {folder}, expected those it was made with: "
                f"{generation.specs}; raise the stage's version to get another key"
            )
        return generation

    def generations(self) -> list[GenerationInfo]:
        """See `Store.generations`."""
        known = self._manifest.generations(self.path)
        return [info for info in known if (info.path / STAGE_FILE).exists()]

    def check(self) -> list[Problem]:
        """See `Store.check`."""
        damaged = [Problem(lease.damage) for lease in self.leases() if lease.damage]
        return check_store(self.path, self._manifest) + damaged

    def repair(self) -> list[Problem]:
        """See `Store.repair`."""
        return forget_lost_generations(self.path, self._writing())

    def remove(self, stage: str, key: str) -> int:
        """See `Store.remove`."""
        writer = self._writing()
        check_free(self.leases(), stage, key)
        self._let_go(stage, key)
        return remove_generation(self.path, stage, key, writer)

    def leftovers(self) -> list[Leftovers]:
        """See `Store.leftovers`."""
        return list_leftovers(self.path, self._manifest)

    def remove_leftovers(self, leftovers: Leftovers) -> int:
        """See `Store.remove_leftovers`."""
        writer = self._writing()
        if leftovers.stage:
            check_free(self.leases(), leftovers.stage, leftovers.key)
        self._let_go(leftovers.stage, leftovers.key)
        return remove_leftovers(self.path, writer, leftovers)

    def lease(self, name: str, shards: Iterable[ShardRange]) -> Lease:
        """See `Store.lease`."""
        writer, listed = self._writing(), list(shards)
        with needing_storage(self.path):
            for leased in listed:
                end = writer.next_shard(leased.stage, leased.key)
                if leased.first + leased.count > end:
                    raise ValueError(f"got {leased}, expected some of the {end} reserved shards")
            return write_lease(self.path, name, listed)

    def release(self, name: str) -> None:
        """See `Store.release`."""
        self._writing()
        with needing_storage(self.path):
            remove_lease(self.path, name)

    def leases(self) -> list[Lease]:
        """See `Store.leases`."""
        return read_leases(self.path)

    def close(self) -> None:
        """See `Store.close`."""
        with ExitStack() as stack:
            if self._lock is not None:
                stack.callback(self._lock.release)
            if self._writer is not None:
                stack.callback(self._writer.close)
            while self._open:
                stack.callback(self._open.popitem()[1].close)

    def _writing(self) -> ManifestWriter:
        if self._writer is None:
            raise read_only_error(self.path)
        return self._writer

    def _let_go(self, stage: str, key: str) -> None:
        """Close our own view of a generation, which otherwise counts as somebody reading it."""
        generation = self._open.pop((stage, key), None)
        if generation is not None:
            generation.close()

    def _read_layout(self, folder: Path, key: str) -> GenerationLayout:
        layout = read_layout(folder)
        if layout.key != key:
            raise ValueError(
                f"got key {key}, whose folder {folder} belongs to key {layout.key}; move that "
                "folder out of the store"
            )
        if layout.format != self.format:
            raise ValueError(
                f"got {folder} of format {layout.format!r} in a store of format {self.format!r}; "
                "move that folder out of the store"
            )
        if self._writer is not None:
            for place in (folder.parent, folder):
                with open_folder(place):
                    pass
        return layout

    def _create(self, layout: GenerationLayout) -> GenerationLayout:
        """Make the folders and documents of a new generation; stage.json comes last."""
        writer = self._writing()
        document = layout.encode()
        form = shard_format(layout.format)
        for folder in (layout.path.parent, layout.path, *form.folders(layout)):
            make_folder(folder)
        if shards_on_disk(form, layout):
            raise FileExistsError(
                f"got shards in {layout.path} and no {STAGE_FILE}, expected both or neither; "
                "restore that file, or move the folder out of the store"
            )
        # Rows of an earlier folder of this name, which somebody removed.
        writer.unregister(layout.stage, layout.key)
        write_documents(layout, 0)
        replace_file(layout.path / STAGE_FILE, document, durable=True)
        relative = layout.path.relative_to(self.path)
        writer.register(layout.stage, layout.key, str(relative), layout.created, document)
        on_lease = end_of_leases(read_leases(self.path), layout.stage, layout.key)
        writer.reserve(layout.stage, layout.key, 0, at_least=on_lease)
        return read_layout(layout.path)
