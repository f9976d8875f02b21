"""Bringing a store back in order when it is opened for writing.

What a crash can leave behind, and what becomes of it:
    temporary files                               removed
    generations that were being removed           removed
    complete shards the manifest never heard of   adopted, row by row where the checksum holds
    other shard files it never heard of           moved to `.quarantine`, never deleted
    a lost or damaged manifest                    rebuilt: every shard is then unheard of
    a lost or changed stage.json                  written again, from its copy in the manifest
    zarr.json or rows.csv behind the manifest     written again
    names that only the page cache knows          synced, before anything is built on them

Shards under a lease, which somebody may be writing now, and their temporary files stay as they are.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stores.descriptions import restore_descriptions
from stores.documents import write_documents
from stores.durable import make_folder, sweep_temps, sync_folder
from stores.formats import shard_format
from stores.index_file import write_index
from stores.infos import Lease, end_of_leases
from stores.layout import STAGE_FILE, GenerationLayout, read_layout
from stores.leases import read_leases, sweep_leases
from stores.manifest_db import SIDE_SUFFIXES, DamagedManifestError
from stores.manifest_writer import ManifestWriter
from stores.quarantine import QUARANTINE, move_free, quarantine_shard
from stores.records import Receipt
from stores.removal import sweep_trash
from stores.rows_csv import has_rows_csv, write_rows_csv
from stores.shard_format import DamagedShardError, shards_on_disk
from stores.shard_set import intact_part

logger = logging.getLogger(__name__)


def recover(root: Path, manifest_path: Path, *, recheck: bool = False) -> ManifestWriter:
    """Bring a store in order and return its manifest; call with the writer lock held.

    Args:
        recheck: look at the record of every row, instead of believing index.bin.

    Raises:
        NotADirectoryError: a folder of the store was exchanged for a symbolic link.
    """
    _settle(root)
    if not manifest_path.exists():
        # The log of a manifest that is gone must not be taken for that of the new one.
        _put_aside(manifest_path, SIDE_SUFFIXES)
    try:
        return _open_and_reconcile(root, manifest_path, recheck)
    except DamagedManifestError as error:
        _put_aside(manifest_path, ("", *SIDE_SUFFIXES))
        logger.warning("%s; this is done now, and the file kept as *.damaged", error)
        return _open_and_reconcile(root, manifest_path, recheck)


def _open_and_reconcile(root: Path, manifest_path: Path, recheck: bool) -> ManifestWriter:
    manifest = ManifestWriter(manifest_path)
    try:
        _reconcile(root, manifest, recheck)
    except BaseException:
        manifest.close()
        raise
    return manifest


def _reconcile(root: Path, manifest: ManifestWriter, recheck: bool) -> None:
    """Make manifest and folders agree."""
    restore_descriptions(root, manifest)
    sweep_leases(root)
    leases = read_leases(root)
    for lease in leases:
        if lease.damage:
            logger.warning("%s", lease.damage)
    for stage in _folders(root):
        sweep_temps(stage)
        sweep_trash(stage)
        for folder in _folders(stage):
            layout = _read_layout(folder)
            _sweep_generation(folder, layout, leases)
            sync_folder(folder)
            if layout is not None:
                _register(root, layout, manifest)
                _reconcile_generation(layout, manifest, leases, recheck)


def _read_layout(folder: Path) -> GenerationLayout | None:
    if not (folder / STAGE_FILE).exists():
        return None
    try:
        return read_layout(folder)
    except ValueError as error:
        logger.warning("%s", error)
        return None


def _settle(folder: Path) -> None:
    sweep_temps(folder)
    sync_folder(folder)


def _sweep_generation(
    folder: Path, layout: GenerationLayout | None, leases: Sequence[Lease]
) -> None:
    """Remove temporary files, but for those of leased shards."""
    for place in (folder, *_folders(folder)):

        def is_leased(name: str, place: Path = place) -> bool:
            if layout is None:  # whose file that is cannot be told
                return bool(leases)
            form = shard_format(layout.format)
            parts = (p for p in form.parts(layout) if form.path(layout, p, 0).parent == place)
            shards = (form.shard_number(layout, part, name) for part in parts)
            return any(_is_leased(layout, s, leases) for s in shards if s is not None)

        sweep_temps(place, keep=is_leased)


def _is_leased(layout: GenerationLayout, shard: int, leases: Sequence[Lease]) -> bool:
    return any(lease.covers(layout.stage, layout.key, shard) for lease in leases)


def _register(root: Path, layout: GenerationLayout, manifest: ManifestWriter) -> None:
    for place in shard_format(layout.format).folders(layout):
        make_folder(place)
    document = (layout.path / STAGE_FILE).read_bytes()
    path = str(layout.path.relative_to(root))
    manifest.register(layout.stage, layout.key, path, layout.created, document)


def _reconcile_generation(
    layout: GenerationLayout, manifest: ManifestWriter, leases: Sequence[Lease], recheck: bool
) -> None:
    stage, key, per_shard = layout.stage, layout.key, layout.rows_per_shard
    form = shard_format(layout.format)
    index, known, is_saved = manifest.load(stage, key, per_shard, from_file=not recheck)
    # After the loss of a manifest, a number that is on lease must not be handed out again.
    manifest.reserve(stage, key, 0, at_least=end_of_leases(leases, stage, key))
    found = shards_on_disk(form, layout).keys() - known.keys()
    unheard_of = sorted(shard for shard in found if not _is_leased(layout, shard, leases))
    if unheard_of:
        for place in form.folders(layout):
            sync_folder(place)
        adopted = [_adopt(layout, shard) for shard in unheard_of]
        receipts = [receipt for receipt in adopted if receipt is not None]
        if receipts:
            manifest.reserve(stage, key, 0, at_least=max(receipt.shard for receipt in receipts) + 1)
        manifest.commit(stage, key, receipts, [])
        index, _, is_saved = manifest.load(stage, key, per_shard)
    write_documents(layout, index.end)
    if not is_saved:
        write_index(layout.path, index)
    if not has_rows_csv(layout, manifest):
        write_rows_csv(layout, manifest)


def _adopt(layout: GenerationLayout, shard: int) -> Receipt | None:
    """Return a receipt for the intact rows of a shard; put a useless shard aside."""
    try:
        receipt = intact_part(layout, shard)
    except DamagedShardError as error:
        quarantine_shard(layout, shard)
        logger.warning(
            "got shard %d of stage %r not committed and not whole (%s: %s); moved it to %s, and "
            "its rows will be computed again",
            shard,
            layout.stage,
            error.path,
            error.reason,
            layout.path / QUARANTINE,
        )
        return None
    logger.info("took in shard %d of stage %r: %d rows", shard, layout.stage, len(receipt.slots))
    return receipt


def _put_aside(path: Path, suffixes: Iterable[str]) -> None:
    for suffix in suffixes:
        side = Path(f"{path}{suffix}")
        if side.exists():
            move_free(side, side.with_name(f"{side.name}.damaged"))


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in `folder` that can be ours: links and dotted names are not."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield folder / entry.name
