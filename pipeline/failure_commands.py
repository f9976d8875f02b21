"""`symbio failures`: every row that could not be made, why, and how to see it fail again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.config import ExperimentConfig
from pipeline.console import by_number, count_rows
from pipeline.error_classes import class_name, of_classes
from pipeline.experiment import resolve
from pipeline.plan import plan_all
from pipeline.reproduce import ConfigSource, failure_fields
from pipeline.stored import open_if_there
from stores.base import Failure

__all__ = ["show_failures"]


def show_failures(
    config: ExperimentConfig,
    source: ConfigSource,
    console: Console,
    *,
    stages: Collection[str],
    classes: Collection[str],
    as_json: bool,
) -> None:
    """Print the failed rows of an experiment, of these stages and classes.

    Args:
        classes: names as of `class_name`; none is all.
        as_json: print one JSON document in place of text.

    Raises:
        ConfigError: a class that there is not.
    """
    experiment = resolve(config)
    with open_if_there(config.store.path) as store:
        plans = [plan for plan in plan_all(experiment, store) if plan.stage.name in stages]
    every = [failure for plan in plans for failure in plan.failures]
    kept = {id(failure) for failure in of_classes(every, classes)}
    found = {
        plan.stage.name: [failure for failure in plan.failures if id(failure) in kept]
        for plan in plans
    }
    if as_json:
        keys = {plan.stage.name: plan.stage.key for plan in plans}
        print(json.dumps(_document(config, source, found, keys), indent=2))
        return
    for stage, failures in found.items():
        _print(console, source, stage, failures)
    if not kept:
        console.print(_none_said(every))


def _none_said(others: Sequence[Failure]) -> str:
    """That no row failed, or none as was asked for; and how others did."""
    if not others:
        return "no row has failed"
    counts = Counter(class_name(failure.error_class) for failure in others).most_common()
    named = ", ".join(f"{rows:,} {name}" for name, rows in counts)
    of_others = f"{count_rows(len(others))} of others: {named}"
    return f"no row has failed of what --class names, but {of_others}"


def _document(
    config: ExperimentConfig,
    source: ConfigSource,
    found: Mapping[str, Sequence[Failure]],
    keys: Mapping[str, str],
) -> dict[str, Any]:
    failures = [
        failure_fields(failure, stage, source) | {"key": keys[stage]}
        for stage, failures in found.items()
        for failure in _in_order(failures)
    ]
    return {"config": config.name, "store": str(config.store.path), "failures": failures}


def _print(console: Console, source: ConfigSource, stage: str, failures: Iterable[Failure]) -> None:
    """All rows of a video that failed alike together: why, which, and how to see it again."""

    def alike(failure: Failure) -> tuple[str, str, str]:
        return failure.video_id, class_name(failure.error_class), failure.message

    for (video_id, name, message), group in groupby(sorted(_in_order(failures), key=alike), alike):
        rows = list(group)
        console.print(
            Text(
                f"{stage}: video {video_id}: {count_rows(len(rows))}: {name}: {message}",
                style="red",
            )
        )
        for row in rows:
            frame = "" if row.frame is None else f"  frame {row.frame:,}"
            console.print(Text(f"    {row.clip_id}{frame}"))
        console.print(Text(f"  see it again: {source.reproduce(stage, rows[0].clip_id)}"))


def _in_order(failures: Iterable[Failure]) -> list[Failure]:
    return sorted(failures, key=lambda failure: by_number(failure.clip_id))
