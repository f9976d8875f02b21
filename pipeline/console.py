"""What people see: progress bars and tables. Nothing is computed here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.error_classes import class_name
from pipeline.tables import FittingTable, table

if TYPE_CHECKING:  # they load torch, which looking at a store does not need
    from pipeline.experiment import Experiment, MissingVideo
    from pipeline.run_report import RunReport
    from pipeline.worker_board import WorkerLine
    from stores.base import Failure

__all__ = [
    "ProgressReporter",
    "by_number",
    "count_rows",
    "format_nbytes",
    "format_rate",
    "format_seconds",
    "print_boxless",
    "print_failures",
    "print_missing",
    "print_run",
]

MAX_LINES_SHOWN = 20
# From here on waiting for frames is worth a line.
WAITING_SHARE_TO_TELL = 0.2
LEAST_SECONDS_TO_TELL = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else format_rate(speed))


class _Bars(Progress):
    """Bars, and below them who works on what."""

    workers: Sequence[WorkerLine] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars' table, then a line per worker."""
        yield from super().get_renderables()
        for worker in self.workers:
            yield Text(f"{worker.name}: {worker.at_what}", style="dim", no_wrap=True)


class ProgressReporter:
    """A bar per stage with rate and time left; silent where ``quiet``."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._progress = _Bars(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet,
        )
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._tasks[stage] = self._progress.add_task(stage, total=total)

    def advance(self, stage: str, rows: int) -> None:
        """So many more rows are settled."""
        self._progress.advance(self._tasks[stage], rows)

    def show_workers(self, workers: Sequence[WorkerLine]) -> None:
        """A line for each worker, below the bars."""
        self._progress.workers = list(workers)

    def say(self, text: str) -> None:
        """A line above the bars; also where ``quiet``."""
        self._progress.console.print(Text(text))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def print_missing(console: Console, videos: Sequence[MissingVideo]) -> None:
    """Videos that are not there, and how much waits for them."""
    for missing in videos[:MAX_LINES_SHOWN]:
        unit = missing.unit.removesuffix("s") if missing.count == 1 else missing.unit
        line = f"missing video: {missing.reason} ({missing.count:,} {unit})"
        console.print(Text(line, style="red"))
    if rest := max(0, len(videos) - MAX_LINES_SHOWN):
        more = f"… and {rest:,} more missing video{'s' * (rest > 1)}"
        console.print(Text(more, style="red"))


def print_boxless(console: Console, experiment: Experiment) -> None:
    """How many frames have no given boxes: a few are honest, many are a mistake in the file."""
    stage = experiment.aligned.objects
    if stage.boxes is None:
        return
    empty, frames = stage.count_boxless(experiment.table)
    if empty:
        line = f"{empty:,} of {frames:,} object frames have no boxes in {stage.boxes.path}"
        console.print(Text(line, style="yellow"))


def print_failures(console: Console, failures: Mapping[str, Sequence[Failure]]) -> None:
    """Why rows failed, by video, with their stages; `symbio failures` lists each row."""
    lines = _reasons(failures)
    for line in lines[:MAX_LINES_SHOWN]:
        console.print(Text(line, style="red"))
    if rest := max(0, len(lines) - MAX_LINES_SHOWN):
        console.print(Text(f"… and {rest:,} more reason{'s' * (rest > 1)}", style="red"))
    if lines:
        console.print("symbio failures CONFIG lists each row, and how to see it fail again")


def by_number(clip_id: str) -> tuple[list[str | float], str]:
    """To sort ids as people do: video@2s, video@2.5s, video@10s."""
    parts = re.split(r"(\d+(?:\.\d+)?)", clip_id)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)], clip_id


def _reasons(failures: Mapping[str, Sequence[Failure]]) -> list[str]:
    """A line for all rows of a video that failed alike, of whatever stages and frames."""
    alike: defaultdict[tuple[str, str, str], list[tuple[str, Failure]]] = defaultdict(list)
    for stage, found in failures.items():
        for failure in found:
            words = failure.message.replace(f"frame {failure.frame} of", "frame of")
            name = class_name(failure.error_class)
            alike[failure.video_id, name, words].append((stage, failure))
    lines = []
    for (video_id, name, _), rows in sorted(alike.items(), key=itemgetter(0)):
        stages = ", ".join(dict.fromkeys(stage for stage, _ in rows))
        first = min((failure for _, failure in rows), key=lambda failure: failure.frame or 0)
        count = count_rows(len(rows))
        lines.append(f"failed: {stages}: video {video_id}: {count}: {name}: {first.message}")
    return lines


def print_run(console: Console, report: RunReport, *, quiet: bool) -> None:
    """The summary of a run, and what went wrong."""
    if not quiet:
        console.print(_run_table(report))
        _print_timings(console, report)
    print_missing(console, report.missing_videos)
    print_failures(console, {stage.stage: stage.failures for stage in report.stages})
    if retried := sum(stage.retried for stage in report.stages):
        made = sum(stage.retried_made for stage in report.stages)
        which = f"{count_rows(retried)} that had failed before {'was' if retried == 1 else 'were'}"
        console.print(f"{which} tried again, {made:,} of them made")
    if any(stage.failed_before for stage in report.stages):
        console.print("rows that failed before were left alone; --retry-failed tries them again")
    if any(stage.skipped for stage in report.stages):
        console.print("rows were skipped because rows they are made from are not there")
    if left := sum(stage.left for stage in report.stages):
        out = sum(stage.out for stage in report.stages)
        by_jobs = f", {out:,} of them by jobs that go on" if out else ""
        console.print(
            f"{count_rows(left)} {'is' if left == 1 else 'are'} still to be made{by_jobs}"
        )
    if report.interrupted:
        console.print("interrupted: what was finished is stored; the same command goes on")


def _run_table(report: RunReport) -> FittingTable:
    rows = []
    some_left = any(stage.left for stage in report.stages)
    for stage in report.stages:
        rate = format_rate(stage.made / stage.seconds) if stage.made and stage.seconds else ""
        rows.append(
            (
                stage.stage,
                stage.key[:12],
                f"{stage.present:,}",
                f"{stage.made:,}",
                f"{len(stage.failures) + stage.failed_before:,}",
                f"{stage.skipped:,}",
                *([f"{stage.left:,}"] if some_left else []),
                format_nbytes(stage.nbytes) if stage.nbytes else "",
                f"{stage.seconds:,.1f}" if stage.made else "",
                rate,
            )
        )
    left = ("left",) if some_left else ()
    numbers = ("present", "made", "failed", "skipped", *left, "written", "seconds", "rate")
    columns = {"stage": "left", "key": "left", **dict.fromkeys(numbers, "right")}
    return table("Run", columns, rows, spare=("key", "seconds"))


def _print_timings(console: Console, report: RunReport) -> None:
    """Where the time went, and what would help."""
    ran = [stage for stage in report.stages if stage.made]
    if not ran:
        return
    rows = [
        (stage.stage, *(f"{seconds:,.1f}" for seconds in stage.timings.as_dict().values()))
        for stage in ran
    ]
    names = [name.removesuffix("_seconds") for name in ran[0].timings.as_dict()]
    columns = {"stage": "left", **dict.fromkeys(names, "right")}
    console.print(table("Seconds spent, all processes together", columns, rows))
    wall = max(stage.seconds for stage in ran)
    waiting = sum(stage.timings.waiting_seconds for stage in ran)
    if waiting > WAITING_SHARE_TO_TELL * wall and wall > LEAST_SECONDS_TO_TELL:
        console.print(
            f"the networks waited {waiting / wall:.0%} of the time for decoded frames: a larger "
            "engine.decode_processes or a faster disk would help"
        )
    for stage in ran:
        if stage.batch_size is not None and stage.batch_size < stage.batch_size_wanted:
            console.print(
                f"stage {stage.stage} ran out of memory and went on with batches of "
                f"{stage.batch_size}; set stages.{stage.stage}.batch_size"
            )


def count_rows(rows: int) -> str:
    """1 → "1 row"; 1200 → "1,200 rows"."""
    return f"{rows:,} row{'s' * (rows != 1)}"


def format_rate(rows_per_second: float) -> str:
    """3.25 → "3.2 rows/s"; slow ones as seconds per row."""
    if rows_per_second >= 1:
        return f"{rows_per_second:,.1f} rows/s"
    return f"{1 / rows_per_second:,.1f} s/row"


def format_nbytes(nbytes: float) -> str:
    """1536 → "1.5 KiB"."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A time to wait, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
