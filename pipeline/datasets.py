"""Label files → segments: one reader per kind of data set.

To add a data set, write a function that returns a `Dataset`, give it a config model in
``pipeline/config_data.py`` and name both in `load_dataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config_data import (
    CsvData,
    DataConfig,
    Epic55Data,
    FlowVideosConfig,
    OnlyConfig,
    ToyKitchenData,
    VideosConfig,
)
from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError
from pipeline.segments import Dataset, Segment, check_segments

__all__ = ["flow_config", "load_dataset", "videos_config"]

# The train/validation split of EPIC-55 that the papers follow: by participant.
EPIC55_LAST_TRAIN_PARTICIPANT = 25

CSV_COLUMNS = ("video_id", "start_seconds", "stop_seconds", "verb_class", "noun_class", "split")
EPIC55_COLUMNS = (
    "uid",
    "participant_id",
    "video_id",
    "narration",
    "start_timestamp",
    "stop_timestamp",
    "verb_class",
    "noun_class",
)
SPLITS = ("train", "val", "test")


def load_dataset(data: DataConfig) -> Dataset:
    """Read and check the labels of one data set.

    Raises:
        AnnotationError: a file or column is absent, or a value cannot be; names file and row.
    """
    match data:
        case CsvData():
            return _only(load_csv(data), data.only)
        case Epic55Data():
            return _only(load_epic55(data.annotations), data.only)
        case ToyKitchenData():
            from pipeline.toy_kitchen import render_toy_kitchen

            render_toy_kitchen(
                data.folder,
                seed=data.seed,
                num_train_segments=data.train_segments,
                num_val_segments=data.val_segments,
            )
            return load_epic55(data.folder)


def videos_config(data: DataConfig) -> VideosConfig:
    """Where the videos of a data set lie."""
    if isinstance(data, ToyKitchenData):
        return VideosConfig(root=data.folder, pattern="{participant_id}/{video_id}.MP4")
    return data.videos


def flow_config(data: DataConfig) -> FlowVideosConfig | None:
    """Where the official flow of a data set lies, if anywhere."""
    return None if isinstance(data, ToyKitchenData) else data.flow


def load_csv(data: CsvData) -> Dataset:
    """Read the plain form: one row per segment, ids optional."""
    verb_names, noun_names = _class_names(data.verbs), _class_names(data.nouns)
    segments = {}
    for line, row in read_rows(data.annotations, CSV_COLUMNS):
        where = f"{data.annotations}:{line}"
        video_id = required(row, "video_id", where)
        if row["split"] not in SPLITS:
            raise AnnotationError(
                f"{where}: got split {row['split']!r}, expected one of {', '.join(SPLITS)}"
            )
        segments[line] = Segment(
            segment_id=row.get("segment_id", "").strip() or f"{video_id}_{line - 2}",
            video_id=video_id,
            participant_id=row.get("participant_id", "").strip(),
            start_seconds=number(row, "start_seconds", where),
            stop_seconds=number(row, "stop_seconds", where),
            verb_class=integer(row, "verb_class", where),
            noun_class=integer(row, "noun_class", where),
            split=row["split"],
            narration=row.get("narration", ""),
        )
    return _checked(segments, verb_names, noun_names, {}, data.annotations)


def load_epic55(folder: Path) -> Dataset:
    """Read the official EPIC-KITCHENS-55 label files.

    The published test labels are withheld, so the training rows are split by participant:
    P01 to P25 train, P26 to P31 val.
    """
    labels = folder / "EPIC_train_action_labels.csv"
    segments = {}
    for line, row in read_rows(labels, EPIC55_COLUMNS):
        where = f"{labels}:{line}"
        participant_id = required(row, "participant_id", where)
        segments[line] = Segment(
            segment_id=required(row, "uid", where),
            video_id=required(row, "video_id", where),
            participant_id=participant_id,
            start_seconds=_clock(row, "start_timestamp", where),
            stop_seconds=_clock(row, "stop_timestamp", where),
            verb_class=integer(row, "verb_class", where),
            noun_class=integer(row, "noun_class", where),
            split=_epic55_split(participant_id, where),
            narration=row["narration"],
        )
    verb_names = _epic_class_names(folder / "EPIC_verb_classes.csv", "verb_id")
    noun_names = _epic_class_names(folder / "EPIC_noun_classes.csv", "noun_id")
    info = folder / "EPIC_video_info.csv"
    promised = {
        row["video"]: number(row, "duration", f"{info}:{line}")
        for line, row in (read_rows(info, ("video", "duration")) if info.exists() else ())
    }
    return _checked(segments, verb_names, noun_names, promised, labels)


def _checked(
    segments: dict[int, Segment],
    verb_names: Sequence[str],
    noun_names: Sequence[str],
    promised_seconds: dict[str, float],
    source: Path,
) -> Dataset:
    if not segments:
        raise AnnotationError(f"{source}: got no rows, expected one per segment")
    check_segments(segments, num_verbs=len(verb_names), num_nouns=len(noun_names), source=source)
    return Dataset(list(segments.values()), verb_names, noun_names, promised_seconds)


def _only(dataset: Dataset, only: OnlyConfig) -> Dataset:
    """Keep what the config asks for; an id that names nothing is an error."""
    segments = list(dataset.segments)
    for key, ids in (("video_id", only.video_ids), ("segment_id", only.segment_ids)):
        if not ids:
            continue
        wanted = set(ids)
        absent = wanted - {getattr(segment, key) for segment in segments}
        if absent:
            raise AnnotationError(
                f"data.only.{key}s: no segment has {key} {', '.join(sorted(absent))}"
            )
        segments = [segment for segment in segments if getattr(segment, key) in wanted]
    return replace(dataset, segments=segments)


def _clock(row: dict[str, str], column: str, where: str) -> float:
    """HH:MM:SS.ss → seconds, exact to the microsecond."""
    parts = row[column].split(":")
    try:
        hours, minutes, seconds = int(parts[0]), int(parts[1]), float(parts[2])
        if len(parts) != 3 or not (0 <= minutes < 60 and 0 <= seconds < 60):
            raise ValueError
    except (ValueError, IndexError) as error:
        raise AnnotationError(
            f"{where}: got {column} {row[column]!r}, expected a time such as 00:01:02.34"
        ) from error
    return round(hours * 3600 + minutes * 60 + seconds, 6)


def _epic55_split(participant_id: str, where: str) -> str:
    if not (participant_id[:1] == "P" and participant_id[1:].isdecimal()):
        raise AnnotationError(f"{where}: got participant_id {participant_id!r}, expected e.g. P01")
    return "train" if int(participant_id[1:]) <= EPIC55_LAST_TRAIN_PARTICIPANT else "val"


def _class_names(classes: int | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(i) for i in range(classes)) if isinstance(classes, int) else classes


def _epic_class_names(path: Path, id_column: str) -> list[str]:
    names: dict[int, str] = {}
    for line, row in read_rows(path, (id_column, "class_key")):
        class_id = integer(row, id_column, f"{path}:{line}")
        if class_id in names:
            raise AnnotationError(f"{path}:{line}: got {id_column} {class_id} a second time")
        names[class_id] = row["class_key"]
    if sorted(names) != list(range(len(names))):
        raise AnnotationError(f"{path}: expected {id_column} to count 0, 1, 2, … without gaps")
    return [names[i] for i in range(len(names))]
