"""`symbio store convert` and `export`, between the command line and the stores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipeline.identity import MEMO_NAME
from pipeline.store_commands import MAX_CLIPS_SHOWN
from stores.base import FeatureStore, Store
from stores.convert import Conversion, convert_store
from stores.durable import replace_file
from stores.export import select_rows
from stores.export_npy import export_npy
from stores.hdf5_export import export_hdf5
from stores.records import name_some
from stores.registry import open_store

__all__ = ["convert_stores", "export_rows"]


def convert_stores(
    source: Path,
    target: Path,
    console: Console,
    format: str,
    *,
    compression: str,
    shard_mib: float | None,
) -> bool:
    """Convert a store; return whether every row is in the target."""

    def show(done: Conversion) -> None:
        line = f"{done.stage} {done.key[:12]}: {done.rows:,} rows, {done.copied:,} copied now"
        console.print(line, markup=False)
        if done.damaged_clips:
            named = name_some(list(done.damaged_clips), MAX_CLIPS_SHOWN)
            line = (
                f"{done.stage}: {len(done.damaged_clips):,} rows are damaged in {source}: {named}"
            )
            console.print(Text(line, style="red"))

    conversions = convert_store(
        source,
        target,
        format,
        compression=compression,
        shard_mib=shard_mib,
        on_generation=show,
    )
    # What the content of videos is called: rows of videos that are gone are found by it.
    memo, copy = source / MEMO_NAME, target / MEMO_NAME
    if memo.exists() and not copy.exists():
        replace_file(copy, memo.read_bytes(), durable=False)
    return not any(done.damaged_clips for done in conversions)


def export_rows(
    path: Path,
    out: Path,
    console: Console,
    *,
    stage: str,
    key: str,
    outputs: Sequence[str],
    clips: Sequence[str],
    videos: Sequence[str],
    rows_file: Path | None,
    form: str,
) -> None:
    """Write rows of a stage to a folder or file.

    Raises:
        ValueError: unknown stage, key, output, clip or video, or several keys.
        FileExistsError: `out` is there.
    """
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(path)):
        raise ValueError(f"got {out} in the store {path}, expected a place outside of it")
    chosen = [*clips, *([] if rows_file is None else _read_ids(rows_file))]
    with open_store(path, mode="r") as store:
        made = _find_generation(store, stage, key)
        rows = select_rows(made, chosen, videos)
        write = export_npy if form == "npy" else export_hdf5
        write(made, rows, out, outputs)
        console.print(
            f"exported {len(rows):,} rows of {stage} {made.key[:12]} to {out}", markup=False
        )


def _read_ids(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").split("\n")
    ids = [line.removesuffix("\r") for line in lines if line.strip()]
    if not ids:
        raise ValueError(f"got no clip ids in {file}, expected one a line")
    return ids


def _find_generation(store: Store, stage: str, prefix: str) -> FeatureStore:
    held = store.generations()
    found = [info for info in held if info.stage == stage and info.key.startswith(prefix)]
    if len(found) == 1:
        return store.generation(stage, found[0].key)
    if found:
        keys = ", ".join(info.key[:12] for info in found)
        raise ValueError(f"got {len(found)} keys of stage {stage!r}: {keys}; choose one with --key")
    names = ", ".join(f"{info.stage} {info.key[:12]}" for info in held) or "none yet"
    raise ValueError(f"got stage {stage!r} with key {prefix or 'any'!r}, expected one of: {names}")
