"""`symbio plan`: what a run would make, take and need, and all that would stop it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.checks import Problem, ProblemName, check_config, check_holder, check_space, refuse
from pipeline.config import ExperimentConfig
from pipeline.config_executor import worker_count
from pipeline.console import (
    format_nbytes,
    format_seconds,
    print_boxless,
    print_missing,
)
from pipeline.errors import MENDABLE, WeightsError, in_words
from pipeline.executor_checks import check_executor
from pipeline.experiment import Experiment, MissingVideo, resolve
from pipeline.forecast import StageForecast, forecast, free_nbytes
from pipeline.input_checks import look_at_inputs
from pipeline.job_report import rows_of_jobs
from pipeline.merge_commands import print_jobs
from pipeline.plan import (
    StagePlan,
    plan_all,
    without_absent,
    without_out,
    without_waiting,
)
from pipeline.rates import Rate, measure_rates, past_rates
from pipeline.stored import open_if_there, remember
from pipeline.tables import FittingTable, table

__all__ = ["Plan", "make_plan", "plan_table", "show_plan"]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        stages: in the order they run; none where something is so wrong that nobody knows.
        missing: videos that are not there, whose rows would not be made.
        problems: what would stop a run.
    """

    experiment: Experiment | None
    stages: Sequence[StageForecast]
    missing: Sequence[MissingVideo]
    problems: Sequence[Problem]

    @property
    def exit_code(self) -> int:
        """2: a run would not start; 1: it would leave rows out; 0: it would make all of them."""
        if self.problems:
            return 2
        return 1 if self.missing or any(stage.failed for stage in self.stages) else 0

    @property
    def nbytes(self) -> int:
        """Of all shards to be written; the most there can be where rows are compressed."""
        return sum(stage.nbytes for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """For all stages; None where a rate is not known."""
        seconds = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(seconds) if len(seconds) == len(self.stages) else None


def show_plan(
    config: ExperimentConfig,
    console: Console,
    *,
    rehash: bool,
    measure: int | None,
    as_json: bool,
) -> int:
    """Print what a run would make; return the exit code.

    Raises:
        ConfigError: something is in the way of a run; with `as_json` it is in the document.
    """
    plan = make_plan(config, rehash=rehash, measure=measure)
    if as_json:
        print(json.dumps(_document(config, plan), indent=2))
        return plan.exit_code
    if plan.stages:
        console.print(plan_table(plan))
        for reason, stages in _reasons(plan).items():
            console.print(Text(f"{', '.join(stages)}: {reason}"))
        print_jobs(console, config.store.path)
        console.print(_summary(config, plan))
    print_missing(console, plan.missing)
    if plan.experiment is not None:
        print_boxless(console, plan.experiment)
    refuse(plan.problems)
    return plan.exit_code


def make_plan(config: ExperimentConfig, *, rehash: bool, measure: int | None) -> Plan:
    """Look at everything a run depends on, as far as that is possible.

    Args:
        measure: so many rows of each stage are made and forgotten, to know how fast that is.
    """
    of_workers = check_executor(config)
    problems = [*check_config(config), *of_workers, *check_holder(config.store.path)]
    if any(problem.name in ("weights", "package", "store") for problem in problems):
        of_inputs, missing = look_at_inputs(config)
        # Stages have no keys, or nobody knows what is stored.
        return Plan(None, (), missing, [*problems, *of_inputs])
    try:
        experiment = resolve(config, rehash=rehash)
        with open_if_there(config.store.path) as store:
            plans = plan_all(experiment, store)
            by_name = {p.stage.name: p for p in plans if p.stage.name in experiment.video_stages}
            out = rows_of_jobs(config.store.path)
            left = without_out(by_name, out)
            there, gone = without_absent(experiment, left)
            upstream = {stage.name: there[stage.name] for stage in experiment.aligned.upstream}
            plans = [
                there.get(plan.stage.name) or without_waiting(plan, upstream, out) for plan in plans
            ]
            can_measure = measure is not None and not problems
            rates = _rates(config, experiment, plans, measure if can_measure else None)
            remember(experiment, store)
            stages = [forecast(experiment, plan, rates) for plan in plans]
    except MENDABLE as error:
        name: ProblemName = "weights" if isinstance(error, WeightsError) else "config"
        _, missing = look_at_inputs(config)
        return Plan(None, (), missing, [*problems, Problem(name, in_words(error))])
    if not any(stage.missing for stage in stages):  # nobody is asked to work then
        problems = [problem for problem in problems if problem not in of_workers]
    sure = sum(stage.nbytes for stage in stages if not stage.at_most)
    problems += check_space(config.store.path, sure)
    return Plan(experiment, stages, [*experiment.missing_videos, *gone], problems)


def _rates(
    config: ExperimentConfig,
    experiment: Experiment,
    plans: Sequence[StagePlan[Any]],
    measure: int | None,
) -> dict[str, Rate]:
    rates = past_rates(
        config.store.path,
        [plan.stage for plan in plans],
        config.device,
        worker_count(config.executor),
    )
    return rates | (measure_rates(experiment, plans, measure) if measure else {})


def _reasons(plan: Plan) -> dict[str, list[str]]:
    """Why there is something to do or nothing, and the stages of which that is so."""
    reasons: dict[str, list[str]] = {}
    for stage in plan.stages:
        reasons.setdefault(stage.reason, []).append(stage.stage)
    return reasons


def plan_table(plan: Plan) -> FittingTable:
    """A line for each stage."""
    some_out = any(stage.out for stage in plan.stages)
    rows = [
        (
            stage.stage,
            stage.key[:12],
            f"{stage.wanted:,}",
            f"{stage.present:,}",
            f"{stage.failed:,}",
            *([f"{stage.out:,}"] if some_out else []),
            f"{stage.missing:,}",
            _size(stage.nbytes, at_most=stage.at_most) if stage.missing else "",
            _time(stage),
        )
        for stage in plan.stages
    ]
    columns = {"stage": "left", "key": "left"}
    out = ("out",) if some_out else ()
    numbers = ("wanted", "present", "failed", *out, "to do", "to write", "takes")
    columns |= dict.fromkeys(numbers, "right")
    return table("Plan", columns, rows, spare=("key",))


def _summary(config: ExperimentConfig, plan: Plan) -> Text:
    at_most = any(stage.at_most for stage in plan.stages)
    free = format_nbytes(free_nbytes(config.store.path))
    parts = [f"to write: {_size(plan.nbytes, at_most=at_most)} of {free} free"]
    todo = [stage for stage in plan.stages if stage.missing]
    unknown = [stage.stage for stage in todo if stage.rate is None]
    known = [stage for stage in todo if stage.rate is not None]
    if known:
        seconds = format_seconds(sum(stage.seconds or 0 for stage in known))
        origins = " and ".join(sorted({str(stage.rate) for stage in known}))
        without = f" without {' and '.join(unknown)}" if unknown else ""
        parts.append(f"takes about {seconds}{without}, {origins}")
    if unknown:
        parts.append(f"hours of {', '.join(unknown)} unknown: --measure, or make some first")
    return Text("; ".join(parts))


def _size(nbytes: int, *, at_most: bool) -> str:
    return f"{'≤ ' * at_most}{format_nbytes(nbytes)}"


def _time(stage: StageForecast) -> str:
    if not stage.missing:
        return ""
    return "?" if stage.seconds is None else format_seconds(stage.seconds)


def _document(config: ExperimentConfig, plan: Plan) -> dict[str, Any]:
    return {
        "config": config.name,
        "store": str(config.store.path),
        "stages": [stage.to_json() for stage in plan.stages],
        "nbytes": plan.nbytes,
        "free_nbytes": free_nbytes(config.store.path),
        "seconds": plan.seconds if plan.stages else None,
        "missing_videos": [
            {"video_id": m.video.video_id, "reason": m.reason, m.unit: m.count}
            for m in plan.missing
        ],
        "problems": [problem.to_json() for problem in plan.problems],
        "exit_code": plan.exit_code,
    }
