"""Checks that every backend makes: what may be written, and what can be read into."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import RefusedRowError
from stores.records import ArraySpec, Row, check_specs

MAX_ROWS_PER_SHARD = 4096

# Exponent all ones means NaN or Inf. Read as signed integers the positive ones are the largest
# values, read as unsigned integers the negative ones are: two maxima, no temporary array.
_NOT_FINITE_BITS: dict[str, tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]], int]]
_NOT_FINITE_BITS = {
    "bfloat16": (np.int16, np.uint16, 0x7F80),
    "float16": (np.int16, np.uint16, 0x7C00),
    "float32": (np.int32, np.uint32, 0x7F80_0000),
    "float64": (np.int64, np.uint64, 0x7FF0_0000_0000_0000),
}


def rows_per_shard(specs: Mapping[str, ArraySpec], shard_mib: float) -> int:
    """Return how many rows fill `shard_mib` MiB over all outputs: at least 1, at most 4096."""
    if not shard_mib > 0:
        raise ValueError(f"got shard_mib {shard_mib}, expected more than 0")
    row_nbytes = sum(spec.row_nbytes for spec in check_specs(specs).values())
    return max(1, min(MAX_ROWS_PER_SHARD, int(shard_mib * 2**20) // row_nbytes))


def check_rows_per_shard(value: int) -> int:
    """Return `value`; raise ValueError unless a shard may have so many rows."""
    if type(value) is not int or not 1 <= value <= MAX_ROWS_PER_SHARD:
        raise ValueError(f"got rows_per_shard {value!r}, expected 1 to {MAX_ROWS_PER_SHARD}")
    return value


def check_rows(stage: str, specs: Mapping[str, ArraySpec], limit: int, rows: Sequence[Row]) -> None:
    """Raise unless `rows` are 1 to `limit` different rows of arrays that fit `specs`.

    Looks at no values: `check_finite` does, when they are about to be copied anyway.

    Raises:
        ValueError: count, repeated keys, outputs, dtype or shape.
        TypeError: something that is not a numpy array. Nothing is ever cast.
    """
    if not 1 <= len(rows) <= limit:
        raise ValueError(f"got {len(rows)} rows for a shard of {stage!r}, expected 1 to {limit}")
    if len({row.key for row in rows}) != len(rows):
        raise ValueError(f"got a row key twice in one shard of stage {stage!r}, expected each once")
    for row in rows:
        where = f"stage {stage!r}, clip {row.info.clip_id!r}"
        if row.arrays.keys() != specs.keys():
            raise ValueError(f"{where}: got outputs {sorted(row.arrays)}, expected {sorted(specs)}")
        for name, spec in specs.items():
            _check_array(f"{where}, output {name!r}", spec, row.arrays[name])


def check_finite(stage: str, output: str, row: Row) -> None:
    """Raise RefusedRowError if an output of a row holds NaN or Inf."""
    array = row.arrays[output]
    words = _not_finite_bits(array.dtype)
    if words is None:
        return
    signed, unsigned, bits = words
    highest = array.view(unsigned).max()
    if highest < bits:  # nothing negative either, as behind a ReLU: one look is enough
        return
    sign = 1 << (8 * array.dtype.itemsize - 1)
    if highest >= bits | sign or array.view(signed).max() >= bits:
        raise RefusedRowError(
            f"stage {stage!r}, clip {row.info.clip_id!r}, output {output!r}: got NaN or Inf, "
            f"expected finite values; Inf also comes of values too large for {array.dtype}",
            row.key,
        )


@cache  # numpy takes longer to name a dtype than to look through a small row
def _not_finite_bits(
    dtype: np.dtype[Any],
) -> tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]], int] | None:
    return _NOT_FINITE_BITS.get(dtype.name)


def _check_array(where: str, spec: ArraySpec, array: Any) -> None:
    if not isinstance(array, np.ndarray | np.generic):
        raise TypeError(f"{where}: got {type(array).__name__}, expected a numpy array")
    if array.dtype != spec.numpy_dtype:
        raise ValueError(f"{where}: got dtype {array.dtype}, expected {spec.dtype}; cast it first")
    if array.shape != spec.shape:
        raise ValueError(f"{where}: got shape {array.shape}, expected {spec.shape}")


def wanted_outputs(
    specs: Mapping[str, ArraySpec],
    outputs: Iterable[str] | None,
    out: Mapping[str, NDArray[Any]] | None,
) -> list[str]:
    """Return which outputs a read is about: those named, those in `out`, or all.

    Raises:
        ValueError: an unknown output.
    """
    names = list(outputs if outputs is not None else specs if out is None else out)
    for name in names:
        if name not in specs:
            raise ValueError(f"got output {name!r}, expected one of {sorted(specs)}")
    return names


def allocate(
    specs: Mapping[str, ArraySpec],
    count: int,
    names: Iterable[str],
    out: Mapping[str, NDArray[Any]] | None,
) -> dict[str, NDArray[Any]]:
    """Return one array of `count` rows per named output: those of `out`, checked, or new ones.

    Raises:
        ValueError: an array of `out` that rows cannot be read into.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        shape, dtype = (count, *specs[name].shape), specs[name].numpy_dtype
        array = np.empty(shape, dtype) if out is None else out.get(name)
        if array is None:
            raise ValueError(f"got no array for output {name!r} in out, expected one")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"got out[{name!r}] of {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(f"got out[{name!r}] not C-contiguous and writable; copy it first")
        arrays[name] = array
    return arrays
