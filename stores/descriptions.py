"""stage.json and its copy in the manifest: without it no row of a generation can be read."""

import logging
from pathlib import Path

from stores.documents import holds
from stores.durable import make_folder, replace_file
from stores.layout import STAGE_FILE, generation_folder, read_layout
from stores.manifest import Manifest
from stores.manifest_db import ManifestError
from stores.manifest_writer import ManifestWriter
from stores.quarantine import QUARANTINE, move_free
from stores.records import Problem

logger = logging.getLogger(__name__)


def check_store(root: Path, manifest: Manifest) -> list[Problem]:
    """Check the manifest as a file, and that the generations it knows can be opened."""
    try:
        manifest.check()
        known = manifest.generations(root)
        documents = {(stage, key): text for stage, key, text in manifest.descriptions()}
    except (ManifestError, FileNotFoundError) as error:
        return [Problem(str(error))]
    rows = {info.path: f"{info.rows:,} rows of stage {info.stage!r}" for info in known}
    found = {path.parent for path in root.glob(f"*/[!.]*/{STAGE_FILE}")}
    problems = []
    for folder in (*rows, *sorted(found - rows.keys())):
        path, cost = folder / STAGE_FILE, f"{rows.get(folder, 'its rows')} cannot be read"
        try:
            layout = read_layout(folder)
        except FileNotFoundError:
            problems.append(Problem(f"{path}: the file is gone; {cost}"))
        except ValueError as error:
            problems.append(Problem(f"{error}; {cost}"))
        else:
            document = documents.get((layout.stage, layout.key))
            if document is not None and not holds(path, document):
                problems.append(Problem(f"{path}: it is not what was written; {cost} for sure"))
    return problems


def restore_descriptions(root: Path, manifest: Manifest) -> None:
    """Write each stage.json that is lost or changed again; what was there is kept aside."""
    for stage, key, document in manifest.descriptions():
        folder = generation_folder(root, stage, key)
        path = folder / STAGE_FILE
        if not folder.is_dir() or holds(path, document):
            continue
        if path.exists():
            make_folder(folder / QUARANTINE)
            move_free(path, folder / QUARANTINE / STAGE_FILE)
        replace_file(path, document, durable=True)
        logger.warning("%s was not what was written; restored it from the manifest", path)


def forget_lost_generations(root: Path, manifest: ManifestWriter) -> list[Problem]:
    """Let the manifest forget generations whose whole folder is gone; return them."""
    lost = [info for info in manifest.generations(root) if not info.path.exists()]
    for info in lost:
        manifest.unregister(info.stage, info.key)
    return [
        Problem(
            f"{info.path}: the folder is gone, and {info.rows:,} rows of {info.stage!r} with it"
        )
        for info in lost
    ]
