"""The report of one run: everything that is known of it, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report_classes import ClassView, view_classes
from pipeline.report_curves import Chart, training_charts
from pipeline.report_page import render
from pipeline.report_run import ReportedRun
from pipeline.report_segments import SegmentFigure, choose_segments, segment_figures
from pipeline.report_settings import (
    Facts,
    StageFacts,
    config_text,
    describe_run,
    describe_stages,
)

__all__ = ["Result", "official_figures", "render_run", "results_of"]

TASKS = ("verb", "noun", "action")


@dataclass(frozen=True)
class Result:
    """Accuracies of one task as fractions."""

    name: str
    top1: float
    top5: float


@dataclass(frozen=True)
class RunPage:
    """What ``run.html.j2`` shows."""

    title: str
    lead: str
    notes: Sequence[str]
    num_segments: int
    results: Sequence[Result]
    official: Sequence[tuple[str, float]]
    kept_epoch: int | None
    charts: Sequence[Chart]
    log_columns: Sequence[str]
    log_rows: Sequence[Sequence[str]]
    figures: Sequence[SegmentFigure]
    classes: Sequence[ClassView]
    facts: Sequence[Facts]
    stages: Sequence[StageFacts]
    config_text: str


def render_run(run: ReportedRun, segment_ids: Sequence[str] = ()) -> str:
    """The report of a run as HTML.

    Args:
        segment_ids: to show with their frames; by default some right and some wrong ones.

    Raises:
        RunFolderError: a segment that the run was not evaluated on.
    """
    page = _page(run, segment_ids or choose_segments(run))
    sections = [
        ("results", "Results"),
        *([("training", "Training")] if page.charts else []),
        *([("segments", "Segments")] if page.figures else []),
        *((f"{view.branch}s", f"{view.branch.capitalize()}s") for view in page.classes),
        ("settings", "Settings"),
        *([("features", "Features")] if page.stages else []),
    ]
    return render("run.html.j2", page, sections)


def results_of(metrics: Mapping[str, Any]) -> list[Result]:
    """Top-1 and top-5 of ``metrics.json``; empty for a split without labels."""
    measured = metrics.get("metrics") or {}
    return [
        Result(task, measured[f"{task}_top1"], measured[f"{task}_top5"])
        for task in TASKS
        if f"{task}_top1" in measured
    ]


def official_figures(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The data set's official figures by name in words, as fractions, but for top-1 and top-5."""
    measured = metrics.get("metrics") or {}
    return [
        (name.replace("_", " ").replace("top", "top-"), value)
        for name, value in (metrics.get("official") or {}).items()
        if name not in measured
    ]


def _page(run: ReportedRun, segment_ids: Sequence[str]) -> RunPage:
    columns = list(dict.fromkeys(name for row in run.epochs for name in row))
    views = [view_classes(branch) for branch in (run.verb, run.noun)]
    return RunPage(
        title=run.name,
        lead=(
            f"Experiment {run.config.name}, {run.what}, split {run.split}."
            + (f" Weights of epoch {run.kept_epoch} of {len(run.epochs)}." if run.epochs else "")
        ),
        notes=run.notes,
        num_segments=len(run.segment_ids),
        results=results_of(run.metrics),
        official=official_figures(run.metrics),
        kept_epoch=run.kept_epoch,
        charts=training_charts(run),
        log_columns=[name.replace("_", " ") for name in columns],
        log_rows=[[_cell(row, name) for name in columns] for row in run.epochs],
        figures=segment_figures(run, list(dict.fromkeys(segment_ids))),
        classes=[view for view in views if view is not None],
        facts=describe_run(run),
        stages=describe_stages(run),
        config_text=config_text(run),
    )


def _cell(row: Mapping[str, float], name: str) -> str:
    return f"{row[name]:.4g}" if name in row else ""
