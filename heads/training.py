"""Training a head on stored features (the papers' second stage).

Files in the run folder, each written atomically after every epoch:
- `head.safetensors`: the head to use: the epoch with the best validation action top-1 (the earliest
  of equals), or the last epoch where there is no validation; its metadata says which and why;
- `last.safetensors`: the last epoch, with all that `resume` needs; written last, so it marks the
  epoch as done;
- `log.csv` and `tensorboard/`.

On the CPU, results are a function of head, tables and settings, to the bit, interrupted or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD

from heads.base import Head
from heads.checkpoint import save_head
from heads.evaluation import score_table
from heads.loader import batches_of, open_batches
from heads.metrics import action_prior
from heads.settings import TrainSettings
from heads.table import FeatureTable
from heads.training_log import EpochReport, open_training_log
from heads.training_state import load_training_state, save_training_state

BEST = "best validation action top-1"
LAST = "last epoch"
HEAD_FILE = "head.safetensors"
LAST_FILE = "last.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """Where the trained head is."""

    checkpoint: Path
    """`head.safetensors`."""
    epoch: int
    """The epoch it comes from."""
    selection: str
    """Why this epoch: `BEST` or `LAST`."""
    history: tuple[EpochReport, ...]


def train_head(
    run_folder: Path,
    head: Head,
    train_table: FeatureTable,
    *,
    validation_table: FeatureTable | None = None,
    settings: TrainSettings | None = None,
    prior: str = "frequency",
    device: str | torch.device = "cpu",
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainResult:
    """Train.

    Args:
        run_folder: made if absent.
        head: from `create_head`; trained in place, so it ends as of the last epoch.
        train_table: segments to learn from; one view of each is drawn per epoch.
        validation_table: segments to choose the epoch by, on the mean of their views' scores.
        settings: by default those of the paper for R-50.
        prior: of actions, counted on the training segments; see `metrics.action_prior`.
        device: where to train.
        provenance: JSON-able; kept in the checkpoints.
        resume: go on where the run folder's last epoch ended; start where there is none.
        on_epoch: called after each epoch, when its files are written.

    Raises:
        FileExistsError: the folder holds a training, and `resume` is false.
        ValueError: labels outside the head's classes, or `resume` into a different training.
        FloatingPointError: the loss or the weights are no longer finite. The files stay as of the
            last good epoch.
    """
    settings = settings or TrainSettings()
    last = run_folder / LAST_FILE
    if last.exists() and not resume:
        raise FileExistsError(
            f"got {run_folder} with a training in it; resume it or choose another"
        )
    identity = _identity(train_table, validation_table, settings, prior)
    trainer = _create_trainer(head, train_table, validation_table, settings, prior, device)
    history: list[EpochReport] = []
    if last.exists():
        history = load_training_state(last, head, trainer.optimizer, identity=identity)
    run_folder.mkdir(parents=True, exist_ok=True)
    _train_and_write(trainer, run_folder, history, identity, provenance or {}, on_epoch)
    kept = max(report.epoch for report in history if report.kept)
    return TrainResult(run_folder / HEAD_FILE, kept, trainer.selection, tuple(history))


def _train_and_write(
    trainer: _Trainer,
    run_folder: Path,
    history: list[EpochReport],
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Train the epochs that `history` lacks, write each, and add it to `history`."""
    head, optimizer = trainer.head, trainer.optimizer
    with open_training_log(run_folder, epochs_done=len(history)) as log:
        for epoch in range(len(history) + 1, trainer.settings.epochs + 1):
            report = trainer.run_epoch(epoch, history)
            history.append(report)
            if report.kept:
                save_head(
                    run_folder / HEAD_FILE,
                    head,
                    provenance=provenance,
                    training={"epoch": epoch, "selection": trainer.selection},
                )
            log.add(history)
            save_training_state(
                run_folder / LAST_FILE,
                head,
                optimizer,
                history,
                identity=identity,
                provenance=provenance,
            )
            if on_epoch:
                on_epoch(report)


