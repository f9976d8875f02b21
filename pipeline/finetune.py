"""Stage one: train a network with a classifier on its own, before features are extracted.

The loop here is shared; `finetune_clips` and `finetune_boxes` say what a batch is. Files in the
run folder: ``config.yaml``, ``log.csv``, ``checkpoint.safetensors`` (what extractors load: the
epoch with the best validation top-1, or the last one where there is no validation) and
``last.safetensors`` (the last epoch, to resume from).
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD

from extractors.weights import load_metadata, save_checkpoint
from pipeline.config_training import StageOneSection
from pipeline.errors import RunFolderError
from stores.durable import replace_file

__all__ = ["FinetuneEpoch", "Task", "finetune"]

Batch = tuple[tuple[Any, ...], Tensor]


class Task(Protocol):
    """Something to learn."""

    def train_batches(self, epoch: int) -> Iterable[Batch]:
        """(network arguments, (B,) int64 labels) of an epoch, counted from 1."""

    def validation_batches(self) -> Iterable[Batch] | None:
        """The same for validation, or None where there is nothing to validate on."""

    def logits(self, network: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
        """(B, classes) of a batch's arguments, which are on the network's device."""


@dataclass(frozen=True)
class FinetuneEpoch:
    """One epoch; accuracies are fractions, the loss a mean over rows."""

    epoch: int
    epochs: int
    learning_rate: float
    train_loss: float
    train_top1: float
    validation_top1: float | None
    seconds: float
    kept: bool


def finetune(
    run_folder: Path,
    network: nn.Module,
    task: Task,
    schedule: StageOneSection,
    *,
    device: str,
    metadata: Mapping[str, Any],
    resume: bool,
    on_epoch: Callable[[FinetuneEpoch], None],
) -> Path:
    """Train with SGD and cross-entropy (the papers' first stage).

    Args:
        run_folder: exists.
        network: what `task.logits` runs; trained in place, and saved under its own names.
        metadata: JSON values kept in the checkpoint.
        resume: go on after the last finished epoch, where there is one.

    Returns:
        The checkpoint that extractors load.

    Raises:
        FloatingPointError: the loss is no longer finite; the files stay as of the epoch before.
        RunFolderError: the state to resume from belongs to another network.
    """
    network.to(device)
    optimizer = _create_optimizer(network, schedule)
    history = _load_state(run_folder, network, optimizer) if resume else []
    for epoch in range(len(history) + 1, schedule.epochs + 1):
        started = time.monotonic()
        rate = _learning_rate(schedule, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, top1 = _train_epoch(network, optimizer, task, device, epoch)
        validation = _validate(network, task, device)
        report = FinetuneEpoch(
            epoch=epoch,
            epochs=schedule.epochs,
            learning_rate=rate,
            train_loss=loss,
            train_top1=top1,
            validation_top1=validation,
            seconds=time.monotonic() - started,
            kept=_is_best(validation, history),
        )
        history.append(report)
        _save_epoch(run_folder, network, optimizer, history, metadata)
        on_epoch(report)
    return run_folder / "checkpoint.safetensors"


def _create_optimizer(network: nn.Module, schedule: StageOneSection) -> SGD:
    return SGD(
        network.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )


def _train_epoch(
    network: nn.Module, optimizer: SGD, task: Task, device: str, epoch: int
) -> tuple[float, float]:
    """One pass; mean loss and top-1."""
    network.train()
    total, correct, rows = 0.0, 0, 0
    for arguments, labels in _on_device(task.train_batches(epoch), device):
        logits = task.logits(network, arguments)
        loss = F.cross_entropy(logits, labels)
        value = loss.item()
        if not value < float("inf"):
            raise FloatingPointError(
                f"got a loss of {value} in epoch {epoch}; lower the learning rate. The files are "
                "as of the epoch before"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        rows += len(labels)
    return total / rows, correct / rows


@torch.no_grad()
def _validate(network: nn.Module, task: Task, device: str) -> float | None:
    batches = task.validation_batches()
    if batches is None:
        return None
    network.eval()
    correct, rows = 0, 0
    for arguments, labels in _on_device(batches, device):
        correct += int((task.logits(network, arguments).argmax(1) == labels).sum())
        rows += len(labels)
    return correct / rows


def _is_best(validation: float | None, history: list[FinetuneEpoch]) -> bool:
    """Whether an epoch is better than those before it, or cannot be judged."""
    earlier = [e.validation_top1 for e in history if e.validation_top1 is not None]
    return validation is None or validation > max(earlier, default=-1.0)


def _on_device(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    for arguments, labels in batches:
        moved = tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)
        yield moved, labels.to(device)


def _learning_rate(schedule: StageOneSection, epoch: int) -> float:
    passed = sum(epoch > decay for decay in schedule.decay_epochs)
    return schedule.learning_rate * schedule.decay_factor**passed


def _save_epoch(
    folder: Path,
    network: nn.Module,
    optimizer: SGD,
    history: list[FinetuneEpoch],
    metadata: Mapping[str, Any],
) -> None:
    report = history[-1]
    if report.kept:
        chosen = {"epoch": report.epoch, "validation_top1": report.validation_top1}
        save_checkpoint(folder / "checkpoint.safetensors", network, {**metadata, **chosen})
    columns = [name for name in asdict(report) if name not in ("epochs", "kept")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(e) for e in history)
    replace_file(folder / "log.csv", buffer.getvalue().encode(), durable=False)
    _save_state(folder, network, optimizer, history)


def _save_state(
    folder: Path, network: nn.Module, optimizer: SGD, history: list[FinetuneEpoch]
) -> None:
    """Momentum beside the weights, in one file that is replaced in one step."""
    momenta = {
        f"momentum.{name}": optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in network.named_parameters()
        if optimizer.state[parameter].get("momentum_buffer") is not None
    }
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()} | momenta
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    epochs = json.dumps({"history": [asdict(e) for e in history]})
    replace_file(folder / "last.safetensors", save(plain, {"symbio": epochs}), durable=True)


def _load_state(folder: Path, network: nn.Module, optimizer: SGD) -> list[FinetuneEpoch]:
    path = folder / "last.safetensors"
    if not path.exists():
        return []
    tensors = load(path.read_bytes())
    weights = {
        k.removeprefix("network."): t for k, t in tensors.items() if k.startswith("network.")
    }
    try:
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise RunFolderError(f"{path}: does not fit this network: {error}") from error
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in tensors:
            momentum = tensors[f"momentum.{name}"].to(parameter.device)
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return [FinetuneEpoch(**epoch) for epoch in load_metadata(path)["history"]]
