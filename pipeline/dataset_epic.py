"""What the label files of EPIC-KITCHENS-55 and EPIC-KITCHENS-100 have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError
from pipeline.segments import UNLABELLED, Segment

__all__ = ["class_ids", "class_names", "promised_seconds", "read_epic_rows"]

COLUMNS = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")
CLASS_COLUMNS = ("verb_class", "noun_class")


def read_epic_rows(
    path: Path, id_column: str, split: str, *, labelled: bool, origin: str
) -> Iterator[tuple[str, Segment]]:
    """Yield (``file:line``, segment) of one file of labels, or of times without labels.

    Args:
        id_column: of the segments' ids.
        split: which they get.
        origin: where the file can be had, for people.

    Raises:
        AnnotationError: no file, a column is absent, a value cannot be, or there are labels where
            there should be none.
    """
    if not path.exists():
        raise AnnotationError(
            f"{path}: no such label file for split {split!r}; take it from {origin}, or leave the "
            "split out of data.splits"
        )
    wanted = (id_column, *COLUMNS, *((*CLASS_COLUMNS, "narration") if labelled else ()))
    file = str(path)
    for line, row in read_rows(path, wanted):
        where = f"{file}:{line}"
        verb_class, noun_class = UNLABELLED, UNLABELLED
        if labelled:
            verb_class = integer(row, "verb_class", where)
            noun_class = integer(row, "noun_class", where)
        elif surplus := [column for column in CLASS_COLUMNS if column in row]:
            raise AnnotationError(
                f"{where}: got {' and '.join(surplus)}, expected no labels in split {split!r}, "
                "whose official file has none; labels of your own go into a data set of kind csv"
            )
        yield (
            where,
            Segment(
                segment_id=required(row, id_column, where),
                video_id=required(row, "video_id", where),
                participant_id=required(row, "participant_id", where),
                start_seconds=_clock(row, "start_timestamp", where),
                stop_seconds=_clock(row, "stop_timestamp", where),
                verb_class=verb_class,
                noun_class=noun_class,
                split=split,
                narration=row.get("narration", ""),
            ),
        )


def class_names(path: Path, id_column: str, name_column: str) -> tuple[str, ...]:
    """Names of classes in the order of their ids.

    Raises:
        AnnotationError: ids that do not count 0, 1, 2, … each once.
    """
    names: dict[int, str] = {}
    for line, row in read_rows(path, (id_column, name_column)):
        class_id = integer(row, id_column, f"{path}:{line}")
        if class_id in names:
            raise AnnotationError(f"{path}:{line}: got {id_column} {class_id} a second time")
        names[class_id] = row[name_column]
    if sorted(names) != list(range(len(names))):
        raise AnnotationError(f"{path}: expected {id_column} to count 0, 1, 2, … without gaps")
    return tuple(names[i] for i in range(len(names)))


def class_ids(path: Path, column: str, num_classes: int) -> tuple[int, ...] | None:
    """An official list of classes, ascending; None where there is no such file.

    Raises:
        AnnotationError: a class that does not exist.
    """
    if not path.exists():
        return None
    found = set()
    for line, row in read_rows(path, (column,)):
        class_id = integer(row, column, f"{path}:{line}")
        if not 0 <= class_id < num_classes:
            raise AnnotationError(
                f"{path}:{line}: got {column} {class_id}, expected 0 to {num_classes - 1} "
                f"({num_classes} classes)"
            )
        found.add(class_id)
    return tuple(sorted(found))


def promised_seconds(path: Path, id_column: str) -> dict[str, float]:
    """Length of each video by its id; empty where there is no such file."""
    return {
        row[id_column]: number(row, "duration", f"{path}:{line}")
        for line, row in (read_rows(path, (id_column, "duration")) if path.exists() else ())
    }


def _clock(row: dict[str, str], column: str, where: str) -> float:
    """HH:MM:SS.ss → seconds, exact to the microsecond."""
    try:
        hours_text, minutes_text, seconds_text = row[column].split(":")
        hours, minutes, seconds = int(hours_text), int(minutes_text), float(seconds_text)
        if not (0 <= minutes < 60 and 0 <= seconds < 60):
            raise ValueError
    except ValueError as error:
        raise AnnotationError(
            f"{where}: got {column} {row[column]!r}, expected a time such as 00:01:02.34"
        ) from error
    return round(hours * 3600 + minutes * 60 + seconds, 6)
