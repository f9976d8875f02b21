"""Training a head on stored features (the papers' second stage).

Files in the run folder, each written atomically after every epoch:
- `head.safetensors`: the head to use: the epoch with the best validation action top-1 (the earliest
  of equals), or the last epoch where there is no validation; its metadata says which and why;
- `epochs/`: whole states to go back to, where they are asked for (see `kept_epochs`);
- `last.safetensors`: the last epoch, with all that `resume` needs; written last, so it marks the
  epoch as done;
- `log.csv` and `tensorboard/`.

On the CPU, results are a function of head, tables and settings, to the bit, interrupted or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.base import Head
from heads.checkpoint import save_head
from heads.evaluation import NotFiniteError, score_table
from heads.kept_epochs import go_back, keep_best, kept_state
from heads.optimizer import create_optimizer
from heads.settings import TrainSettings
from heads.table import FeatureTable
from heads.training_log import EpochReport, open_training_log
from heads.training_pass import Learner
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
    prior: NDArray[np.float64] | None = None,
    device: str | torch.device = "cpu",
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
    from_epoch: int | None = None,
    keep_every: int = 0,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainResult:
    """Train.

    Args:
        run_folder: made if absent.
        head: from `create_head`; trained in place, so it ends as of the last epoch.
        train_table: segments to learn from; one view of each is drawn per epoch.
        validation_table: segments to choose the epoch by, on the mean of their views' scores.
        settings: by default those of the paper for R-50.
        prior: (num_verbs, num_nouns), that validation weighs actions with, from
            `metrics.action_prior`; None weighs all alike.
        device: where to train.
        provenance: JSON-able; kept in the checkpoints.
        resume: go on where the run folder's last epoch ended; start where there is none. More
            epochs than before may be asked for, where the schedule is "step".
        from_epoch: with `resume`, go back to this epoch first, which was kept; later ones are gone.
        keep_every: keep the state of every such epoch; 0 keeps none.
        on_epoch: called after each epoch, when its files are written.

    Raises:
        FileExistsError: the folder holds a training, and `resume` is false.
        ValueError: labels outside the head's classes, `resume` into a different training, or
            `from_epoch` without `resume`.
        FileNotFoundError: the state of `from_epoch` was not kept.
        FloatingPointError: the loss or the weights are no longer finite. The files stay as of the
            last good epoch.
    """
    settings = settings or TrainSettings()
    last = run_folder / LAST_FILE
    if from_epoch is not None and not resume:
        raise ValueError(f"got from_epoch={from_epoch} without resume, expected both")
    if last.exists() and not resume:
        raise FileExistsError(
            f"got {run_folder} with a training in it; resume it or choose another"
        )
    mu = _checked_prior(head, train_table, validation_table, prior)
    identity = _identity(train_table, validation_table, settings, mu)
    trainer = _create_trainer(head, train_table, validation_table, settings, mu, device)
    history: list[EpochReport] = []
    state = last if from_epoch is None else kept_state(run_folder, from_epoch)
    if state.exists():
        optimizer = trainer.learner.optimizer
        history = load_training_state(state, head, optimizer, identity=identity)
    if from_epoch is not None:
        go_back(run_folder, from_epoch, head_file=HEAD_FILE, last_file=LAST_FILE)
    run_folder.mkdir(parents=True, exist_ok=True)
    output = _Output(run_folder, identity, provenance or {}, keep_every)
    _train_and_write(trainer, output, history, on_epoch)
    kept = max(report.epoch for report in history if report.kept)
    return TrainResult(run_folder / HEAD_FILE, kept, trainer.selection, tuple(history))


@dataclass(frozen=True)
class _Output:
    """Where a training's files go, and what goes into all of them."""

    run_folder: Path
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    keep_every: int

    def write(self, trainer: _Trainer, history: Sequence[EpochReport]) -> None:
        """The files of the last epoch of a history, apart from the log."""
        head, optimizer = trainer.learner.head, trainer.learner.optimizer
        epoch = history[-1].epoch
        if history[-1].kept:
            save_head(
                self.run_folder / HEAD_FILE,
                head,
                provenance=self.provenance,
                training={"epoch": epoch, "selection": trainer.selection},
            )
        states = [self.run_folder / LAST_FILE]
        if self.keep_every and epoch % self.keep_every == 0:
            states.insert(0, keep_best(self.run_folder, epoch, head_file=HEAD_FILE))
        for path in states:
            save_training_state(
                path,
                head,
                optimizer,
                history,
                identity=self.identity,
                provenance=self.provenance,
            )


