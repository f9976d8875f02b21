"""Deleting for good: whole generations, and files in which no row lives any more.

A generation is forgotten first, then renamed so that no name leads to it, then deleted. A crash
in between leaves a generation that is taken in again, or a folder that the next writer sweeps.
"""

import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from stores.base import Leftovers
from stores.durable import open_folder, sync_folder
from stores.errors import MissingGenerationError
from stores.formats import shard_format
from stores.layout import STAGE_FILE, GenerationLayout, generation_folder, read_layout
from stores.lock import without_readers
from stores.manifest import Manifest
from stores.manifest_db import MANIFEST_FILE
from stores.manifest_writer import ManifestWriter
from stores.quarantine import QUARANTINE

_TRASH = re.compile(r"\.trash\.[0-9a-f]{32}")


def remove_generation(root: Path, stage: str, key: str, manifest: ManifestWriter) -> int:
    """Delete a generation; return how many bytes that freed.

    Raises:
        MissingGenerationError: there is none.
        GenerationInUseError: somebody reads it.
        NotADirectoryError: its folder was exchanged for a symbolic link.
    """
    folder = generation_folder(root, stage, key)
    if not folder.exists():
        raise MissingGenerationError(f"got stage {stage!r} with key {key}, expected one in {root}")
    with open_folder(folder.parent) as parent, without_readers(folder / STAGE_FILE):
        with open_folder(folder):
            nbytes = _nbytes([path for path in folder.rglob("*")])
        manifest.unregister(stage, key)
        trash = folder.with_name(f".trash.{uuid.uuid4().hex}")
        os.rename(folder, trash)
        os.fsync(parent)
        shutil.rmtree(trash)
    return nbytes


def sweep_trash(folder: Path) -> None:
    """Delete what a crash left of generations of a stage that were being removed."""
    for entry in os.scandir(folder):
        if _TRASH.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)


def list_leftovers(root: Path, manifest: Manifest) -> list[Leftovers]:
    """List the files that hold no row any more, by generation."""
    found = [("", "", _damaged_manifests(root))]
    for info in manifest.generations(root):
        with suppress(FileNotFoundError, ValueError):  # `check` names those
            files = _files_without_rows(read_layout(info.path), manifest)
            found.append((info.stage, info.key, files))
    return [
        Leftovers(stage, key, len(files), _nbytes(files)) for stage, key, files in found if files
    ]


def remove_leftovers(root: Path, manifest: ManifestWriter, leftovers: Leftovers) -> int:
    """Delete them; return how many bytes that freed.

    Raises:
        GenerationInUseError: somebody reads the generation.
    """
    if not leftovers.stage:
        return _unlink(_damaged_manifests(root))
    folder = generation_folder(root, leftovers.stage, leftovers.key)
    with without_readers(folder / STAGE_FILE):
        layout = read_layout(folder)
        empty = manifest.empty_shards(layout.stage, layout.key)
        nbytes = _unlink(_files_without_rows(layout, manifest))
        # Last: a shard that the manifest does not know would be taken in, forgotten rows and all.
        manifest.drop(layout.stage, layout.key, [], empty)
    return nbytes


def _files_without_rows(layout: GenerationLayout, manifest: Manifest) -> list[Path]:
    form = shard_format(layout.format)
    shards = manifest.empty_shards(layout.stage, layout.key)
    files = [form.path(layout, part, shard) for shard in shards for part in form.parts(layout)]
    quarantine = layout.path / QUARANTINE
    if quarantine.is_dir() and not quarantine.is_symlink():
        files += [path for path in quarantine.rglob("*") if not path.is_dir()]
    return [path for path in files if path.exists()]


def _damaged_manifests(root: Path) -> list[Path]:
    return [path for path in root.glob(f"{MANIFEST_FILE}*.damaged*") if path.is_file()]


def _nbytes(paths: list[Path]) -> int:
    return sum(path.lstat().st_size for path in paths if not path.is_dir())


def _unlink(paths: list[Path]) -> int:
    """Delete files durably; return how many bytes that freed."""
    nbytes = _nbytes(paths)
    for path in paths:
        path.unlink()
    for folder in {path.parent for path in paths}:
        sync_folder(folder)
    return nbytes
