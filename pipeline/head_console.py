"""What people see of scores: a table of figures, and what no training could have learnt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from pipeline.head_metrics import Measured, Untrained
from pipeline.head_runs import Evaluated
from pipeline.tables import table

__all__ = ["print_measured"]

KINDS = ("verb", "noun", "action")
# Column → name of the figure for a verb; those of EGTEA are named otherwise.
COLUMNS = {
    "top-1 %": "{}_top1",
    "top-5 %": "{}_top5",
    "many-shot precision %": "{}_class_mean_precision",
    "many-shot recall %": "{}_class_mean_recall",
    "unseen top-1 %": "unseen_{}_top1",
    "tail top-1 %": "tail_{}_top1",
    "class mean %": "{}_mean_class_accuracy",
}
MOST_NAMES = 8


def print_measured(console: Console, title: str, found: Evaluated) -> None:
    """Official figures in percent, or why there are none."""
    note = f", {found.skipped} skipped" if found.skipped else ""
    named = f"{title}: {found.split}, {found.num_segments:,} segments{note}"
    if found.measured is None:
        console.print(f"{named}; without labels: scores are written, there is nothing to measure")
        return
    columns, rows = _figures(found.measured)
    alignments = {"": "left", **dict.fromkeys(columns, "right")}
    console.print(table(named, alignments, rows))
    _print_untrained(console, found.measured.untrained)


def _figures(measured: Measured) -> tuple[list[str], list[Sequence[str]]]:
    """The columns there are figures for, and a row for verb, noun and action."""
    figures = dict(measured.official)
    if "mean_class_accuracy" in figures:
        figures["action_mean_class_accuracy"] = figures.pop("mean_class_accuracy")
    columns = [
        column
        for column, name in COLUMNS.items()
        if any(name.format(kind) in figures for kind in KINDS)
    ]
    cells = [[figures.get(COLUMNS[column].format(kind)) for column in columns] for kind in KINDS]
    rows: list[Sequence[str]] = [
        (kind, *("–" if value is None else f"{100 * value:5.1f}" for value in row))
        for kind, row in zip(KINDS, cells, strict=True)
    ]
    return columns, rows


def _print_untrained(console: Console, untrained: Untrained) -> None:
    if untrained.num_segments:
        names = [
            f"{kind} {_some(classes)}"
            for kind, classes in (("verbs", untrained.verbs), ("nouns", untrained.nouns))
            if classes
        ]
        console.print(
            f"segments with classes that no training segment has: {untrained.num_segments:,}: "
            f"{'; '.join(names)}",
            markup=False,
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
