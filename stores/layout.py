"""Where the parts of one generation lie, and the document that describes it.

<root>/<stage>/<first 12 digits of the key>/
    stage.json                  what this generation is; written once, last of all
    zarr.json  rows.csv         for people and programs that know nothing of this one
    .quarantine/                shard files that nothing could be made of
  Zarr:
    <output>/zarr.json          one array per output, one chunk per row
    <output>/c.<shard>.0.0…     rows [shard × rows_per_shard, …) of that output
  HDF5:
    shard.<shard>.h5            the same rows of all outputs
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stores.compression import check_compression
from stores.records import ArraySpec, check_key, check_name, check_specs

STAGE_FILE = "stage.json"
FORMAT_VERSION = 1
KEY_DIGITS = 12


@dataclass(frozen=True)
class GenerationLayout:
    """One generation on disk; plain values only, so that it travels to workers.

    Attributes:
        path: folder of the generation.
        created: UTC time, ISO 8601.
        provenance: what the caller said about the origin of the rows.
        format: name of the `ShardFormat`.
        compression: of single rows, one of `COMPRESSIONS`.
    """

    path: Path
    stage: str
    key: str
    specs: Mapping[str, ArraySpec] = field(hash=False)
    rows_per_shard: int
    created: str
    provenance: Mapping[str, Any] = field(hash=False)
    format: str = "zarr"
    compression: str = "none"

    def encode(self) -> bytes:
        """Return the text of stage.json."""
        document = {
            "format_version": FORMAT_VERSION,
            "stage": self.stage,
            "key": self.key,
            "created": self.created,
            "format": self.format,
            "compression": self.compression,
            "rows_per_shard": self.rows_per_shard,
            "outputs": {name: spec.to_json() for name, spec in self.specs.items()},
            "provenance": self.provenance,
        }
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def generation_folder(root: Path, stage: str, key: str) -> Path:
    """Return the folder of a generation.

    Raises:
        ValueError: `stage` is no name or `key` no sha256.
    """
    return root / check_name("stage", stage) / check_key("stage key", key)[:KEY_DIGITS]


def read_layout(folder: Path) -> GenerationLayout:
    """Read the stage.json of a generation.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format version.
    """
    path = folder / STAGE_FILE
    text = path.read_bytes()
    try:
        document = json.loads(text)
        if document["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"got format_version {document['format_version']}, expected {FORMAT_VERSION}"
            )
        belongs = generation_folder(folder.parent.parent, document["stage"], document["key"])
        if folder != belongs:
            raise ValueError(f"it belongs in {belongs}")
        specs = {name: ArraySpec.from_json(spec) for name, spec in document["outputs"].items()}
        return GenerationLayout(
            path=folder,
            stage=document["stage"],
            key=document["key"],
            specs=check_specs(specs),
            rows_per_shard=int(document["rows_per_shard"]),
            created=str(document["created"]),
            provenance=document["provenance"],
            format=str(document.get("format", "zarr")),
            compression=check_compression(document.get("compression", "none")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got {path} that is no description of a generation ({error}); restore the file, "
            f"or move {folder} out of the store"
        ) from error
