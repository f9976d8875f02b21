"""Precision and recall by class, by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heads.class_figures import ClassFigures, class_precisions, class_recalls, class_table


def ids(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_classes_without_segments_or_predictions_count_as_zero() -> None:
    predicted, labels, classes = ids(0, 0), ids(0, 1), ids(0, 1, 5)
    assert class_recalls(predicted, labels, classes).tolist() == [1, 0, 0]
    assert class_precisions(predicted, labels, classes).tolist() == [0.5, 0, 0]


def test_a_row_for_each_class_that_segments_have_or_got() -> None:
    names = ["take", "put", "wash", "open", "close"]
    found = class_table(ids(3, 0, 0, 0), ids(0, 0, 0, 4), names)
    assert found == [
        ClassFigures(0, "take", 3, 3, recall=2 / 3, precision=2 / 3),
        ClassFigures(3, "open", 0, 1, recall=None, precision=0.0),
        ClassFigures(4, "close", 1, 0, recall=0.0, precision=None),
    ]
