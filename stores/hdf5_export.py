"""Rows as one HDF5 file with a group per clip.

/                     attributes: stage, key, provenance (JSON)
/<clip id>            attributes: row_key and everything of `RowInfo`
/<clip id>/<output>   one dataset of one row; attributes: units, description, those of the output

In names of groups "/" is written %2F, "%" %25; `urllib.parse.unquote` gives the clip id.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from stores.base import FeatureStore
from stores.export import check_outputs, describe, read_portions, whole_or_nothing
from stores.export_names import KeyedRow, link_names
from stores.records import ArraySpec

# Object headers, attributes and links, for the question whether there is room.
_NBYTES_PER_DATASET = 2048


def export_hdf5(
    generation: FeatureStore, rows: Sequence[KeyedRow], target: Path, outputs: Sequence[str] = ()
) -> None:
    """Write rows to a new file; a file of that name is there whole or not at all.

    Args:
        rows: what `select_rows` gave.
        outputs: by default all.

    Raises:
        FileExistsError: `target` is there.
        ValueError: an unknown output.
        CorruptRowError: a row does not match its checksum.
    """
    chosen = check_outputs(generation, outputs)
    names = link_names(rows)
    row_nbytes = sum(generation.specs[o].row_nbytes + _NBYTES_PER_DATASET for o in chosen)
    with (
        whole_or_nothing(target, len(rows) * row_nbytes) as temp,
        h5py.File(temp, "x") as file,
    ):
        about = describe(generation, chosen, len(rows))
        file.attrs.update({name: about[name] for name in ("stage", "key", "rows")})
        file.attrs["provenance"] = json.dumps(about["provenance"])
        for position, arrays in read_portions(generation, rows, chosen):
            key, info = rows[position]
            group = file.create_group(names[position])
            group.attrs.update({"row_key": key, **dataclasses.asdict(info)})
            for output, array in arrays.items():
                _write(group, output, array, generation.specs[output])


def _write(group: Any, output: str, array: NDArray[Any], spec: ArraySpec) -> None:
    dataset = group.create_dataset(output, data=array)
    for axis, dim in enumerate(spec.dims):
        dataset.dims[axis].label = dim
    dataset.attrs.update({"units": spec.units, "description": spec.description})
    for name, value in spec.attributes.items():
        dataset.attrs[name] = value if isinstance(value, str) else json.dumps(value)
