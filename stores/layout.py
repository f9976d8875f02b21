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

from crc32c import crc32c

from stores.checks import check_rows_per_shard
from stores.compression import check_compression
from stores.names import check_key, check_name
from stores.records import ArraySpec, check_specs
from stores.untrusted import MAX_DOCUMENT_NBYTES, NoPlainFileError, parse_json, read_document

STAGE_FILE = "stage.json"
FORMAT_VERSION = 1
KEY_DIGITS = 12
SEAL = "crc32c"

_FIELDS = frozenset(
    {
        *("format_version", "stage", "key", "created", "format", "compression"),
        *("rows_per_shard", "outputs", "provenance"),
    }
)


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

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self.path.parent.parent

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
        text = json.dumps({**document, SEAL: _seal(document)}, indent=2, allow_nan=False) + "\n"
        if len(text) > MAX_DOCUMENT_NBYTES:
            raise ValueError(
                f"got {len(text):,} bytes to describe stage {self.stage!r}, expected at most "
                f"{MAX_DOCUMENT_NBYTES:,}; shorten its provenance"
            )
        parse_json(text)  # what cannot be read back is not written
        return text.encode()


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
    try:
        document = _unsealed(read_document(path))
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
            rows_per_shard=check_rows_per_shard(document["rows_per_shard"]),
            created=str(document["created"]),
            provenance=document["provenance"],
            format=str(document.get("format", "zarr")),
            compression=check_compression(document.get("compression", "none")),
        )
    except (NoPlainFileError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got {path} that is no description of a generation ({error}); restore the file, "
            f"or move {folder} out of the store"
        ) from error


def _unsealed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a description without its seal; without one if it was made before there were any."""
    content = {name: value for name, value in document.items() if name != SEAL}
    if unknown := content.keys() - _FIELDS:
        raise ValueError(f"got fields {sorted(unknown)}, expected some of {sorted(_FIELDS)}")
    if SEAL in document and document[SEAL] != _seal(content):
        raise ValueError("its checksum does not match")
    return content


def _seal(content: dict[str, Any]) -> int:
    """Return the checksum over all other fields, however they are laid out."""
    return crc32c(json.dumps(content, sort_keys=True).encode())
