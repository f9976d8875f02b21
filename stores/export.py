"""What both forms of an export share: which rows, in which portions, and what is said of them."""

import dataclasses
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.base import FeatureStore
from stores.export_names import KeyedRow
from stores.records import ArraySpec, name_some

PORTION_NBYTES = 32 * 2**20


def select_rows(
    generation: FeatureStore, clip_ids: Collection[str] = (), video_ids: Collection[str] = ()
) -> list[KeyedRow]:
    """Return the rows of these clips and of these videos, all rows where neither is given.

    Raises:
        ValueError: there is no such row at all, or none of one of the clips or videos.
    """
    keys = generation.keys()
    rows = list(zip(keys, generation.infos(keys), strict=True))
    if not clip_ids and not video_ids:
        chosen = rows
    else:
        clips, videos = set(clip_ids), set(video_ids)
        chosen = [row for row in rows if row[1].clip_id in clips or row[1].video_id in videos]
        _check_known("clips", clips - {info.clip_id for _, info in rows}, generation)
        _check_known("videos", videos - {info.video_id for _, info in rows}, generation)
    if not chosen:
        raise ValueError(f"got no rows in stage {generation.stage!r}, expected at least one")
    return chosen


def _check_known(what: str, unknown: set[str], generation: FeatureStore) -> None:
    if unknown:
        raise ValueError(
            f"got {len(unknown):,} {what} that stage {generation.stage!r} holds no row of "
            f"({name_some(sorted(unknown))}), expected ids as they stand in {generation.path}"
            "/rows.csv"
        )


def check_outputs(generation: FeatureStore, outputs: Collection[str]) -> list[str]:
    """Return the outputs to export, all of them where none are given.

    Raises:
        ValueError: an unknown output.
    """
    for output in outputs:
        if output not in generation.specs:
            raise ValueError(f"got output {output!r}, expected one of {sorted(generation.specs)}")
    return list(dict.fromkeys(outputs)) or list(generation.specs)


def read_portions(
    generation: FeatureStore, rows: Sequence[KeyedRow], outputs: Sequence[str]
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield (position among `rows`, output → one row) in order; bfloat16 becomes float32.

    Raises:
        CorruptRowError: stored bytes do not match their checksum.
    """
    row_nbytes = sum(generation.specs[output].row_nbytes for output in outputs)
    count = max(1, PORTION_NBYTES // row_nbytes)
    for start in range(0, len(rows), count):
        keys = [key for key, _ in rows[start : start + count]]
        arrays = generation.read(keys, outputs)
        for place in range(len(keys)):
            yield (
                start + place,
                {output: _as_exported(array[place]) for output, array in arrays.items()},
            )


def exported_dtype(spec: ArraySpec) -> str:
    """Return the dtype of an output in an export, which numpy alone can read."""
    return "float32" if spec.dtype == "bfloat16" else spec.dtype


def _as_exported(row: NDArray[Any]) -> NDArray[Any]:
    return row.astype(np.float32) if row.dtype.name == "bfloat16" else np.asarray(row)


def describe(generation: FeatureStore, outputs: Sequence[str], rows: int) -> dict[str, Any]:
    """Return as JSON values what the rows are and where they come from."""
    return {
        "stage": generation.stage,
        "key": generation.key,
        "rows": rows,
        "outputs": {
            output: {
                **dataclasses.asdict(generation.specs[output]),
                "dtype": exported_dtype(generation.specs[output]),
                "stored_dtype": generation.specs[output].dtype,
            }
            for output in outputs
        },
        "provenance": dict(generation.provenance),
    }


@contextmanager
def whole_or_nothing(target: Path, nbytes: int) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it gets its name when all went well.

    Args:
        target: must not exist, or be an empty folder.
        nbytes: about what will be written.

    Raises:
        FileExistsError: `target` is there and not an empty folder.
        OSError: there is not that much room.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"got {target}, which exists, expected a new name; choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if nbytes > free:
        raise OSError(
            f"got {free:,} bytes of free space for {target}, expected at least {nbytes:,}"
        )
    temp = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        yield temp
        os.sync()  # whole also after a power cut; thousands of small files one by one take hours
        if target.is_dir() and not temp.is_dir():
            target.rmdir()
        os.rename(temp, target)
    except BaseException:
        _remove(temp)
        raise


def _remove(temp: Path) -> None:
    if temp.is_dir():
        shutil.rmtree(temp)
    else:
        temp.unlink(missing_ok=True)
