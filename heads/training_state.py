"""What a training that was cut off needs to go on as if it had not been.

`last.safetensors` is an ordinary head checkpoint with the optimizer's momentum beside the weights.
No random state is kept: order and views of an epoch are a function of the seed and the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.optim import SGD

from heads.base import Head
from heads.checkpoint import EXTRA_PREFIX, load_weights, read_checkpoint, save_head
from heads.training_log import EpochReport

_MOMENTUM_PREFIX = f"{EXTRA_PREFIX}momentum."


def save_training_state(
    path: Path,
    head: Head,
    optimizer: SGD,
    history: Sequence[EpochReport],
    *,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write the state after an epoch, atomically.

    Args:
        path: of `last.safetensors`.
        head: after the epoch.
        optimizer: over all of the head's parameters.
        history: reports of all epochs so far.
        identity: JSON-able; what must be the same for the training to go on.
        provenance: goes into the checkpoint as it is.
    """
    momentum = {
        _MOMENTUM_PREFIX + name: buffer
        for name, parameter in head.named_parameters()
        if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None
    }
    training = {
        "epoch": history[-1].epoch,
        "selection": "last",
        "identity": dict(identity),
        "history": [asdict(report) for report in history],
    }
    save_head(path, head, provenance=provenance, training=training, extra=momentum)


def load_training_state(
    path: Path, head: Head, optimizer: SGD, *, identity: Mapping[str, Any]
) -> list[EpochReport]:
    """Fill head and optimizer from a file written by `save_training_state`.

    Args:
        path: of `last.safetensors`.
        head: changed in place; on the device it trains on.
        optimizer: changed in place.
        identity: must equal the saved one.

    Returns:
        Reports of the epochs done.

    Raises:
        ValueError: if the file is of another training; it names what differs.
    """
    training = read_checkpoint(path).training
    for name, expected in identity.items():
        got = training["identity"].get(name)
        if got != expected:
            raise ValueError(
                f"{path}: got a training with {name} {got!r}, expected {expected!r} to go on; "
                "start over in another run folder"
            )
    extra = load_weights(path, head)
    for name, parameter in head.named_parameters():
        if (buffer := extra.get(_MOMENTUM_PREFIX + name)) is not None:
            optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device)
    return [EpochReport.from_dict(fields) for fields in training["history"]]
