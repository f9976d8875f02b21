"""The page that compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report import official_figures, results_of
from pipeline.report_compare import (
    ClassGain,
    Disagreement,
    Outcome,
    align_runs,
    class_gains,
    color,
    comparison_charts,
    count_outcomes,
    disagreements,
    run_labels,
    setting_differences,
)
from pipeline.report_curves import Chart
from pipeline.report_page import render
from pipeline.report_run import ReportedRun

__all__ = ["FigureRow", "figure_rows", "render_comparison"]


@dataclass(frozen=True)
class FigureRow:
    """One figure of every run as fractions; None where a run lacks it. ``best``: the greatest."""

    name: str
    values: Sequence[float | None]
    best: float | None


@dataclass(frozen=True)
class Column:
    """A run as the page calls it. ``color``: its class of the style sheet."""

    label: str
    color: str
    about: str


@dataclass(frozen=True)
class ComparisonPage:
    """What ``compare.html.j2`` shows."""

    title: str
    lead: str
    notes: Sequence[str]
    runs: Sequence[Column]
    figures: Sequence[FigureRow]
    settings: Sequence[tuple[str, Sequence[str]]]
    charts: Sequence[Chart]
    outcomes: Sequence[Outcome]
    segments: Sequence[Disagreement]
    num_segments: int
    classes: Sequence[tuple[str, Sequence[ClassGain]]]


def render_comparison(runs: Sequence[ReportedRun]) -> str:
    """The comparison of two runs or more as HTML.

    Raises:
        RunFolderError: they were not evaluated on the same segments.
    """
    page = _page(align_runs(runs))
    sections = [
        ("results", "Results"),
        ("settings", "Settings"),
        *([("training", "Training")] if page.charts else []),
        ("segments", "Segments"),
        *((f"{name}s", f"{name.capitalize()}s") for name, _ in page.classes),
    ]
    return render("compare.html.j2", page, sections)


def figure_rows(runs: Sequence[ReportedRun]) -> list[FigureRow]:
    """Top-1, top-5 and official figures of all runs, by name."""
    columns = [_figures(run) for run in runs]
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name) for column in columns]
        rows.append(FigureRow(name, values, max(v for v in values if v is not None)))
    return rows


def _page(runs: Sequence[ReportedRun]) -> ComparisonPage:
    first, labels = runs[0], run_labels(runs)
    segments, num_segments = disagreements(runs)
    classes = [(branch, class_gains(runs, branch)) for branch in ("verb", "noun")]
    return ComparisonPage(
        title=f"{len(runs)} runs compared",
        lead=f"Split {first.split}, {len(first.segment_ids):,} segments. "
        f"Differences are from {labels[0]}.",
        notes=list(dict.fromkeys(note for run in runs for note in run.notes)),
        runs=[
            Column(label, color(i), f"{run.config.name}, {run.what}")
            for i, (run, label) in enumerate(zip(runs, labels, strict=True))
        ],
        figures=figure_rows(runs),
        settings=setting_differences(runs),
        charts=comparison_charts(runs, labels),
        outcomes=count_outcomes(runs, labels),
        segments=segments,
        num_segments=num_segments,
        classes=[(branch, gains) for branch, gains in classes if gains],
    )


def _figures(run: ReportedRun) -> dict[str, float]:
    figures = {}
    for result in results_of(run.metrics):
        figures[f"{result.name} top-1"] = result.top1
        figures[f"{result.name} top-5"] = result.top5
    return figures | dict(official_figures(run.metrics))
