"""How fast rows are made: from what past runs kept in their logs, or measured now."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.experiment import Experiment
from pipeline.journal_files import last_event, run_logs
from pipeline.plan import StagePlan, planned_videos
from pipeline.stages import AlignedStage, Stage

__all__ = ["Rate", "last_rates", "measure_rates", "past_rates", "share_out"]

MOST_LOGS = 50  # a year of weekly runs

Origin = Literal["past run", "past run with other settings", "measured"]


@dataclass(frozen=True)
class Rate:
    """How fast rows of a stage are made, each stage by itself: times of several add up.

    Attributes:
        rows: that were made to find out.
        log: of the run they were made in.
        workers: that made them; None in logs that do not say.
        scaled_to: so many workers, if the rate is what they would reach, each with a GPU.
    """

    rows_per_second: float
    origin: Origin
    rows: int
    log: str | None = None
    workers: int | None = None
    scaled_to: int | None = None

    def __str__(self) -> str:
        """Where it is from, in words that follow a time."""
        count = "" if self.workers is None else f" of {self.workers:,} worker"
        count += "s" * ((self.workers or 0) > 1)
        if self.origin == "measured":
            return f"as measured{count}"
        would = "" if self.scaled_to is None else f" (as {self.scaled_to:,} workers would)"
        return f"as a {self.origin}{count} tells{would}"


def past_rates(store: Path, stages: Iterable[Stage], device: str, workers: int) -> dict[str, Rate]:
    """By stage, the rate of the largest of the last runs that made rows of it on such a device.

    Runs with the same settings count before others; stages that no run made rows of lack. With
    GPUs a rate grows with the workers; on a CPU, which workers share, it is that of a run with as
    many, if there is one.

    Args:
        store: folder of the store.
        workers: of the run that is planned, at least 1.
    """
    ends = _ends(store)
    found = {stage.name: _largest(ends, stage, device, workers) for stage in stages}
    return {name: rate for name, rate in found.items() if rate is not None}


def last_rates(store: Path, stages: Iterable[Stage]) -> dict[str, float]:
    """By stage, rows per second on the clock of the last run that made rows with its settings.

    It is what the table of that run says. Stages that are made together share its seconds, so this
    is less than their `Rate`, each stage by itself.
    """
    rates: dict[tuple[str, str], float] = {}
    for event in _ends(store).values():  # the last run first
        for ran in event.get("stages", ()) if event.get("event") == "run_finished" else ():
            if ran["rows"] and ran.get("seconds"):
                rates.setdefault((ran["stage"], ran["key"]), ran["rows"] / ran["seconds"])
    found = {stage.name: rates.get((stage.name, stage.key)) for stage in stages}
    return {name: rate for name, rate in found.items() if rate is not None}


def _ends(store: Path) -> dict[str, dict[str, Any]]:
    """What the last runs said last, by the name of the log; the last run first."""
    logs = run_logs(store)[:MOST_LOGS]
    return {log.name: event for log in logs if (event := last_event(log)) is not None}


def _largest(
    ends: Mapping[str, Mapping[str, Any]], stage: Stage, device: str, workers: int
) -> Rate | None:
    found: list[tuple[bool, bool, int, Rate]] = []
    # The main process makes aligned rows, whoever made the others.
    grows = device.startswith("cuda") and not isinstance(stage, AlignedStage)
    for log, event in ends.items():
        if event.get("event") != "run_finished" or event.get("device") != device:
            continue
        past = event.get("workers")
        scale = workers / past if grows and past else 1.0
        for ran in event.get("stages", ()):
            if ran["stage"] == stage.name and ran["rows"] and ran["own_seconds"]:
                same = ran["key"] == stage.key
                origin: Origin = "past run" if same else "past run with other settings"
                speed = ran["rows"] / ran["own_seconds"] * scale
                scaled_to = None if scale == 1 else workers
                rate = Rate(speed, origin, ran["rows"], log, past, scaled_to)
                found.append((same, grows or past == workers, ran["rows"], rate))
    return max(found, key=lambda entry: entry[:3])[3] if found else None


def measure_rates(
    experiment: Experiment, plans: Sequence[StagePlan[Any]], clips: int
) -> dict[str, Rate]:
    """Make up to so many missing rows of each stage that reads videos, and forget them.

    Args:
        clips: rows of each stage, of the first videos.

    Raises:
        ConfigError: weights do not fit.
    """
    from pipeline.rehearsal import rehearse

    chosen = {
        plan.stage.name: replace(plan, todo=plan.todo[:clips])
        for plan in plans
        if plan.todo and not isinstance(plan.stage, AlignedStage)
    }
    works = [video.work() for video in planned_videos(experiment, chosen)]
    specs = {name: plan.specs for name, plan in chosen.items()}
    made = dict.fromkeys(chosen, 0)
    own: dict[str, float] = {}
    watch = _Watch()
    for progress in rehearse(experiment, works, specs) if works else ():
        watch.note(progress.computed)
        made[progress.stage] += progress.computed
        if progress.summary is not None:
            own[progress.stage] = progress.summary.timings.own_seconds
    shares = share_out(watch.seconds, own)
    return {
        name: Rate(rows / shares[name], "measured", rows, workers=1)
        for name, rows in made.items()
        if rows and shares.get(name)
    }


class _Watch:
    """How long rows take, without what it takes to build networks and to open the first video."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first: tuple[float, int] | None = None  # when a first batch was done, of so many
        self._rows = 0

    def note(self, rows: int) -> None:
        """So many more rows are done."""
        self._rows += rows
        if rows and self._first is None:
            self._first = (time.perf_counter(), rows)

    @property
    def seconds(self) -> float:
        """Of all rows; where there was but one batch, from the very start."""
        now = time.perf_counter()
        if self._first is None or self._rows == self._first[1]:
            return now - self._started
        at, rows = self._first
        return (now - at) * self._rows / (self._rows - rows)


def share_out(seconds: float, own: Mapping[str, float]) -> dict[str, float]:
    """Seconds on the clock that stages spent together, shared out by what each was busy."""
    busy = sum(own.values())
    return {name: seconds * value / busy if busy else 0.0 for name, value in own.items()}
