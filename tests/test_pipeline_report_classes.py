"""Classes by recall, precision and confusions, counted by hand."""

from __future__ import annotations

import pytest
from report_fixtures import make_branch

from pipeline.report_classes import MATRIX_CLASSES, Confusion, shorten, view_classes

NOUNS = ["cup", "knife", "pan", "lid"]
# cup: three right, one taken for a pan. knife: one right, two taken for a cup. pan: never right.
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, -1]
ANSWERS = [0, 0, 0, 2, 1, 0, 0, 0, 3]


def test_recall_and_precision_by_falling_support() -> None:
    view = view_classes(make_branch("noun", LABELS, ANSWERS, NOUNS))
    assert view is not None
    assert (view.branch, view.num_classes, view.num_segments) == ("noun", 4, 8)
    figures = [row.figures for row in view.rows]
    assert [(f.name, f.num_segments, f.num_predicted, f.recall, f.precision) for f in figures] == [
        ("cup", 4, 6, 3 / 4, 3 / 6),
        ("knife", 3, 1, 1 / 3, 1.0),
        ("pan", 1, 1, 0.0, 0.0),
    ]


def test_a_class_that_is_only_answered_has_no_recall() -> None:
    view = view_classes(make_branch("noun", [0, 1], [0, 3], NOUNS))
    assert view is not None
    assert [(f.name, f.recall, f.precision) for f in (row.figures for row in view.rows)] == [
        ("cup", 1.0, 1.0),
        ("knife", 0.0, None),
        ("lid", None, 0.0),
    ]


def test_confusions_by_falling_count() -> None:
    view = view_classes(make_branch("noun", LABELS, ANSWERS, NOUNS))
    assert view is not None
    assert view.confusions == [
        Confusion("knife", "cup", 2, 2 / 3),
        Confusion("cup", "pan", 1, 1 / 4),
        Confusion("pan", "cup", 1, 1.0),
    ]
    assert view.rows[1].confusions == [Confusion("knife", "cup", 2, 2 / 3)]


def test_the_matrix_holds_every_labelled_segment_once() -> None:
    matrix = view_classes(make_branch("noun", LABELS, ANSWERS, NOUNS)).matrix  # type: ignore[union-attr]
    assert [name for _, name in matrix.rows] == ["cup", "knife", "pan"]
    assert [name for _, name in matrix.columns] == ["cup", "knife", "pan", "all others"]
    assert sum(cell.count for cell in matrix.cells) == 8
    assert sorted(cell.title for cell in matrix.cells if cell.right) == [
        "cup answered as cup: 3 of 4",
        "knife answered as knife: 1 of 3",
    ]
    wrong = next(c for c in matrix.cells if c.title == "knife answered as cup: 2 of 3")
    assert (wrong.x, wrong.y) == (matrix.corner, matrix.corner + matrix.cell)
    assert wrong.share == pytest.approx(2 / 3)


def test_many_classes_leave_the_rare_ones_to_the_last_column() -> None:
    count = 3 * MATRIX_CLASSES
    names = [f"class {i}" for i in range(count)]
    labels = [i for i in range(count) for _ in range(1 + (i % 2))]
    view = view_classes(make_branch("noun", labels, [count - 2] * len(labels), names))
    assert view is not None
    assert len(view.matrix.rows) == MATRIX_CLASSES
    assert [name for _, name in view.matrix.rows[:2]] == ["class 1", "class 3"]
    assert {cell.title.partition(" answered as ")[2] for cell in view.matrix.cells} == {
        "all others: 2 of 2"
    }
    assert len(view.rows) == count


def test_no_label_no_view() -> None:
    assert view_classes(make_branch("noun", [-1, -1], [0, 1], NOUNS)) is None


def test_long_names_are_cut() -> None:
    assert shorten("cup") == "cup"
    assert shorten("a" * 40) == "a" * 17 + "…"
