"""How far an experiment is: what is stored, what failed, and who works on it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pipeline.config import ExperimentConfig
from pipeline.console import format_nbytes, format_rate, format_seconds
from pipeline.error_classes import class_name
from pipeline.experiment import Experiment
from pipeline.journal_files import LiveRun, read_live
from pipeline.plan import StagePlan
from pipeline.rates import last_rates
from pipeline.tables import table
from pipeline.worker_board import WorkerLine
from stores.base import Store

__all__ = ["Status", "look", "look_again", "render"]


@dataclass(frozen=True)
class StageStatus:
    """One stage.

    ``rows`` and ``failures`` are of its generation, also those that others want; ``rate``:
    rows made per second on the clock, by the run that goes on or by the last one.
    """

    stage: str
    key: str
    wanted: int
    present: int
    failed: int
    rows: int
    failures: int
    nbytes: int
    rate: float | None
    classes: Mapping[str, int]


@dataclass(frozen=True)
class Status:
    """What is known of an experiment at one moment."""

    config: ExperimentConfig
    stages: Sequence[StageStatus]
    run: LiveRun | None


def look(experiment: Experiment, store: Store | None, plans: Sequence[StagePlan[Any]]) -> Status:
    """Look at everything."""
    config = experiment.config
    run = read_live(config.store.path)
    sizes = _sizes(store)
    rates = last_rates(config.store.path, [plan.stage for plan in plans])
    stages = []
    for plan in plans:
        rows, failures, nbytes = sizes.get((plan.stage.name, plan.stage.key), (0, 0, 0))
        stages.append(
            StageStatus(
                stage=plan.stage.name,
                key=plan.stage.key,
                wanted=plan.wanted,
                present=plan.present,
                failed=plan.failed,
                rows=rows,
                failures=failures,
                nbytes=nbytes,
                rate=_live_rate(run, plan.stage.name) or rates.get(plan.stage.name),
                classes=Counter(class_name(f.error_class) for f in plan.failures),
            )
        )
    return Status(config, stages, run)


def look_again(status: Status, store: Store | None) -> Status:
    """The same a little later, from what has been added since; much quicker than to plan."""
    run = read_live(status.config.store.path)
    sizes = _sizes(store)
    stages = []
    for stage in status.stages:
        rows, failures, nbytes = sizes.get((stage.stage, stage.key), (0, 0, 0))
        present = min(stage.wanted, stage.present + rows - stage.rows)
        failed, classes = stage.failed, stage.classes
        if store is not None and failures != stage.failures:
            found = store.generation(stage.stage, stage.key).failures()
            classes = Counter(class_name(failure.error_class) for failure in found)
            failed = min(stage.wanted - present, failures)
        stages.append(
            replace(
                stage,
                present=present,
                failed=failed,
                rows=rows,
                failures=failures,
                nbytes=nbytes,
                rate=_live_rate(run, stage.stage) or stage.rate,
                classes=classes,
            )
        )
    return Status(status.config, stages, run)


def render(status: Status) -> RenderableType:
    """As people see it."""
    rows = [
        (
            stage.stage,
            stage.key[:12],
            f"{stage.wanted:,}",
            f"{stage.present:,}",
            f"{stage.wanted - stage.present - stage.failed:,}",
            f"{stage.failed:,}",
            format_nbytes(stage.nbytes) if stage.rows else "",
            "" if stage.rate is None else format_rate(stage.rate),
        )
        for stage in status.stages
    ]
    columns = {"stage": "left", "key": "left"}
    numbers = ("wanted", "present", "missing", "failed", "size", "rate")
    columns |= dict.fromkeys(numbers, "right")
    title = f"{status.config.name} in {status.config.store.path}"
    return Group(table(title, columns, rows, spare=("key",)), *_classes(status), *_run(status.run))


def _classes(status: Status) -> list[Text]:
    total = Counter[str]()
    for stage in status.stages:
        total.update(stage.classes)
    if not total:
        return []
    counts = ", ".join(f"{name} {rows:,}" for name, rows in total.most_common())
    return [Text(f"failed rows by class: {counts}", style="red")]


def _run(run: LiveRun | None) -> list[Text]:
    """Who works on it, or has died doing so."""
    if run is None:
        return []
    if run.verdict == "dead":
        return [Text(f"{run.who}, ended without saying so; symbio run goes on", style="yellow")]
    silent = format_seconds(run.silent_seconds)
    if run.verdict == "silent":
        text = f"{run.who}, has said nothing for {silent}; it may have ended"
        return [Text(text, style="yellow")]
    lines = [Text(f"{run.who}, works on it{_since(run.state.get('started'))}")]
    for name, stage in run.state.get("stages", {}).items():
        speed = stage["rows_per_second"]
        rate = f", {format_rate(speed)}" if speed else ""
        done = stage["stored"] + stage["failed"]
        lines.append(Text(f"    {name}: {done:,} of {stage['rows']:,} rows{rate}"))
    for fields in run.state.get("workers", ()):
        worker = WorkerLine(**fields)
        at_what = f"{worker.at_what}{_since(worker.since)}"
        lines.append(Text(f"    {worker.name} (pid {worker.pid} on {worker.host}): {at_what}"))
    return lines


def _since(time: object) -> str:
    try:
        began = datetime.fromisoformat(str(time))
    except ValueError:
        return ""
    return f", for {format_seconds(max(0.0, (datetime.now(UTC) - began).total_seconds()))}"


def _live_rate(run: LiveRun | None, stage: str) -> float | None:
    if run is None or run.verdict != "running":
        return None
    rate: float | None = run.state.get("stages", {}).get(stage, {}).get("rows_per_second")
    return rate or None


def _sizes(store: Store | None) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Rows, failures and bytes of each generation."""
    infos = [] if store is None else store.generations()
    return {(info.stage, info.key): (info.rows, info.failures, info.nbytes) for info in infos}
