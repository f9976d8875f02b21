"""What is known of one row: stored and since when, failed and why, or missing and why."""

from __future__ import annotations

import csv
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pipeline.error_classes import class_name
from pipeline.errors import ConfigError
from pipeline.experiment import Experiment
from pipeline.explain import why_missing
from pipeline.explain_rows import info_of
from pipeline.journal_files import run_logs
from pipeline.plan import StagePlan
from pipeline.rows import DerivedRow, VideoRow
from stores.base import FeatureStore, Store
from stores.formats import shard_format
from stores.layout import read_layout
from stores.row_keys import packed_array
from stores.rows_csv import ROWS_FILE

__all__ = ["RowAccount", "account_of", "find_row"]

SUGGESTIONS = 3


@dataclass(frozen=True)
class RowAccount:
    """One row, whatever its state.

    Attributes:
        reason: stable name: of `explain.RowReason`, or of the class of its failure; "" if stored.
        text: for people.
        stored_at: UTC time its shard was written.
        log: of the run that wrote it, if it kept one.
        frame: at which it failed.
    """

    stage: str
    key: str
    clip: str
    video: str
    row: str
    state: Literal["stored", "failed", "missing"]
    reason: str
    text: str
    stored_at: str | None = None
    log: str | None = None
    frame: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; see docs/extraction.md for the fields."""
        return asdict(self)


def find_row(experiment: Experiment, plan: StagePlan[Any], clip_id: str) -> VideoRow | DerivedRow:
    """The row of a stage that has a name.

    Raises:
        ConfigError: none has; says which are like it, or that its video is missing.
    """
    names = []
    for row in plan.stage.rows(experiment.table):
        names.append(info_of(row).clip_id)
        if names[-1] == clip_id:
            return row
    for missing in experiment.missing_videos:
        if clip_id.startswith((f"{missing.video.video_id}/", f"{missing.video.video_id}@")):
            raise ConfigError(f"--clip {clip_id}: its video is missing: {missing.reason}")
    like = get_close_matches(clip_id, names, SUGGESTIONS, cutoff=0) or ["no row at all"]
    raise ConfigError(
        f"--clip: stage {plan.stage.name} has no row {clip_id!r} of its own (rows of equal content "
        f"are one, under the first name); expected one such as {', '.join(like)}"
    )


def account_of(
    experiment: Experiment,
    store: Store | None,
    plan: StagePlan[Any],
    row: VideoRow | DerivedRow,
) -> RowAccount:
    """Say what is known of a row of a planned stage."""
    info = info_of(row)
    known = (plan.stage.name, plan.stage.key, info.clip_id, info.video_id, row.key)
    generation = plan.generation
    if generation is not None and not generation.missing([row.key]):
        stored_at = _stored_at(generation, row.key)
        log = None if store is None else _log_of(store.path, stored_at)
        return RowAccount(
            *known,
            state="stored",
            reason="",
            text=f"stored in {generation.path}",
            stored_at=None if stored_at is None else stored_at.isoformat(timespec="seconds"),
            log=None if log is None else str(log),
        )
    for failure in plan.failures:
        if failure.row_key == row.key:
            name = class_name(failure.error_class)
            return RowAccount(*known, "failed", name, failure.message, frame=failure.frame)
    todo = plan.todo.take(plan.todo.keys == packed_array([row.key]))
    ((reason, _),) = why_missing(experiment, store, replace(plan, todo=todo))
    return RowAccount(*known, "missing", reason.name, reason.text)


def _stored_at(generation: FeatureStore, row_key: str) -> datetime | None:
    """When a row's shard was written, as the file system tells."""
    with suppress(OSError, ValueError, LookupError, StopIteration):  # a row not yet listed
        layout = read_layout(generation.path)
        form = shard_format(layout.format)
        with (generation.path / ROWS_FILE).open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            row = next(int(line["row"]) for line in lines if line["row_key"] == row_key)
        shard = row // layout.rows_per_shard
        path = form.path(layout, next(iter(form.parts(layout))), shard)
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None


def _log_of(store: Path, stored_at: datetime | None) -> Path | None:
    """The log of the run that was on when a shard was written: the last one begun before."""
    if stored_at is None:
        return None
    # A shard may be said to be as old as the whole second it was written in.
    stamp = f"{stored_at:%Y%m%dT%H%M%S}.999999Z"
    return next((log for log in run_logs(store) if log.name <= stamp), None)
