"""Where files go that nothing could be made of: aside, never away."""

import itertools
import os
from pathlib import Path

from stores.durable import make_folder, sync_folder
from stores.formats import shard_format
from stores.layout import GenerationLayout

QUARANTINE = ".quarantine"


def quarantine_shard(layout: GenerationLayout, shard: int) -> None:
    """Move what there is of a shard's files out of the way, durably."""
    form = shard_format(layout.format)
    for part in form.parts(layout):
        path = form.path(layout, part, shard)
        if path.exists():
            make_folder(layout.path / QUARANTINE)
            move_free(path, layout.path / QUARANTINE / f"{part}.{path.name}")
            sync_folder(layout.path / QUARANTINE)
            sync_folder(path.parent)


def move_free(source: Path, target: Path) -> None:
    """Rename to `target`, with a number behind it where that is taken."""
    names = itertools.chain([target], (Path(f"{target}.{n}") for n in itertools.count(1)))
    os.rename(source, next(name for name in names if not name.exists()))