@dataclass(frozen=True)
class _Trainer:
    """The arguments of one training, and an epoch of it."""

    head: Head
    optimizer: SGD
    train_table: FeatureTable
    validation_table: FeatureTable | None
    settings: TrainSettings
    mu: NDArray[np.float64]
    device: str | torch.device

    @property
    def selection(self) -> str:
        return LAST if self.validation_table is None else BEST

    def run_epoch(self, epoch: int, history: Sequence[EpochReport]) -> EpochReport:
        """Train and measure. The epoch is kept if it is the best so far, or cannot be judged."""
        started = time.perf_counter()
        loss, verb_top1, noun_top1 = self._train(epoch)
        measured, kept = None, True
        if self.validation_table is not None:
            scores = score_table(self.head, self.validation_table, device=self.device)
            measured = scores.metrics(self.mu)
            earlier = [report.validation.action_top1 for report in history if report.validation]
            kept = measured.action_top1 > max(earlier, default=-1.0)
        return EpochReport(
            epoch=epoch,
            epochs=self.settings.epochs,
            learning_rate=self.settings.learning_rate_at(epoch),
            loss=loss,
            verb_top1=verb_top1,
            noun_top1=noun_top1,
            seconds=time.perf_counter() - started,
            validation=measured,
            kept=kept,
        )

    def _train(self, epoch: int) -> tuple[float, float, float]:
        """One pass; mean loss, verb top-1 and noun top-1."""
        table, size = self.train_table, self.settings.batch_size
        generator = np.random.default_rng((self.settings.seed, epoch))
        order = generator.permutation(len(table))
        views = table.draw_views(generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(epoch)
        self.head.train()
        total, correct = 0.0, {"verb": 0, "noun": 0}
        groups = batches_of(order, size)
        requests = [(indices, views[indices]) for indices in groups]
        with open_batches(table, requests, device=self.device) as batches:
            for indices, batch in zip(groups, batches, strict=True):
                labels = table.labels(indices, device=self.device)
                logits = self.head(batch)
                loss = self.head.loss(logits, labels)
                value = loss.item()
                if not np.isfinite(value):
                    raise _not_finite(f"a loss of {value}", epoch, table.segment_ids(indices))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += value * len(indices)
                for name in correct:
                    correct[name] += int((logits[name].argmax(1) == labels[name]).sum())
        # A step can break the weights after a finite loss; the next batch would show it, but the
        # last one of an epoch has none.
        if not all(bool(parameter.isfinite().all()) for parameter in self.head.parameters()):
            raise _not_finite("NaN or infinite weights", epoch, table.segment_ids(indices))
        return total / len(order), correct["verb"] / len(order), correct["noun"] / len(order)


def _create_trainer(
    head: Head,
    train_table: FeatureTable,
    validation_table: FeatureTable | None,
    settings: TrainSettings,
    prior: str,
    device: str | torch.device,
) -> _Trainer:
    """The trainer, once its labels are known to fit; the head is on its device."""
    return _Trainer(
        head=head.to(device),
        optimizer=_create_optimizer(head, settings),
        train_table=train_table,
        validation_table=validation_table,
        settings=settings,
        mu=_checked_prior(head, train_table, validation_table, prior),
        device=device,
    )


def _not_finite(what: str, epoch: int, segment_ids: Sequence[str]) -> FloatingPointError:
    return FloatingPointError(
        f"got {what} in epoch {epoch} from the batch of segments {', '.join(segment_ids)}; check "
        "their features or lower the learning rate. The run's files are as of the epoch before"
    )


def _create_optimizer(head: Head, settings: TrainSettings) -> SGD:
    return SGD(
        head.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _checked_prior(
    head: Head, train_table: FeatureTable, validation_table: FeatureTable | None, kind: str
) -> NDArray[np.float64]:
    """The prior of the training segments, once all labels are known to fit the head."""
    sizes = head.config.num_verbs, head.config.num_nouns
    train_table.check_labels(*sizes)
    if validation_table is not None:
        validation_table.check_labels(*sizes)
    return action_prior(kind, train_table.verbs, train_table.nouns, *sizes)


def _identity(
    train_table: FeatureTable,
    validation_table: FeatureTable | None,
    settings: TrainSettings,
    prior: str,
) -> dict[str, Any]:
    """What two runs must share for one to go on from the other, as JSON gives it back."""
    return {
        "settings": {**asdict(settings), "decay_epochs": list(settings.decay_epochs)},
        "prior": prior,
        "training segments": train_table.fingerprint(),
        "validation segments": None if validation_table is None else validation_table.fingerprint(),
    }
