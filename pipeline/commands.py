"""What the commands do, between the command line and the pipeline: call, then show."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast, get_args

from rich.console import Console
from rich.text import Text

from heads.metrics import Metrics
from heads.training_log import EpochReport
from pipeline.config import ExperimentConfig
from pipeline.console import (
    ProgressReporter,
    plan_table,
    print_failures,
    print_missing,
    print_run,
    table,
)
from pipeline.experiment import Experiment, resolve
from pipeline.finetune import FinetuneEpoch
from pipeline.heads_on_store import Evaluated, evaluate_run, train_run
from pipeline.plan import plan_all, without_absent
from pipeline.run import run_experiment
from pipeline.run_report import RunReport, write_report
from pipeline.runs import default_run_folder, open_run_folder
from pipeline.stage_one import Network, default_finetune_folder, run_finetune
from stores.registry import open_store

__all__ = [
    "evaluate_head",
    "finetune_network",
    "run_stages",
    "show_plan",
    "show_status",
    "train_head",
]


def show_plan(config: ExperimentConfig, console: Console, *, rehash: bool) -> None:
    """Print rows and bytes that a run would make, and why."""
    experiment = resolve(config, rehash=rehash)
    with _open_if_there(config.store.path) as store:
        plans = plan_all(experiment, store)
        console.print(plan_table(plans))
    videos = {p.stage.name: p for p in plans if p.stage.name in experiment.video_stages}
    _, gone = without_absent(experiment, videos)
    print_missing(console, [*experiment.missing_videos, *gone])
    _print_boxless(experiment, console)


def run_stages(
    config: ExperimentConfig,
    console: Console,
    *,
    stages: Collection[str],
    retry_failed: bool,
    rehash: bool,
    quiet: bool,
    report_path: Path | None = None,
) -> RunReport:
    """Bring stages up to date, with progress and a summary, and a report for programs."""
    if report_path is not None and not report_path.parent.is_dir():
        raise FileNotFoundError(f"{report_path.parent}: no such folder for the report; make it")
    experiment = resolve(config, rehash=rehash)
    with _stop_on_signals() as stop, ProgressReporter(console, quiet=quiet) as reporter:
        report = run_experiment(
            experiment, stages=stages, retry_failed=retry_failed, reporter=reporter, stop=stop
        )
    print_run(console, report, quiet=quiet)
    if report_path is not None:
        write_report(report, report_path)
    _print_boxless(experiment, console)
    return report


def show_status(config: ExperimentConfig, console: Console, *, each_row: bool = False) -> None:
    """Print stored, missing and failed rows of an experiment, and why rows failed.

    Args:
        each_row: list every failed row instead of one line for those of a video that failed alike.
    """
    experiment = resolve(config)
    with _open_if_there(config.store.path) as store:
        plans = plan_all(experiment, store)
        rows = [
            (p.stage.name, p.stage.key[:12], p.wanted, p.present, len(p.todo), p.failed)
            for p in plans
        ]
        columns = {"stage": "left", "key": "left"}
        columns |= dict.fromkeys(("wanted", "present", "missing", "failed"), "right")
        console.print(table(f"{config.name} in {config.store.path}", columns, rows))
    print_failures(console, {p.stage.name: p.failures for p in plans}, each_row=each_row)
    print_missing(console, experiment.missing_videos)


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
    skip_missing: bool,
    quiet: bool,
) -> Path:
    """Train a head and evaluate it where there are validation segments."""
    folder = run_folder or default_run_folder(config)

    def show(report: EpochReport) -> None:
        if not quiet:
            console.print(format_epoch(report))

    experiment = resolve(config)
    train_run(experiment, folder, resume=resume, skip_missing=skip_missing, on_epoch=show)
    split = config.evaluate.split
    if experiment.dataset.split(split):
        found = evaluate_run(experiment, folder, split=split, skip_missing=skip_missing)
        console.print(metrics_table(str(folder), found))
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
    console.print(metrics_table(str(run_folder), found))
    return found


def metrics_table(title: str, found: Evaluated) -> Any:
    """Top-1 and top-5 in percent."""
    numbers = asdict(found.metrics)
    rows = [
        (name, _percent(numbers[f"{name}_top1"]), _percent(numbers[f"{name}_top5"]))
        for name in ("verb", "noun", "action")
    ]
    note = f", {found.skipped} skipped" if found.skipped else ""
    named = f"{title}: {found.split}, {found.metrics.num_segments:,} segments{note}"
    return table(named, {"": "left", "top-1 %": "right", "top-5 %": "right"}, rows)


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


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM asks for an early end, the second one forces it."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals: Sequence[Literal[signal.Signals.SIGINT, signal.Signals.SIGTERM]]
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers: list[Callable[..., Any] | int | None] = [signal.signal(s, ask) for s in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)


def _open_if_there(path: Path) -> Any:
    """The store opened for reading, or None inside a context where there is none yet."""
    nothing: Any = nullcontext(None)
    absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    return nothing if absent else open_store(path, mode="r")


def _print_boxless(experiment: Experiment, console: Console) -> None:
    """How many frames have no given boxes: a few are honest, many are a mistake in the file."""
    stage = experiment.aligned.objects
    if stage.boxes is None:
        return
    rows = stage.rows(experiment.clips, experiment.identities)
    empty = sum(row.boxes is not None and not len(row.boxes.scores) for row in rows)
    if empty:
        line = f"{empty:,} of {len(rows):,} object frames have no boxes in {stage.boxes.path}"
        console.print(Text(line, style="yellow"))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:5.1f}"
