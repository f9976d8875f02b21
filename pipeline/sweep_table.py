"""The table of a sweep: mean and sample standard deviation over seeds, for people and programs.

People see percent, on the terminal and in `table.md`. `table.csv` and `runs.csv`, which has a line
per run, hold fractions of 1 with all their digits.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from statistics import mean, stdev

from heads.metrics import Metrics
from pipeline.sweep import Outcome
from pipeline.sweep_plan import Sweep
from stores.durable import make_root, replace_file

__all__ = [
    "PAPER",
    "Summary",
    "Table",
    "official_measures",
    "shown_table",
    "summarize",
    "write_tables",
]

PAPER = "paper"
NOTHING = "–"
USUAL = {field.name for field in fields(Metrics)}


@dataclass(frozen=True)
class Summary:
    """One row. ``values``: a measure's fractions, one per seed that ended well, in their order."""

    label: str
    values: Mapping[str, Sequence[float]]
    paper: Mapping[str, float]
    num_seeds: int


@dataclass(frozen=True)
class Table:
    """What people see: names of columns, and rows of cells; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def summarize(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[Summary]:
    """The rows of the table, as far as runs have ended well."""
    metrics = {(o.label, o.seed): o.metrics for o in outcomes if not o.error}
    found = []
    for row in sweep.rows:
        own = [metrics[row.label, seed] for seed in sweep.seeds if (row.label, seed) in metrics]
        names = dict.fromkeys(name for numbers in own for name in numbers)
        values = {name: [numbers[name] for numbers in own if name in numbers] for name in names}
        paper = {str(name): percent / 100 for name, percent in row.paper.items()}
        found.append(Summary(row.label, values, paper, len(own)))
    return found


def official_measures(summaries: Sequence[Summary]) -> list[str]:
    """The figures of a data set's own evaluation, beyond the usual ones."""
    names = dict.fromkeys(name for summary in summaries for name in summary.values)
    return [name for name in names if name not in USUAL]


def shown_table(sweep: Sweep, summaries: Sequence[Summary], measures: Sequence[str]) -> Table:
    """Percent with one digit; a paper's numbers beside ours; seeds where some are missing.

    Args:
        measures: the columns.
    """
    columns: list[tuple[str, Callable[[Summary], str]]] = [("", lambda summary: summary.label)]
    for name in measures:
        columns.append((name.replace("_", " ").replace("top", "top-"), partial(_ours, name)))
        if any(name in summary.paper for summary in summaries):
            columns.append((PAPER, partial(_papers, name)))
    if any(summary.num_seeds < len(sweep.seeds) for summary in summaries):
        columns.append(("seeds", lambda summary: f"{summary.num_seeds} of {len(sweep.seeds)}"))
    sizes = {size for summary in summaries for size in summary.values.get("num_segments", ())}
    measured = f", {sizes.pop():,} segments" if len(sizes) == 1 else ""
    spread = "" if len(sweep.seeds) == 1 else f", mean ± std of {len(sweep.seeds)} seeds"
    rows = [[cell(summary) for _, cell in columns] for summary in summaries]
    title = f"{sweep.title}{measured}, percent{spread}"
    return Table(title, [name for name, _ in columns], rows)


def _ours(name: str, summary: Summary) -> str:
    percent = [100 * fraction for fraction in summary.values.get(name, ())]
    if not percent:
        return NOTHING
    spread = f" ± {stdev(percent):.1f}" if len(percent) > 1 else ""
    return f"{mean(percent):.1f}{spread}"


def _papers(name: str, summary: Summary) -> str:
    return f"{100 * summary.paper[name]:.1f}" if name in summary.paper else NOTHING


def write_tables(sweep: Sweep, outcomes: Sequence[Outcome], measures: Sequence[str]) -> None:
    """Write `table.md`, `table.csv` and `runs.csv` into the sweep's folder, each as a whole."""
    make_root(sweep.folder)
    summaries = summarize(sweep, outcomes)
    files = {
        "table.md": _markdown(shown_table(sweep, summaries, measures), outcomes),
        "table.csv": _summaries_csv(summaries, measures),
        "runs.csv": _runs_csv(sweep, outcomes, measures),
    }
    for name, text in files.items():
        replace_file(sweep.folder / name, text.encode(), durable=False)


def _markdown(table: Table, outcomes: Sequence[Outcome]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = [":--", *["--:"] * (len(table.columns) - 1)]
    lines = [table.title, "", line(table.columns), line(rule), *(line(row) for row in table.rows)]
    failed = [f"- {' '.join(line.split())}" for line in failure_lines(outcomes)]
    return "\n".join([*lines, *([""] if failed else []), *failed, ""])


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Which runs failed and why, a line for all that failed alike."""
    alike: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.error:
            alike[outcome.error].append(outcome)
    return [
        f"failed: {first.label}, seed {first.seed}"
        + (f", and {len(others):,} more" if others else "")
        + f": {error}"
        for error, (first, *others) in alike.items()
    ]


def _summaries_csv(summaries: Sequence[Summary], measures: Sequence[str]) -> str:
    header: list[object] = ["row", "seeds"]
    for name in measures:
        header += [f"{name}_mean", f"{name}_std", f"{name}_paper"]
    rows: list[list[object]] = [header]
    for summary in summaries:
        row: list[object] = [summary.label, summary.num_seeds]
        for name in measures:
            values = summary.values.get(name, ())
            row.append(mean(values) if values else "")
            row.append(stdev(values) if len(values) > 1 else "")
            row.append(summary.paper.get(name, ""))
        rows.append(row)
    return _csv(rows)


def _runs_csv(sweep: Sweep, outcomes: Sequence[Outcome], measures: Sequence[str]) -> str:
    by_run = {(o.label, o.seed): o for o in outcomes}
    rows: list[list[object]] = [["row", "seed", "folder", *measures, "error"]]
    for row in sweep.rows:
        for seed in sweep.seeds:
            if (found := by_run.get((row.label, seed))) is not None:
                numbers = [found.metrics.get(name, "") for name in measures]
                rows.append([row.label, seed, found.folder, *numbers, found.error])
    return _csv(rows)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
