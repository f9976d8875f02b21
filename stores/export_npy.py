"""Rows as a folder of .npy files, one file per row and output.

<target>/<output>/<name>.npy   the values, C order, as `numpy.load` reads them
<target>/index.csv             which row each name is
<target>/about.json            stage, key, outputs with dims and units, provenance
"""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stores.base import FeatureStore
from stores.export import check_outputs, describe, read_portions, whole_or_nothing
from stores.export_names import KeyedRow, file_names
from stores.records import RowInfo

INDEX_FILE = "index.csv"
ABOUT_FILE = "about.json"
HEADER = ("name", "row_key", *(field.name for field in dataclasses.fields(RowInfo)))


def export_npy(
    generation: FeatureStore, rows: Sequence[KeyedRow], target: Path, outputs: Sequence[str] = ()
) -> None:
    """Write rows to a new folder; a folder of that name is there whole or not at all.

    Args:
        rows: what `select_rows` gave.
        outputs: by default all.

    Raises:
        FileExistsError: `target` is there and not an empty folder.
        ValueError: an unknown output.
        CorruptRowError: a row does not match its checksum.
    """
    chosen = check_outputs(generation, outputs)
    names = file_names(rows)
    nbytes = len(rows) * sum(generation.specs[output].row_nbytes for output in chosen)
    with whole_or_nothing(target, nbytes) as folder:
        for output in chosen:
            (folder / output).mkdir(parents=True)
        for position, arrays in read_portions(generation, rows, chosen):
            for output, array in arrays.items():
                path = folder / output / f"{names[position]}.npy"
                np.save(path, array, allow_pickle=False)
        _write_index(folder / INDEX_FILE, names, rows)
        about = describe(generation, chosen, len(rows))
        (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _write_index(path: Path, names: Sequence[str], rows: Sequence[KeyedRow]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(HEADER)
        for name, (key, info) in zip(names, rows, strict=True):
            lines.writerow([name, key, *info.to_json()])
