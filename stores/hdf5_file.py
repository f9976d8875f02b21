"""The HDF5 file of a shard as h5py makes it: datasets, their types, what they say of themselves.

Written for HDF5 1.8 and later, which means for everybody. The values of the datasets are left
to the caller.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from stores.hdf5_columns import COLUMNS
from stores.layout import FORMAT_VERSION, GenerationLayout
from stores.records import ArraySpec

ROWS_GROUP = "_rows"  # no output has a name like this

_LIBVER = ("v108", "v108")
_ZSTD_FILTER = 32015  # https://github.com/HDFGroup/hdf5_plugins
_ZSTD_LEVEL = 1
# Names with a meaning to HDF5's dimension scales.
_TAKEN = frozenset({"CLASS", "NAME", "DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST"})
_INT64 = range(-(2**63), 2**63)


def new_file(target: io.RawIOBase | io.BytesIO) -> h5py.File:
    """Return a new HDF5 file in `target`, to be closed by the caller."""
    # Not aligned: rows at the start of a page are slower to read into arrays that start there too.
    return h5py.File(target, "w", libver=_LIBVER)


def add_datasets(
    file: h5py.File, layout: GenerationLayout, columns: Sequence[tuple[str, str]], rows: int
) -> dict[str, h5py.Dataset]:
    """Make all datasets of a shard of `rows` rows, with room for their values but without them.

    Args:
        columns: names and numpy dtypes of what says which row is which.

    Returns:
        Output or column → dataset; columns have names that start with the group, "_rows/".
    """
    _set_attributes(file, _root_attributes(layout))
    datasets = {}
    for name in sorted(layout.specs):
        spec = layout.specs[name]
        dataset = _add(file, name, _output_type(spec), (rows, *spec.shape), layout.compression)
        _set_attributes(dataset, spec.attributes)
        _describe(dataset, spec.units, spec.description, ("row", *spec.dims))
        datasets[name] = dataset
    h5py.h5g.create(file.id, ROWS_GROUP.encode(), gcpl=_untimed(h5py.h5p.GROUP_CREATE))
    for column, dtype in columns:
        name = f"{ROWS_GROUP}/{column}"
        datasets[name] = _add(file, name, _column_type(np.dtype(dtype)), (rows,), "none")
        _describe(datasets[name], *COLUMNS[column], ("row",))
    return datasets


def _add(
    file: h5py.File, name: str, type_id: h5py.h5t.TypeID, shape: tuple[int, ...], compression: str
) -> h5py.Dataset:
    properties = _untimed(h5py.h5p.DATASET_CREATE)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    if compression == "none":
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    else:
        # Optional, so that HDF5 lets us write without having the filter itself.
        properties.set_chunk((1, *shape[1:]))
        properties.set_filter(_ZSTD_FILTER, h5py.h5z.FLAG_OPTIONAL, (_ZSTD_LEVEL,))
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), type_id, space, properties))


def _untimed(kind: Any) -> Any:
    """Return properties of a new object that does not say when it was made."""
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def _output_type(spec: ArraySpec) -> h5py.h5t.TypeID:
    if spec.dtype != "bfloat16":
        return h5py.h5t.py_create(np.dtype(spec.dtype).newbyteorder("<"))
    bfloat16 = h5py.h5t.IEEE_F16LE.copy()
    # Sign bit, start and length of the exponent, start and length of the mantissa.
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_ebias(127)
    return bfloat16


def _column_type(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", dtype.itemsize)
    return h5py.h5t.py_create(dtype, logical=True)


def _root_attributes(layout: GenerationLayout) -> dict[str, Any]:
    return {
        "description": (
            f"Rows of stage {layout.stage!r} of a feature store: one dataset per output, one row "
            f"per entry of its first axis. The group {ROWS_GROUP!r} says what each row is."
        ),
        "stage": layout.stage,
        "key": layout.key,
        "created": layout.created,
        "format_version": FORMAT_VERSION,
        "rows_per_shard": layout.rows_per_shard,
        "compression": layout.compression,
        "outputs": json.dumps({name: spec.to_json() for name, spec in layout.specs.items()}),
        "provenance": json.dumps(layout.provenance),
    }


def _describe(dataset: h5py.Dataset, units: str, description: str, dims: tuple[str, ...]) -> None:
    _set_attributes(dataset, {"units": units, "description": description})
    for axis, dim in enumerate(dims):
        dataset.dims[axis].label = dim


def _set_attributes(target: h5py.Group | h5py.Dataset, values: Mapping[str, Any]) -> None:
    """Keep JSON values as attributes; a name that HDF5 cannot have is only in the root's JSON."""
    for name, value in values.items():
        if name and name not in _TAKEN and _is_text(name):
            target.attrs[name] = _attribute(value)


def _attribute(value: Any) -> Any:
    """Return a JSON value as HDF5 has it: number, text, list of numbers, or else as JSON text."""
    kinds = {type(item) for item in value} if isinstance(value, list) else {type(value)}
    if kinds == {bool} and not isinstance(value, list):
        return np.bool_(value)
    if kinds == {float}:
        return np.asarray(value, np.float64)
    if kinds == {int} and all(item in _INT64 for item in np.atleast_1d(np.array(value, object))):
        return np.asarray(value, np.int64)
    if kinds == {str} and not isinstance(value, list) and _is_text(value):
        return value
    return json.dumps(value)


def _is_text(value: str) -> bool:
    """Return whether HDF5 can keep a text: no NUL, and nothing that UTF-8 has no bytes for."""
    return "\0" not in value and value == value.encode("utf-8", "replace").decode()
