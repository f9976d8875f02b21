"""What the commands of trainings do: call, then show."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from heads.metrics import Metrics
from heads.training_log import EpochReport
from pipeline.config import ExperimentConfig
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.finetune import FinetuneEpoch
from pipeline.head_console import print_measured
from pipeline.head_runs import Evaluated, evaluate_run, train_run
from pipeline.runs import default_run_folder, open_run_folder
from pipeline.stage_one import Network, default_finetune_folder, run_finetune

__all__ = ["evaluate_head", "finetune_network", "train_head"]


def finetune_network(
    config: ExperimentConfig,
    network: str,
    run_folder: Path | None,
    console: Console,
    *,
    resume: bool,
    quiet: bool,
) -> Path:
    """Train one network of stage one; says where its checkpoint lies."""
    if network not in get_args(Network):
        raise ValueError(f"got network {network!r}, expected one of {', '.join(get_args(Network))}")
    chosen = cast(Network, network)
    folder = run_folder or default_finetune_folder(config, chosen)

    def show(epoch: FinetuneEpoch) -> None:
        if not quiet:
            console.print(format_finetune_epoch(network, epoch))

    checkpoint = run_finetune(config, chosen, folder, resume=resume, on_epoch=show)
    console.print(f"checkpoint: {checkpoint} (give it as stages.{network}.weights)")
    return checkpoint


def train_head(
    config: ExperimentConfig,
    run_folder: Path | None,
    console: Console,
    *,
    resume: bool,
    from_epoch: int | None = None,
    skip_missing: bool,
    quiet: bool,
) -> Path:
    """Train a head and evaluate it; data without ``val`` are trained on all the same.

    Raises:
        ConfigError: ``evaluate.split`` is another one that the data set has not.
    """
    folder = run_folder or default_run_folder(config)

    def show(report: EpochReport) -> None:
        if not quiet:
            console.print(format_epoch(report))

    experiment = resolve(config)
    split, splits = config.evaluate.split, experiment.dataset.splits
    if split not in (*splits, "val"):
        raise ConfigError(f"evaluate.split: got {split!r}, expected one of {', '.join(splits)}")
    train_run(
        experiment,
        folder,
        resume=resume,
        from_epoch=from_epoch,
        skip_missing=skip_missing,
        on_epoch=show,
    )
    if split in splits:
        found = evaluate_run(experiment, folder, split=split, skip_missing=skip_missing)
        print_measured(console, str(folder), found)
    console.print(f"run folder: {folder}")
    return folder


def evaluate_head(
    run_folder: Path, split: str | None, console: Console, *, skip_missing: bool
) -> Evaluated:
    """Score a run's head on one split."""
    config = open_run_folder(run_folder)
    found = evaluate_run(
        resolve(config),
        run_folder,
        split=split or config.evaluate.split,
        skip_missing=skip_missing,
    )
    print_measured(console, str(run_folder), found)
    return found


def format_epoch(report: EpochReport) -> str:
    """One line per epoch of a head's training."""
    line = (
        f"epoch {report.epoch:>3}/{report.epochs}  loss {report.loss:7.4f}  train top-1 "
        f"verb {_percent(report.verb_top1)} noun {_percent(report.noun_top1)}"
    )
    measured: Metrics | None = report.validation
    if measured is not None:
        line += (
            f"  val top-1 verb {_percent(measured.verb_top1)} noun "
            f"{_percent(measured.noun_top1)} action {_percent(measured.action_top1)}"
        )
    return f"{line}  {report.seconds:.1f} s"


def format_finetune_epoch(network: str, epoch: FinetuneEpoch) -> str:
    """One line per epoch of a stage-one training."""
    line = (
        f"{network} epoch {epoch.epoch:>3}/{epoch.epochs}  loss {epoch.train_loss:7.4f}  "
        f"train top-1 {_percent(epoch.train_top1)}"
    )
    if epoch.validation_top1 is not None:
        line += f"  val top-1 {_percent(epoch.validation_top1)}"
    return f"{line}  {epoch.seconds:.1f} s"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:5.1f}"
