"""The plain form of labels: one CSV file, one row per segment."""

from __future__ import annotations

from pipeline.config_data import CsvData
from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError
from pipeline.segments import UNLABELLED, Dataset, Segment, make_dataset

__all__ = ["load_csv"]

COLUMNS = ("video_id", "start_seconds", "stop_seconds", "verb_class", "noun_class", "split")
SPLITS = ("train", "val", "test")


def load_csv(data: CsvData) -> Dataset:
    """Read the plain form; ids are optional, and so are the classes of split ``test``.

    Raises:
        AnnotationError: as `pipeline.datasets.load_dataset`.
    """
    segments = {}
    for line, row in read_rows(data.annotations, COLUMNS):
        where = f"{data.annotations}:{line}"
        video_id = required(row, "video_id", where)
        if row["split"] not in SPLITS:
            raise AnnotationError(
                f"{where}: got split {row['split']!r}, expected one of {', '.join(SPLITS)}"
            )
        verb_class, noun_class = _classes(row, where)
        segments[where] = Segment(
            segment_id=row.get("segment_id", "").strip() or f"{video_id}_{line - 2}",
            video_id=video_id,
            participant_id=row.get("participant_id", "").strip(),
            start_seconds=number(row, "start_seconds", where),
            stop_seconds=number(row, "stop_seconds", where),
            verb_class=verb_class,
            noun_class=noun_class,
            split=row["split"],
            narration=row.get("narration", ""),
        )
    return make_dataset(segments, _names(data.verbs), _names(data.nouns), source=data.annotations)


def _classes(row: dict[str, str], where: str) -> tuple[int, int]:
    columns = ("verb_class", "noun_class")
    if row["split"] == "test" and not any(row[column].strip() for column in columns):
        return UNLABELLED, UNLABELLED
    verb_class, noun_class = (integer(row, column, where) for column in columns)
    return verb_class, noun_class


def _names(classes: int | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(i) for i in range(classes)) if isinstance(classes, int) else classes