def _train_and_write(
    trainer: _Trainer,
    output: _Output,
    history: list[EpochReport],
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Train the epochs that `history` lacks, write each, and add it to `history`."""
    with open_training_log(output.run_folder, history) as log:
        for epoch in range(len(history) + 1, trainer.learner.settings.epochs + 1):
            try:
                history.append(trainer.run_epoch(epoch, history))
            except FloatingPointError as error:
                kept = f"files are as of epoch {epoch - 1}" if history else "no epoch is done"
                raise FloatingPointError(f"{output.run_folder}: {error}; {kept}") from error
            log.add(history)
            output.write(trainer, history)
            if on_epoch:
                on_epoch(history[-1])


@dataclass(frozen=True)
class _Trainer:
    """The arguments of one training, and an epoch of it."""

    learner: Learner
    train_table: FeatureTable
    validation_table: FeatureTable | None
    mu: NDArray[np.float64]

    @property
    def selection(self) -> str:
        return LAST if self.validation_table is None else BEST

    def run_epoch(self, epoch: int, history: Sequence[EpochReport]) -> EpochReport:
        """Train and measure. The epoch is kept if it is the best so far, or cannot be judged."""
        started = time.perf_counter()
        learner = self.learner
        numbers = learner.train_pass(self.train_table, epoch)
        measured, kept = None, True
        if self.validation_table is not None:
            try:
                scores = score_table(learner.head, self.validation_table, device=learner.device)
            except NotFiniteError as error:
                raise FloatingPointError(
                    f"{error}, in validation after epoch {epoch}; lower the learning rate"
                ) from error
            measured = scores.metrics(self.mu)
            earlier = [report.validation.action_top1 for report in history if report.validation]
            kept = measured.action_top1 > max(earlier, default=-1.0)
        return EpochReport(
            epoch=epoch,
            epochs=learner.settings.epochs,
            learning_rate=learner.settings.learning_rate_at(epoch),
            **asdict(numbers),
            seconds=time.perf_counter() - started,
            validation=measured,
            kept=kept,
        )


def _create_trainer(
    head: Head,
    train_table: FeatureTable,
    validation_table: FeatureTable | None,
    settings: TrainSettings,
    mu: NDArray[np.float64],
    device: str | torch.device,
) -> _Trainer:
    """The trainer; the head is on its device."""
    head.to(device)
    learner = Learner(
        head=head,
        forward=torch.compile(head) if settings.compile else head,
        optimizer=create_optimizer(head.parameters(), settings),
        settings=settings,
        device=torch.device(device),
    )
    return _Trainer(learner, train_table, validation_table, mu)


def _checked_prior(
    head: Head,
    train_table: FeatureTable,
    validation_table: FeatureTable | None,
    prior: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """The prior, once it and all labels are known to fit the head."""
    sizes = head.config.num_verbs, head.config.num_nouns
    train_table.check_labels(*sizes)
    if validation_table is not None:
        validation_table.check_labels(*sizes)
    mu = np.ones(sizes) if prior is None else prior
    if mu.shape != sizes:
        raise ValueError(f"got a prior of shape {mu.shape}, expected (V, N) = {sizes}")
    return mu


def _identity(
    train_table: FeatureTable,
    validation_table: FeatureTable | None,
    settings: TrainSettings,
    mu: NDArray[np.float64],
) -> dict[str, Any]:
    """What two runs must share for one to go on from the other, as JSON gives it back."""
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }
    return {
        "settings": plain,
        "action prior": sha256(mu.astype(np.float64).tobytes()).hexdigest()[:12],
        "training segments": train_table.fingerprint(),
        "validation segments": None if validation_table is None else validation_table.fingerprint(),
    }
