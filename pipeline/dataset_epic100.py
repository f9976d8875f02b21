"""EPIC-KITCHENS-100 from its official label files: one file per split, test without labels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from heads.protocols import Protocol
from pipeline.csv_file import read_rows, required
from pipeline.dataset_epic import class_ids, class_names, promised_seconds, read_epic_rows
from pipeline.segments import Dataset, Segment, make_dataset

__all__ = ["load_epic100"]

ORIGIN = "github.com/epic-kitchens/epic-kitchens-100-annotations"
FILES = {
    "train": "EPIC_100_train.csv",
    "val": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",
}
# Their participants are disjoint: P18 and P32 have no test rows, the others no validation rows.
UNSEEN_FILES = {
    "val": "EPIC_100_unseen_participant_ids_validation.csv",
    "test": "EPIC_100_unseen_participant_ids_test.csv",
}


def load_epic100(
    folder: Path,
    *,
    splits: Collection[str] = ("train", "val"),
    train_on: Literal["split", "all"] = "split",
) -> Dataset:
    """Read the splits asked for; ``train_on: all`` puts the rows of val into train.

    Tail classes and unseen participants are those of the official files; without a file there are
    none.

    Raises:
        AnnotationError: as `pipeline.datasets.load_dataset`.
    """
    verb_names = class_names(folder / "EPIC_100_verb_classes.csv", "id", "key")
    noun_names = class_names(folder / "EPIC_100_noun_classes.csv", "id", "key")
    names = {"train": "train", "val": "train" if train_on == "all" else "val", "test": "test"}
    asked = [split for split in FILES if split in splits]
    segments: dict[str, Segment] = {}
    for split in asked:
        segments |= read_epic_rows(
            folder / FILES[split],
            "narration_id",
            names[split],
            labelled=split != "test",
            origin=ORIGIN,
        )
    held_out = [split for split in asked if names[split] != "train"]
    return make_dataset(
        segments,
        verb_names,
        noun_names,
        source=folder,
        splits=[names[split] for split in asked],
        promised_seconds=promised_seconds(folder / "EPIC_100_video_info.csv", "video_id"),
        protocol=Protocol(
            "epic100",
            tail_verbs=class_ids(folder / "EPIC_100_tail_verbs.csv", "verb", len(verb_names)) or (),
            tail_nouns=class_ids(folder / "EPIC_100_tail_nouns.csv", "noun", len(noun_names)) or (),
            unseen_participants=tuple(
                participant
                for split in held_out
                for participant in _participants(folder / UNSEEN_FILES[split])
            ),
        ),
    )


def _participants(path: Path) -> list[str]:
    if not path.exists():
        return []
    rows = read_rows(path, ("participant_id",))
    return [required(row, "participant_id", f"{path}:{line}") for line, row in rows]
