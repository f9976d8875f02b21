"""Copying a store into another format, row by row, each row read back and compared.

A shard is written, committed and compared before the next one is begun, so a call that was cut
off leaves at most one shard that nobody has compared: the next call compares that one first.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stores.base import CorruptRowError, FeatureStore, Store
from stores.records import Row, name_some
from stores.registry import open_store


@dataclass(frozen=True)
class Conversion:
    """What became of one generation.

    Attributes:
        rows: in the target now.
        copied: of these, by this call.
        damaged_clips: of rows that are damaged in the source and were left out.
    """

    stage: str
    key: str
    rows: int
    copied: int
    damaged_clips: tuple[str, ...]


def convert_store(
    source_path: Path,
    target_path: Path,
    format: str,
    *,
    compression: str = "none",
    shard_mib: float | None = None,
    on_generation: Callable[[Conversion], None] | None = None,
) -> list[Conversion]:
    """Copy every generation with its rows in order, infos, failures and provenance.

    What is in the target already stays, so that the same call goes on where it was cut off.

    Args:
        target_path: new, empty, or what an earlier call left.
        compression: of single rows, "none" or "zstd".
        shard_mib: size of a shard in MiB; by default as many rows as in the source.
        on_generation: called after each generation.

    Raises:
        ValueError: one store lies in the other, or the target holds other things.
        CorruptRowError: a row does not read back as it was in the source; it is missing then.
    """
    _check_apart(source_path, target_path)
    done = []
    with (
        open_store(source_path, "r", verify_every_read=True) as source,
        open_store(target_path, "a", format, verify_every_read=True) as target,
    ):
        for info in source.generations():
            held = source.generation(info.stage, info.key)
            done.append(_convert(held, _prepare(held, target, compression, shard_mib)))
            if on_generation is not None:
                on_generation(done[-1])
    return done


def _check_apart(source: Path, target: Path) -> None:
    one, other = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ValueError(f"got {source} and {target}, expected two folders, none in the other")


def _prepare(
    source: FeatureStore, target: Store, compression: str, shard_mib: float | None
) -> FeatureStore:
    """Open or create the generation to copy to."""
    row_nbytes = sum(spec.row_nbytes for spec in source.specs.values())
    made = target.generation(
        source.stage,
        source.key,
        source.specs,
        source.provenance,
        # Half a row more, so that rounding does not lose one.
        shard_mib or (source.rows_per_shard + 0.5) * row_nbytes / 2**20,
        compression,
    )
    if made.compression != compression:
        raise ValueError(
            f"got compression {compression!r}, expected {made.compression!r}, with which "
            f"{made.path} was begun; choose that or another folder"
        )
    return made


def _convert(source: FeatureStore, target: FeatureStore) -> Conversion:
    keys, size = source.keys(), target.rows_per_shard
    todo, last = target.missing(keys), set(target.keys()[-size:])
    damaged: list[str] = []
    batches = [todo[start : start + size] for start in range(0, len(todo), size)]
    for batch in filter(None, ([key for key in keys if key in last], *batches)):
        rows, lost = _read_rows(source, batch)
        damaged += lost
        new = set(target.missing([row.key for row in rows]))
        target.append([row for row in rows if row.key in new])
        _compare(rows, target)
    target.commit([], source.failures())
    return Conversion(
        stage=source.stage,
        key=source.key,
        rows=len(target),
        copied=len(todo) - len(target.missing(todo)),
        damaged_clips=tuple(info.clip_id for info in source.infos(damaged)),
    )


def _read_rows(source: FeatureStore, keys: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the rows that can be read, and the keys of the others."""
    try:
        arrays = source.read(keys)
    except OSError as error:
        if not isinstance(error, CorruptRowError) and error.errno != errno.EIO:
            raise
        if len(keys) == 1:
            return [], list(keys)
        half = len(keys) // 2
        first, second = _read_rows(source, keys[:half]), _read_rows(source, keys[half:])
        return first[0] + second[0], first[1] + second[1]
    rows = [
        Row(key, {output: array[place] for output, array in arrays.items()}, info)
        for place, (key, info) in enumerate(zip(keys, source.infos(keys), strict=True))
    ]
    return rows, []


def _compare(rows: Sequence[Row], target: FeatureStore) -> None:
    """Read rows back; those that are not the same are made missing, and an error.

    Raises:
        CorruptRowError: names their clips.
    """
    keys = [row.key for row in rows]
    try:
        copies = target.read(keys)
    except CorruptRowError as error:
        target.forget(error.row_keys)
        raise
    infos = target.infos(keys)
    wrong = [
        row
        for place, row in enumerate(rows)
        if infos[place] != row.info
        or any(array.tobytes() != copies[o][place].tobytes() for o, array in row.arrays.items())
    ]
    if wrong:
        target.forget([row.key for row in wrong])
        clips = name_some([row.info.clip_id for row in wrong])
        raise CorruptRowError(
            f"got stage {target.stage!r}, clips {clips} that do not read back from {target.path} "
            "as they were written; check that disk, then call again, which copies them anew",
            [row.key for row in wrong],
        )
