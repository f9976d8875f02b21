"""Heads on disk: weights and everything needed to build the head again, in one safetensors file.

The file's metadata holds one JSON text under `symbio`: format, head name, input sizes, class
counts, options, provenance (what the caller knows about data and features) and training (epoch and
why that epoch was kept). Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from heads.atomic import write_atomically
from heads.base import Head, HeadConfig, HeadDims
from heads.registry import build_head, head_class

if TYPE_CHECKING:
    from stores.base import ArraySpec

FORMAT = 1
_METADATA_KEY = "symbio"
EXTRA_PREFIX = "training."
"""Tensors under this prefix belong to the training state, not to the head."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file says about itself."""

    config: HeadConfig
    provenance: Mapping[str, Any]
    training: Mapping[str, Any]


def save_head(
    path: Path,
    head: Head,
    *,
    provenance: Mapping[str, Any],
    training: Mapping[str, Any],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: of the file.
        head: made by `create_head`.
        provenance: JSON-able; what the caller wants to know later.
        training: JSON-able; epoch and selection, or the whole training state.
        extra: tensors to keep beside the weights, under names that start with `EXTRA_PREFIX`.
    """
    description = {
        "format": FORMAT,
        "head": {**asdict(head.config), "options": dict(head.config.options)},
        "provenance": dict(provenance),
        "training": dict(training),
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    tensors.update({name: tensor.detach().cpu() for name, tensor in (extra or {}).items()})
    metadata = {_METADATA_KEY: json.dumps(description, sort_keys=True)}
    write_atomically(path, save(tensors, metadata))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's description without its weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of a head, or of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"got {path}, expected a safetensors file: {error}") from error
    if _METADATA_KEY not in metadata:
        raise ValueError(f"got {path} without a '{_METADATA_KEY}' entry, expected a trained head")
    description = json.loads(metadata[_METADATA_KEY])
    if description["format"] != FORMAT:
        raise ValueError(f"got {path} of format {description['format']}, expected {FORMAT}")
    config = dict(description["head"])
    dims = HeadDims(**config.pop("dims"))
    return Checkpoint(
        HeadConfig(**config, dims=dims), description["provenance"], description["training"]
    )


def load_head(
    path: Path,
    *,
    name: str | None = None,
    specs: Mapping[str, ArraySpec] | None = None,
    num_verbs: int | None = None,
    num_nouns: int | None = None,
    device: str | torch.device = "cpu",
) -> Head:
    """Build the head a checkpoint describes, with its weights.

    Args:
        path: of the file.
        name: the head it must be.
        specs: array specs of the store it is to read from.
        num_verbs: verb classes it must have.
        num_nouns: noun classes it must have.
        device: where the weights go.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or another head, other input sizes or class counts than asked.
    """
    config = read_checkpoint(path).config
    _require(path, "head", config.name, name)
    _require(path, "num_verbs", config.num_verbs, num_verbs)
    _require(path, "num_nouns", config.num_nouns, num_nouns)
    if specs is not None:
        wanted = asdict(HeadDims.from_specs(specs, head_class(config.name).inputs))
        for field, size in asdict(config.dims).items():
            _require(path, field, size, wanted[field])
    head = build_head(config)
    load_weights(path, head)
    return head.to(device)


def load_weights(path: Path, head: Head) -> dict[str, Tensor]:
    """Fill a head with a checkpoint's weights.

    Args:
        path: of a checkpoint whose config equals the head's.
        head: changed in place.

    Returns:
        The extra tensors of the file, on the CPU.

    Raises:
        ValueError: if the file was written for another head.
    """
    config = read_checkpoint(path).config
    if config != head.config:
        raise ValueError(f"got {path} for {config}, expected {head.config}")
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    extra = {key: tensors.pop(key) for key in list(tensors) if key.startswith(EXTRA_PREFIX)}
    head.load_state_dict(tensors)
    return extra


def _require(path: Path, what: str, got: object, expected: object | None) -> None:
    if expected is not None and got != expected:
        raise ValueError(f"{path}: got {what} {got!r} in the checkpoint, expected {expected!r}")
