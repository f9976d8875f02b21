"""Checkpoints and networks: fit one into the other strictly, write them atomically.

Nothing here has a default set of weights. A network's numbers come from a named file or from a
named seed, never from whatever happened to be at hand.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from extractors.checkpoint_files import first, load_state

__all__ = [
    "MisfitError",
    "create_network",
    "fits",
    "load_into",
    "load_metadata",
    "load_state",
    "save_checkpoint",
    "seeded_init",
]

M = TypeVar("M", bound=nn.Module)

_METADATA_KEY = "symbio"


class MisfitError(ValueError):
    """A checkpoint has other parameters than the network.

    Attributes:
        state: of the checkpoint.
    """

    def __init__(self, message: str, state: Mapping[str, Tensor]) -> None:
        super().__init__(message)
        self.state = state


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    replaceable: tuple[str, ...] = ("fc",),
    source: str | Path = "the checkpoint",
) -> tuple[str, ...]:
    """Fill a module from a checkpoint, all of it or nothing.

    Args:
        module: the network to fill, in place.
        state: name → tensor.
        replaceable: submodules that may differ or be absent on either side, such as the classifier
            of another label set. They are loaded where they fit and otherwise left as they are.
        source: the file, for messages.

    Returns:
        The replaceable submodules of `module` that were *not* loaded.

    Raises:
        MisfitError: naming missing and unexpected parameters, and those of another shape or type.
        ValueError: naming those that are not finite.
    """
    own = module.state_dict()
    kept, offered, problems = _compare(own, state, replaceable)
    if problems:
        raise MisfitError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}. "
            "Check the architecture options against the checkpoint",
            state,
        )
    spoilt = [k for k in own if k in offered and not bool(offered[k].isfinite().all())]
    if spoilt:
        raise ValueError(
            f"{source} has NaN or infinity in {first(spoilt)}, expected finite weights; "
            "take another checkpoint of that training"
        )
    # Half precision is widened on the way in.
    module.load_state_dict({**own, **offered})
    return kept


def fits(
    module: nn.Module, state: Mapping[str, Tensor], *, replaceable: tuple[str, ...] = ("fc",)
) -> bool:
    """Whether `load_into` would find every parameter; the module may be on the meta device."""
    return not _compare(module.state_dict(), state, replaceable)[2]


def _compare(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], replaceable: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, Tensor], list[str]]:
    """Replaceable parts to keep, parameters to load, and in words what is in the way."""
    kept = tuple(p for p in replaceable if _below(own, p) and not _fits(own, state, p))
    skipped = [p for p in replaceable if p in kept or not _below(own, p)]
    offered = {k: v for k, v in state.items() if not any(_is_below(k, p) for p in skipped)}
    wanted = {k: v for k, v in own.items() if not any(_is_below(k, p) for p in kept)}
    # Batch counters do not take part in inference, and older checkpoints have none.
    missing = [k for k in wanted if k not in offered and not k.endswith(".num_batches_tracked")]
    unexpected = [k for k in offered if k not in wanted]
    pairs = {k: (offered[k], v) for k, v in wanted.items() if k in offered}
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": [
            f"{k} (got {tuple(a.shape)}, expected {tuple(b.shape)})"
            for k, (a, b) in pairs.items()
            if a.shape != b.shape
        ],
        "of another type": [
            f"{k} (got {a.dtype}, expected {b.dtype})"
            for k, (a, b) in pairs.items()
            if b.is_floating_point() and not a.is_floating_point()
        ],
    }
    words = [f"{len(names)} {kind}: {first(names)}" for kind, names in problems.items() if names]
    return kept, offered, words


def save_checkpoint(
    path: str | Path, module: nn.Module, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a module's parameters as safetensors; the file appears whole or not at all.

    The same parameters and metadata give the same bytes.

    Args:
        path: where to; must end in ``.safetensors``; an existing file is replaced.
        module: on any device.
        metadata: JSON values, read back by `load_metadata`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"got checkpoint path {path}, expected a name ending in .safetensors")
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    # One metadata entry: the format keeps several in no fixed order.
    text = json.dumps(dict(metadata or {}), sort_keys=True)
    data = format_safetensors(tensors, metadata={_METADATA_KEY: text})
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata `save_checkpoint` stored; {} for a safetensors file written by others."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"cannot read {path} as safetensors: {error}") from error
    return dict(json.loads(metadata.get(_METADATA_KEY, "{}")))


def seeded_init(build: Callable[[], M], seed: int) -> M:
    """Build a module whose random initial weights depend on `seed` alone.

    Only the CPU generator is used, and it is put back as it was: weights do not depend on the
    device, and building a network does not disturb anybody else's random numbers.
    """
    if seed < 0:
        raise ValueError(f"got seed {seed}, expected 0 or more")
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed every CUDA device as well.
        torch.default_generator.manual_seed(seed)
        return build()


def create_network(
    build: Callable[[], M],
    *,
    weights: str | Path | None,
    seed: int | None,
    replaceable: tuple[str, ...] = ("fc",),
) -> M:
    """Build a module and give it the weights of a file, or random ones of a seed.

    Raises:
        ValueError: unless exactly one of `weights` and `seed` is given, or if the file does not
            fit.
    """
    if (weights is None) == (seed is None):
        got = "neither weights nor a seed" if weights is None else "both weights and a seed"
        raise ValueError(f"got {got}, expected exactly one: a checkpoint file or a random seed")
    module = seeded_init(build, 0 if seed is None else seed)
    if weights is not None:
        load_into(module, load_state(weights), replaceable=replaceable, source=weights)
    return module


def _is_below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _below(keys: Iterable[str], prefix: str) -> list[str]:
    return [k for k in keys if _is_below(k, prefix)]


def _fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str) -> bool:
    names = _below(own, prefix)
    return set(names) == set(_below(state, prefix)) and all(
        own[k].shape == state[k].shape for k in names
    )
