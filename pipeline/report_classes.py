"""Which classes a run knows and which it takes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.class_figures import ClassFigures, class_table
from pipeline.report_run import Branch

__all__ = ["ClassRow", "ClassView", "Confusion", "Matrix", "MatrixCell", "view_classes"]

MATRIX_CLASSES = 20
CONFUSIONS = 20
CONFUSIONS_OF_A_CLASS = 3
CELL_PX = 22
LETTER_PX, LEAST_NAME_PX = 6.7, 64
LONGEST_NAME = 18


@dataclass(frozen=True)
class Confusion:
    """``count`` segments of one class that were taken for another; ``share`` of the class."""

    label: str
    answer: str
    count: int
    share: float


@dataclass(frozen=True)
class ClassRow:
    """How one class fares, and what it is taken for most."""

    figures: ClassFigures
    confusions: Sequence[Confusion]


@dataclass(frozen=True)
class MatrixCell:
    """One cell at (x, y) pixels; ``share`` of its row's class, 0 to 1."""

    x: int
    y: int
    count: int
    share: float
    right: bool
    title: str


@dataclass(frozen=True)
class Matrix:
    """Confusion matrix of the most frequent classes: labels down, answers across.

    ``rows`` and ``columns``: (position in pixels, name cut short); the last column is all other
    classes where there are any. ``corner``: where the first cell is, from the left and the top.
    """

    rows: Sequence[tuple[int, str]]
    columns: Sequence[tuple[int, str]]
    cells: Sequence[MatrixCell]
    corner: int
    cell: int
    width: int
    height: int


@dataclass(frozen=True)
class ClassView:
    """The classes of one branch, by falling support; those never seen or answered are left out."""

    branch: str
    rows: Sequence[ClassRow]
    num_classes: int
    num_segments: int
    matrix: Matrix
    confusions: Sequence[Confusion]


def view_classes(branch: Branch) -> ClassView | None:
    """Count a branch's answers by class.

    Returns:
        None where no segment has a label.
    """
    labelled = branch.labelled
    if not labelled.any():
        return None
    counts = _count(branch.labels[labelled], branch.predictions[labelled], len(branch.names))
    table = class_table(branch.predictions[labelled], branch.labels[labelled], branch.names)
    table.sort(key=lambda one: -one.num_segments)  # equal ones stay in the order of their ids
    frequent = [one.id for one in table if one.num_segments][:MATRIX_CLASSES]
    return ClassView(
        branch=branch.name,
        rows=[ClassRow(one, _confusions_of(branch.names, counts, one.id)) for one in table],
        num_classes=len(branch.names),
        num_segments=int(labelled.sum()),
        matrix=_matrix(branch.names, counts, frequent),
        confusions=_confusions(branch.names, counts)[:CONFUSIONS],
    )


def _count(
    labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """(C, C): segments by label and answer."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels, answers), 1)
    return counts


def _confusions_of(names: Sequence[str], counts: npt.NDArray[np.int64], i: int) -> list[Confusion]:
    only = np.zeros_like(counts)
    only[i] = counts[i]
    return _confusions(names, only)[:CONFUSIONS_OF_A_CLASS]


def _confusions(names: Sequence[str], counts: npt.NDArray[np.int64]) -> list[Confusion]:
    """The wrong answers, the most frequent first, then by class ids."""
    support = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[tuple(pair)], pair))
    return [
        Confusion(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / support[i]))
        for i, j in pairs
    ]


def _matrix(names: Sequence[str], counts: npt.NDArray[np.int64], classes: Sequence[int]) -> Matrix:
    rest = [i for i in range(len(names)) if i not in set(classes)]
    columns = [(names[j], counts[:, j]) for j in classes]
    if rest:
        columns.append(("all others", counts[:, rest].sum(axis=1)))
    longest = max(len(shorten(name)) for name, _ in columns)
    corner = max(LEAST_NAME_PX, round(12 + LETTER_PX * longest))
    cells = [
        MatrixCell(
            x=corner + column * CELL_PX,
            y=corner + row * CELL_PX,
            count=int(of_answer[i]),
            share=float(of_answer[i] / counts[i].sum()),
            right=row == column,
            title=f"{names[i]} answered as {answer}: {of_answer[i]} of {counts[i].sum()}",
        )
        for row, i in enumerate(classes)
        for column, (answer, of_answer) in enumerate(columns)
        if of_answer[i]
    ]
    places = [corner + k * CELL_PX for k in range(len(columns))]
    return Matrix(
        rows=[(y, shorten(names[i])) for y, i in zip(places, classes, strict=False)],
        columns=[(x, shorten(name)) for x, (name, _) in zip(places, columns, strict=True)],
        cells=cells,
        corner=corner,
        cell=CELL_PX,
        width=corner + len(columns) * CELL_PX + 4,
        height=corner + len(classes) * CELL_PX + 4,
    )


def shorten(name: str) -> str:
    """A name that fits beside a drawing."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
