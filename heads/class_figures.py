"""Precision and recall by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassFigures:
    """One class among the segments of a split."""

    id: int
    name: str
    num_segments: int
    """That have the class."""
    num_predicted: int
    """That got it as their best class."""
    recall: float | None
    """Of those that have it, the share that got it; None where none has it."""
    precision: float | None
    """Of those that got it, the share that has it; None where none got it."""


def class_recalls(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], classes: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Of the segments of each class, the share that got it; 0 for a class without segments.

    Args:
        predicted: (n,) the best class of each segment.
        labels: (n,).
        classes: (c,) ids.

    Returns:
        (c,).
    """
    return _shares(labels, labels[predicted == labels], classes)


def class_precisions(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], classes: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Of the segments that got each class, the share that has it; 0 for one never predicted.

    Arguments and result are those of `class_recalls`.
    """
    return _shares(predicted, labels[predicted == labels], classes)


def class_table(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], names: Sequence[str]
) -> list[ClassFigures]:
    """The classes that a segment has or got, by id.

    Args:
        predicted: (n,) the best class of each segment.
        labels: (n,).
        names: of all classes.
    """
    classes = np.union1d(predicted, labels)
    have, got = (np.bincount(ids, minlength=len(names))[classes] for ids in (labels, predicted))
    recalls = class_recalls(predicted, labels, classes)
    precisions = class_precisions(predicted, labels, classes)
    return [
        ClassFigures(
            id=int(one),
            name=names[one],
            num_segments=int(have[row]),
            num_predicted=int(got[row]),
            recall=float(recalls[row]) if have[row] else None,
            precision=float(precisions[row]) if got[row] else None,
        )
        for row, one in enumerate(classes)
    ]


def _shares(
    whole: NDArray[np.integer], part: NDArray[np.integer], classes: NDArray[np.integer]
) -> NDArray[np.float64]:
    """How often each class is in `part`, as a share of how often it is in `whole`."""
    size = int(max(whole.max(initial=0), classes.max(initial=0))) + 1
    wholes = np.bincount(whole, minlength=size)[classes]
    parts = np.bincount(part, minlength=size)[classes]
    return np.divide(parts, wholes, out=np.zeros(len(classes)), where=wholes > 0)
