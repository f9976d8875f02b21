"""Reaching into the files of a store, of whatever format, to damage them on purpose."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from store_suite import make_key

from stores.formats import shard_format
from stores.manifest_records import seal
from stores.shard_format import part_of

__all__ = ["change_manifest", "damage_row", "files_of", "flip", "place_of"]


def files_of(made: Any, shard: int) -> list[Path]:
    """The files of a shard of a generation, the one that lists the rows first."""
    form = shard_format(made.layout.format)
    return [form.path(made.layout, part, shard) for part in form.parts(made.layout)]


def place_of(made: Any, output: str, number: int) -> tuple[Path, int, int]:
    """File, offset and size of the stored values of row `number`."""
    connection = sqlite3.connect(made.path.parent.parent / "manifest.sqlite")
    shard, slot = connection.execute(
        "SELECT shard, slot FROM rows JOIN generations ON id = generation "
        "WHERE key = ? AND row_key = ?",
        (made.key, bytes.fromhex(make_key(number))),
    ).fetchone()
    connection.close()
    form = shard_format(made.layout.format)
    part = part_of(form, made.layout, output)
    path = form.path(made.layout, part, shard)
    descriptor = os.open(path, os.O_RDONLY)
    table = form.read_tail(made.layout, part, path, descriptor).chunks[output]
    os.close(descriptor)
    return path, table.offsets[slot], table.nbytes[slot]


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def damage_row(made: Any, output: str, number: int) -> Path:
    """Turn one bit in the values of a row; return the file."""
    path, offset, nbytes = place_of(made, output, number)
    flip(path, offset + nbytes // 2, bit=4)
    return path


def change_manifest(root: Path, statement: str, *, sealed: bool = True) -> None:
    """Make the manifest say something else, with seals that match or without."""
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        connection.execute(statement)
        connection.create_function("reseal", -1, lambda *values: seal(values))
        for table in ("generations", "shards", "rows", "failures", "descriptions"):
            found = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = ", ".join(name for _, name, *_ in found if name != "seal")
            if sealed:
                connection.execute(f"UPDATE {table} SET seal = reseal({columns})")
    connection.close()
