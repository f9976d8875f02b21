"""`symbio explain`: why rows of a stage are missing, in words; or what is known of one row."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.config import ExperimentConfig
from pipeline.console import MAX_LINES_SHOWN, count_rows
from pipeline.error_classes import class_name
from pipeline.experiment import Experiment, resolve
from pipeline.explain import Explanation, explain_stage
from pipeline.explain_settings import Nearest, nearest_generation
from pipeline.job_report import maker_of
from pipeline.plan import StagePlan, plan_all
from pipeline.reproduce import ConfigSource
from pipeline.row_account import RowAccount, account_of, find_row
from pipeline.rows import DerivedRow, VideoRow
from pipeline.stored import open_if_there
from pipeline.work import VideoWork
from stores.base import Store

__all__ = ["explain", "explain_row"]


def explain(
    config: ExperimentConfig, source: ConfigSource, console: Console, stage: str, *, as_json: bool
) -> None:
    """Print why rows of a stage are missing, and how to see rows that failed fail again."""
    experiment = resolve(config)
    with open_if_there(config.store.path) as store:
        explained = explain_stage(experiment, store, _plan(experiment, store, stage))
    if as_json:
        print(json.dumps(explained.to_json(), indent=2))
    else:
        _print_stage(console, explained, source)


def explain_row(
    config: ExperimentConfig,
    source: ConfigSource,
    console: Console,
    stage: str,
    clip_id: str,
    *,
    try_it: bool,
    as_json: bool,
) -> bool:
    """Print what is known of one row; make it without storing it if asked to.

    Returns:
        Whether the row could be made; True where that was not tried.

    Raises:
        ConfigError: no row has that name.
    """
    experiment = resolve(config)
    with open_if_there(config.store.path) as store:
        plan = _plan(experiment, store, stage)
        row = find_row(experiment, plan, clip_id)
        account = account_of(experiment, store, plan, row)
        nearest = None
        if plan.generation is None and store is not None:
            nearest = nearest_generation(experiment, store, plan.stage)
        tried = _try(experiment, store, plan, row) if try_it else None
    maker = maker_of(config.store.path, plan.stage.key, row.key)
    if as_json:
        document = account.to_json() | {"nearest": nearest and nearest.to_json(), "tried": tried}
        print(json.dumps(document, indent=2))
    else:
        _print_row(console, account)
        if maker and account.state == "missing":
            console.print(Text(f"    {maker} makes it"))
        _print_nearest(console, nearest)
        if tried is not None:
            _print_tried(console, tried)
        elif account.state == "failed":
            console.print(Text(f"see it again: {source.reproduce(stage, clip_id)}"))
    return tried is None or tried["made"]


def _plan(experiment: Experiment, store: Store | None, stage: str) -> StagePlan[Any]:
    (plan,) = (plan for plan in plan_all(experiment, store) if plan.stage.name == stage)
    return plan


def _try(
    experiment: Experiment,
    store: Store | None,
    plan: StagePlan[Any],
    row: VideoRow | DerivedRow,
) -> dict[str, Any]:
    """Make a row without storing it; what came of it, as JSON values."""
    from pipeline.rehearsal import rehearse, rehearse_aligned

    if isinstance(row, DerivedRow):
        try:
            rehearse_aligned(experiment, store, row, plan.specs)
        except (ValueError, ArithmeticError) as error:
            return _tried(type(error).__name__, str(error), None)
        return {"made": True}
    work = VideoWork(experiment.videos[row.source_id], {plan.stage.name: [row]})
    for progress in rehearse(experiment, [work], {plan.stage.name: plan.specs}):
        for failure in progress.failures:
            return _tried(failure.error_class, failure.message, failure.frame)
    return {"made": True}


def _tried(error_class: str, message: str, frame: int | None) -> dict[str, Any]:
    name = class_name(error_class)
    return {
        "made": False,
        "class": name,
        "exception": error_class,
        "message": message,
        "frame": frame,
    }


def _print_stage(console: Console, explained: Explanation, source: ConfigSource) -> None:
    counts = (
        f"{explained.present:,} of {count_rows(explained.wanted)} are stored, "
        f"{explained.missing:,} {'is' if explained.missing == 1 else 'are'} missing, "
        f"{explained.failed:,} failed"
    )
    console.print(Text(f"{explained.stage} {explained.key[:12]}: {counts}"))
    _print_nearest(console, explained.nearest)
    for reason in explained.reasons[:MAX_LINES_SHOWN]:
        more = ", …" if reason.rows > len(reason.examples) else ""
        console.print(
            Text(f"{count_rows(reason.rows)}: {reason.text} ({', '.join(reason.examples)}{more})")
        )
        if reason.name == "failed":
            again = source.reproduce(explained.stage, reason.examples[0])
            console.print(Text(f"    see it again: {again}"))
    if len(explained.reasons) > MAX_LINES_SHOWN:
        rest = len(explained.reasons) - MAX_LINES_SHOWN
        console.print(f"… and {rest:,} more reason{'s' * (rest > 1)}; --json has them all")
    for missing in list(explained.missing_videos.values())[:MAX_LINES_SHOWN]:
        console.print(Text(f"missing video: {missing}", style="red"))
    if len(explained.missing_videos) > MAX_LINES_SHOWN:
        rest = len(explained.missing_videos) - MAX_LINES_SHOWN
        console.print(f"… and {rest:,} more missing video{'s' * (rest > 1)}; --json has them all")


def _print_nearest(console: Console, nearest: Nearest | None) -> None:
    if nearest is None:
        return
    console.print(
        f"nearest: generation {nearest.key[:12]} of {nearest.created[:10]} with "
        f"{count_rows(nearest.rows)}, which differs in (stored → asked for)"
    )
    for difference in nearest.differences:
        console.print(Text(f"    {difference}"))
    if not nearest.differences:
        console.print("    no setting: this version of symbio makes keys in another way")


def _print_row(console: Console, account: RowAccount) -> None:
    line = f"{account.stage} {account.key[:12]}: {account.clip}: {account.state}"
    if account.reason:
        line += f": {account.reason}"
    frame = "" if account.frame is None else f" (frame {account.frame:,})"
    console.print(Text(f"{line}: {account.text}{frame}"))
    if account.stored_at is not None:
        log = f" by the run that kept {account.log}" if account.log else ""
        console.print(Text(f"    written {account.stored_at}{log}"))


def _print_tried(console: Console, tried: dict[str, Any]) -> None:
    if tried["made"]:
        console.print("tried now: it can be made; nothing was stored")
    else:
        frame = "" if tried["frame"] is None else f" (frame {tried['frame']:,})"
        line = f"tried now: it fails: {tried['class']}: {tried['message']}{frame}"
        console.print(Text(line, style="red"))
