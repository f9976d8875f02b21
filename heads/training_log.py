"""What training says after each epoch, and where it goes: `log.csv` and TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.atomic import write_atomically
from heads.metrics import Metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class EpochReport:
    """One epoch. Accuracies are fractions; the training ones are those of each batch before its
    step, averaged over the epoch.
    """

    epoch: int
    """Counted from 1."""
    epochs: int
    """Of the whole training."""
    learning_rate: float
    loss: float
    """CE(verb) + CE(noun), averaged over the segments."""
    verb_top1: float
    noun_top1: float
    seconds: float
    """Wall time, validation included."""
    validation: Metrics | None
    """`None` without validation segments."""
    kept: bool
    """True if `head.safetensors` was written from this epoch."""

    def scalars(self) -> dict[str, float]:
        """All numbers but the epoch's, by the names of the log's columns."""
        numbers = {
            "learning_rate": self.learning_rate,
            "train_loss": self.loss,
            "train_verb_top1": self.verb_top1,
            "train_noun_top1": self.noun_top1,
        }
        if self.validation is not None:
            measured = asdict(self.validation)
            del measured["num_segments"]
            numbers.update({f"validation_{name}": value for name, value in measured.items()})
        return {**numbers, "seconds": self.seconds}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EpochReport:
        """The inverse of `dataclasses.asdict`."""
        validation = fields["validation"]
        return cls(**{**fields, "validation": Metrics(**validation) if validation else None})


class TrainingLog:
    """Writes a run's `log.csv` and its events."""

    def __init__(self, run_folder: Path, events: SummaryWriter) -> None:
        self._csv_path = run_folder / "log.csv"
        self._events = events

    def add(self, history: Sequence[EpochReport]) -> None:
        """Write the last report of a history; `log.csv` is rewritten whole, atomically."""
        self.rewrite(history)
        for name, value in history[-1].scalars().items():
            self._events.add_scalar(name, value, history[-1].epoch)
        self._events.flush()

    def rewrite(self, history: Sequence[EpochReport]) -> None:
        """Make `log.csv` say what the history says."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["epoch", *history[-1].scalars()])
        writer.writerows([report.epoch, *report.scalars().values()] for report in history)
        write_atomically(self._csv_path, buffer.getvalue().encode())


@contextmanager
def open_training_log(run_folder: Path, history: Sequence[EpochReport]) -> Iterator[TrainingLog]:
    """A log that goes on after a history; what it says of later epochs, from a run that was cut
    off or went back, is dropped. Events lie in `run_folder/tensorboard`.
    """
    # Here, not on top: it takes seconds, and only training needs it.
    from torch.utils.tensorboard import SummaryWriter

    events = SummaryWriter(str(run_folder / "tensorboard"), purge_step=len(history) + 1)
    try:
        log = TrainingLog(run_folder, events)
        if history:
            log.rewrite(history)
        yield log
    finally:
        events.close()
