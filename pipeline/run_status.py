"""How far a training is, from the files of its run folder, also while it goes on.

Each of the files is replaced in one step, so what is read is whole; two of them may be of
neighbouring epochs for a moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from heads.checkpoint import read_checkpoint
from heads.evaluation import METRICS_FILE, SCORES_FILE
from heads.training import HEAD_FILE, LAST_FILE
from heads.training_log import EpochReport
from pipeline.config import ExperimentConfig
from pipeline.config_file import load_config
from pipeline.errors import RunFolderError
from pipeline.runs import CONFIG_NAME

__all__ = ["RunStatus", "read_run_status"]


@dataclass(frozen=True)
class RunStatus:
    """A run: what is trained, and how far it is.

    Attributes:
        history: the epochs done.
        written: when the last of them was, in UTC; None before the first one.
        head_epoch: which epoch ``head.safetensors`` is of.
        evaluated: split, or split and number of views such as ``val-10views`` → the epoch of the
            head that was evaluated on it.
    """

    folder: Path
    config: ExperimentConfig
    history: tuple[EpochReport, ...] = ()
    written: datetime | None = None
    head_epoch: int | None = None
    evaluated: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.config.train.epochs

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.epochs

    @property
    def best(self) -> EpochReport | None:
        """The epoch whose head was kept."""
        return next((report for report in reversed(self.history) if report.kept), None)

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean over the epochs done."""
        return fmean(report.seconds for report in self.history) if self.history else None

    @property
    def seconds_left(self) -> float | None:
        """At that pace, from the end of the last epoch on."""
        pace = self.seconds_per_epoch
        return None if pace is None else pace * max(0, self.epochs - len(self.history))


def read_run_status(folder: Path) -> RunStatus:
    """Look at a run folder; nothing in it is changed.

    Raises:
        RunFolderError: it is no folder of a head's training, or a file of it is damaged.
        ConfigError: its config is not valid.
    """
    if not (folder / CONFIG_NAME).is_file():
        inside = ", ".join(sorted(p.parent.name for p in folder.glob(f"*/{CONFIG_NAME}"))[:3])
        hint = f"; it has run folders in it: {inside}, …" if inside else ""
        raise RunFolderError(
            f"{folder}: got no {CONFIG_NAME}, expected the folder of a `symbio train`{hint}"
        )
    config = load_config(folder / CONFIG_NAME)
    last = folder / LAST_FILE
    if not last.exists() and (folder / SCORES_FILE).is_file():
        raise RunFolderError(
            f"{folder}: got scores without a training, so a fusion or an evaluation; its numbers "
            f"are in {METRICS_FILE}, and `symbio report {folder}` shows them"
        )
    if not last.exists():
        return RunStatus(folder, config)
    try:
        training = read_checkpoint(last).training
        history = tuple(EpochReport.from_dict(fields) for fields in training["history"])
        head_epoch = int(read_checkpoint(folder / HEAD_FILE).training["epoch"])
    except (ValueError, LookupError, TypeError) as error:
        raise RunFolderError(
            f"{folder}: got a {LAST_FILE} or {HEAD_FILE} that tells of no head's training "
            f"({error}), expected the folder of a `symbio train`; that of a `symbio finetune` has "
            "its numbers in log.csv"
        ) from error
    written = datetime.fromtimestamp(last.stat().st_mtime, UTC)
    return RunStatus(folder, config, history, written, head_epoch, _evaluated(folder))


def _evaluated(folder: Path) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for path in (folder / METRICS_FILE, *sorted(folder.glob(f"*/{METRICS_FILE}"))):
        try:
            details = json.loads(path.read_text(encoding="utf-8"))["details"]
            place = details["split"] if path.parent == folder else path.parent.name
            found[str(place)] = details["checkpoint"].get("epoch")
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # not there, or not ours
    return found
