"""Charts as numbers: ticks, places, what a reader of the summary is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixtures import make_run

from pipeline.report_curves import Series, draw_chart, ticks, training_charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 73, [0, 20, 40, 60, 80]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 5, [0, 1, 2, 3, 4, 5]),
        (0, 1e-4, [0, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4]),
        (1, 15, [0, 5, 10, 15]),
        (3, 3, [3]),
        (0, 0, [0, 1]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_lines_lie_between_the_axes() -> None:
    chart = draw_chart("Top-1", "%", [Series("verb", "c0", [(1, 0), (3, 50), (5, 100)])], 3)
    assert chart is not None
    middle = (chart.left + chart.right) / 2
    height = chart.bottom - chart.top
    assert chart.lines[0].path == (
        f"{chart.left},{chart.bottom} {middle:g},{chart.top + height / 2:g} "
        f"{chart.right},{chart.top}"
    )
    assert chart.marker == middle
    assert [text for _, text in chart.x_ticks] == ["1", "2", "3", "4", "5"]
    assert chart.y_ticks[0] == (chart.bottom, "0")
    assert chart.summary == "Top-1 by epoch, 1 to 5. At the end: verb 100 %"


def test_one_epoch_is_a_dot() -> None:
    chart = draw_chart("Loss", "", [Series("training", "c3", [(1, 2.5)])], 1)
    assert chart is not None
    assert len(chart.lines[0].dots) == 1
    assert [text for _, text in chart.x_ticks] == ["1"]


def test_nothing_to_draw_is_no_chart() -> None:
    assert draw_chart("Loss", "", [Series("training", "c3", [])], 1) is None


def test_an_epoch_outside_is_not_marked() -> None:
    chart = draw_chart("Loss", "", [Series("training", "c3", [(1, 1.0), (2, 1.0)])], 9)
    assert chart is not None
    assert chart.marker is None


def test_a_run_has_loss_accuracy_and_rate(tmp_path: Path) -> None:
    charts = training_charts(make_run(tmp_path))
    assert [chart.title for chart in charts] == ["Loss", "Top-1", "Learning rate"]
    assert [line.label for line in charts[1].lines] == ["verb, validation"]
    assert charts[1].lines[0].last == "60 %"
    assert charts[0].marker == pytest.approx((charts[0].left + charts[0].right) / 2)


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    epochs = [{"epoch": 1.0, "train_loss": float("nan")}, {"epoch": 2.0, "train_loss": 1.0}]
    charts = training_charts(make_run(tmp_path, epochs=epochs))
    assert [chart.title for chart in charts] == ["Loss"]
    assert len(charts[0].lines[0].dots) == 1
    assert training_charts(make_run(tmp_path, epochs=[])) == []
