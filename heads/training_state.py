"""What a training that was cut off needs to go on as if it had not been.

`last.safetensors` is an ordinary head checkpoint with what the optimizer remembers beside the
weights. No random state is kept: order and views of an epoch are a function of the seed and the
epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from heads.base import Head
from heads.checkpoint import EXTRA_PREFIX, load_weights, read_checkpoint, save_head
from heads.optimizer import optimizer_tensors, restore_optimizer
from heads.training_log import EpochReport


def save_training_state(
    path: Path,
    head: Head,
    optimizer: Optimizer,
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
    remembered = optimizer_tensors(head, optimizer)
    training = {
        "epoch": history[-1].epoch,
        "selection": "last",
        "identity": dict(identity),
        "history": [asdict(report) for report in history],
    }
    extra = {EXTRA_PREFIX + name: tensor for name, tensor in remembered.items()}
    save_head(path, head, provenance=provenance, training=training, extra=extra)


def load_training_state(
    path: Path, head: Head, optimizer: Optimizer, *, identity: Mapping[str, Any]
) -> list[EpochReport]:
    """Fill head and optimizer from a file written by `save_training_state`.

    Args:
        path: of `last.safetensors`.
        head: changed in place; on the device it trains on.
        optimizer: changed in place.
        identity: must equal the saved one, but for more `epochs` where the schedule is "step": the
            rates of the epochs done do not depend on how many follow.

    Returns:
        Reports of the epochs done.

    Raises:
        ValueError: if the file is of another training; it names what differs.
    """
    training = read_checkpoint(path).training
    saved = training["identity"]
    _check_settings(path, saved["settings"], identity["settings"])
    for name, expected in identity.items():
        if name != "settings" and saved.get(name) != expected:
            raise _differs(path, f"other {name}", "the same")
    extra = load_weights(path, head)
    remembered = {name.removeprefix(EXTRA_PREFIX): tensor for name, tensor in extra.items()}
    restore_optimizer(head, optimizer, remembered)
    return [EpochReport.from_dict(fields) for fields in training["history"]]


def _check_settings(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, expected in asked.items():
        got = saved.get(name)
        raised = name == "epochs" and expected > (got or 0) and asked["schedule"] == "step"
        if got != expected and not raised:
            raise _differs(path, f"{name}={got!r}", repr(expected))


def _differs(path: Path, got: str, expected: str) -> ValueError:
    return ValueError(
        f"{path}: got a training with {got}, expected {expected} to go on; start over in another "
        "run folder"
    )
