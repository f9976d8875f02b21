"""What the commands of trainings do: call, then show."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from heads.metrics import Metrics
from heads.training_log import EpochReport
from pipeline.config import ExperimentConfig
from pipeline.console import format_seconds
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.finetune import FinetuneEpoch
from pipeline.head_console import print_measured
from pipeline.head_runs import Evaluated, evaluate_run, train_run
from pipeline.run_status import read_run_status
from pipeline.runs import (
    default_run_folder,
    evaluation_folder,
    open_run_folder,
    with_views,
    write_config,
)
from pipeline.stage_one import Network, default_finetune_folder, run_finetune

__all__ = ["evaluate_head", "finetune_network", "show_run_status", "train_head"]


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


def show_run_status(run_folder: Path, console: Console) -> None:
    """Print how far a training is: its last and its best epoch, its pace, its evaluations."""
    status = read_run_status(run_folder)
    config, done = status.config, len(status.history)
    state = "finished" if status.finished else "not finished"
    console.print(
        f"{run_folder}: head {config.head.name} of experiment {config.name}, seed "
        f"{config.train.seed}: {done} of {status.epochs} epochs, {state}"
    )
    if status.best is None or status.written is None:
        console.print("no epoch is done yet")
        return
    console.print(f"last  {format_epoch(status.history[-1])}")
    console.print(f"kept  {format_epoch(status.best)}")
    ago = (datetime.now(UTC) - status.written).total_seconds()
    pace = f"{status.seconds_per_epoch:.1f} s per epoch, the last one {format_seconds(ago)} ago"
    left = "" if status.finished else f", {format_seconds(status.seconds_left or 0)} left"
    console.print(f"{pace}{left}")
    words = [
        split if epoch == status.head_epoch else f"{split} (with the head of epoch {epoch})"
        for split, epoch in status.evaluated.items()
    ]
    console.print(f"evaluated on: {', '.join(words) or 'nothing yet'}")


def evaluate_head(
    run_folder: Path,
    split: str | None,
    console: Console,
    *,
    views: int | None = None,
    skip_missing: bool,
) -> Evaluated:
    """Score a run's head on one split, from ``views`` clips of each segment."""
    config = open_run_folder(run_folder)
    split = split or config.evaluate.split
    into = evaluation_folder(run_folder, config, split)
    views = views or config.views.test
    other_views = views != config.views.test
    if other_views:
        config = with_views(config, split, views)
        into = run_folder / f"{split}-{views}views"
    found = evaluate_run(
        resolve(config), run_folder, split=split, skip_missing=skip_missing, into=into
    )
    if other_views:
        write_config(into, config)
    print_measured(console, str(into), found)
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
