"""The Zarr v3 documents that let any Zarr library read a store.

Zarr specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html and the
`sharding_indexed` and `crc32c` codecs beside it. A slot without a row has no chunk; Zarr
readers see the fill value there: NaN in arrays of floats, 0 in arrays of integers, where
`rows.csv` says which rows are real.

Zarr has no bfloat16: such arrays are of uint16, hold the bits, and say so in the attribute
`bfloat16`; `array.view(ml_dtypes.bfloat16)` gives the numbers.
"""

import json
from typing import Any

from stores.compression import ZSTD_LEVEL
from stores.layout import GenerationLayout

ZARR_FILE = "zarr.json"

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}
_COMPRESSORS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "zstd": [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}],
}
_BFLOAT16_NAN = 0x7FC0


def group_document(attributes: dict[str, Any]) -> bytes:
    """Return the zarr.json of a folder that holds arrays or other groups."""
    return _encode({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def array_document(layout: GenerationLayout, output: str, rows: int) -> bytes:
    """Return the zarr.json of an output that reaches up to row number `rows`."""
    spec = layout.specs[output]
    is_bfloat16 = spec.dtype == "bfloat16"
    fill_value: Any = "NaN" if spec.dtype.startswith("float") else 0
    if is_bfloat16:
        fill_value = _BFLOAT16_NAN
    sharding = {
        "chunk_shape": [1, *spec.shape],
        "codecs": [_LITTLE, *_COMPRESSORS[layout.compression], _CRC32C],
        "index_codecs": [_LITTLE, _CRC32C],
        "index_location": "end",
    }
    return _encode(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *spec.shape],
            "data_type": "uint16" if is_bfloat16 else spec.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [layout.rows_per_shard, *spec.shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": fill_value,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": ["row", *spec.dims],
            "attributes": {
                "units": spec.units,
                "description": spec.description,
                "stage": layout.stage,
                "key": layout.key,
                **({"bfloat16": True} if is_bfloat16 else {}),
                **spec.attributes,
            },
        }
    )


def _encode(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
