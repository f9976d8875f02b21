"""The Zarr v3 documents that let any Zarr library read a store.

Zarr specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html and the
`sharding_indexed` and `crc32c` codecs beside it. A slot without a row has no chunk; Zarr
readers see the fill value there: NaN in arrays of floats, 0 in arrays of integers, where
`rows.csv` says which rows are real.
"""

import json
from typing import Any

from stores.durable import replace_file
from stores.layout import GenerationLayout

ZARR_FILE = "zarr.json"

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}


def group_document(attributes: dict[str, Any]) -> bytes:
    """Return the zarr.json of a folder that holds arrays or other groups."""
    return _encode({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def array_document(layout: GenerationLayout, output: str, rows: int) -> bytes:
    """Return the zarr.json of an output that reaches up to row number `rows`."""
    spec = layout.specs[output]
    sharding = {
        "chunk_shape": [1, *spec.shape],
        "codecs": [_LITTLE, _CRC32C],
        "index_codecs": [_LITTLE, _CRC32C],
        "index_location": "end",
    }
    return _encode(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *spec.shape],
            "data_type": spec.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [layout.rows_per_shard, *spec.shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if spec.dtype.startswith("float") else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": ["row", *spec.dims],
            "attributes": {
                "units": spec.units,
                "description": spec.description,
                "stage": layout.stage,
                "key": layout.key,
                **spec.attributes,
            },
        }
    )


def write_array_documents(layout: GenerationLayout, rows: int) -> None:
    """Bring the zarr.json of every output up to `rows` rows; leave those that are right.

    Not synced: a document that a power cut spoils is written again when the store is next
    opened for writing, since it no longer equals what it should be.
    """
    for output in layout.specs:
        path = layout.path / output / ZARR_FILE
        document = array_document(layout, output, rows)
        if not path.exists() or path.read_bytes() != document:
            replace_file(path, document, durable=False)


def _encode(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
