"""Line charts as plain numbers: what a template needs to draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report_run import ReportedRun

__all__ = ["Chart", "Line", "Series", "draw_chart", "log_points", "training_charts"]

# Of the drawing, in SVG units that are pixels where the page is wide.
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 36
MOST_TICKS = 6


@dataclass(frozen=True)
class Series:
    """Numbers to draw: (epoch, value) by rising epoch. ``color``: a class of the style sheet."""

    label: str
    color: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A series in the drawing's units. ``last``: its last value in words."""

    label: str
    color: str
    dashed: bool
    path: str
    dots: Sequence[tuple[float, float]]
    last: str


@dataclass(frozen=True)
class Chart:
    """A drawing. ``marker``: x of the kept epoch; ``summary``: the drawing in words."""

    title: str
    unit: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marker: float | None
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def training_charts(run: ReportedRun) -> list[Chart]:
    """Loss, accuracies and learning rate over the epochs of a run."""
    loss = Series("training", "c3", log_points(run, "train_loss"))
    rate = Series("learning rate", "c3", log_points(run, "learning_rate"))
    charts = (
        draw_chart("Loss", "", [loss], run.kept_epoch),
        draw_chart("Top-1", "%", _accuracies(run), run.kept_epoch),
        draw_chart("Learning rate", "", [rate], run.kept_epoch),
    )
    return [chart for chart in charts if chart is not None]


def draw_chart(
    title: str, unit: str, series: Sequence[Series], marked_epoch: float | None
) -> Chart | None:
    """Scale series to the drawing; the axis of values starts at 0.

    Returns:
        None where no series has a point.
    """
    series = [one for one in series if one.points]
    if not series:
        return None
    epochs = [x for one in series for x, _ in one.points]
    first, last = min(epochs), max(epochs)
    y_values = ticks(0, max(0.0, *(y for one in series for _, y in one.points)))
    top = max(y_values[-1], *(y for one in series for _, y in one.points)) or 1.0

    def x_of(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 2)

    whole = [epoch for epoch in ticks(first, last) if first <= epoch <= last and epoch % 1 == 0]
    lines = [_line(one, [(x_of(x), y_of(y)) for x, y in one.points], unit) for one in series]
    inside = marked_epoch is not None and first <= marked_epoch <= last
    return Chart(
        title=title,
        unit=unit,
        lines=lines,
        x_ticks=[(x_of(epoch), f"{epoch:g}") for epoch in whole or [first]],
        y_ticks=[(y_of(value), f"{value:g}") for value in y_values],
        marker=x_of(marked_epoch) if marked_epoch is not None and inside else None,
        summary=f"{title} by epoch, {first:g} to {last:g}. At the end: "
        + "; ".join(f"{line.label} {line.last}" for line in lines),
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, at most seven, the first at or below ``low``, the last at or above ``high``.

    >>> ticks(0, 73)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not high > low:
        return [low, low + 1] if low == 0 else [low]
    rough = (high - low) / (MOST_TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _line(series: Series, points: Sequence[tuple[float, float]], unit: str) -> Line:
    return Line(
        label=series.label,
        color=series.color,
        dashed=series.dashed,
        path=" ".join(f"{x:g},{y:g}" for x, y in points),
        dots=points if len(points) == 1 else (),
        last=f"{series.points[-1][1]:.3g}{f' {unit}' if unit else ''}",
    )


def _accuracies(run: ReportedRun) -> list[Series]:
    columns = (
        ("validation_verb_top1", "verb, validation", "c0", False),
        ("train_verb_top1", "verb, training", "c0", True),
        ("validation_noun_top1", "noun, validation", "c1", False),
        ("train_noun_top1", "noun, training", "c1", True),
        ("validation_action_top1", "action, validation", "c2", False),
    )
    return [
        Series(label, color, log_points(run, column, 100), dashed)
        for column, label, color, dashed in columns
    ]


def log_points(run: ReportedRun, column: str, factor: float = 1) -> list[tuple[float, float]]:
    """(epoch, value) of a column of the run's log; what is no number is left out."""
    return [
        (row["epoch"], factor * row[column])
        for row in run.epochs
        if _is_number(row, "epoch") and _is_number(row, column)
    ]


def _is_number(row: Mapping[str, float], column: str) -> bool:
    return math.isfinite(row.get(column, math.nan))
