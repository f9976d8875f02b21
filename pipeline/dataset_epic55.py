"""EPIC-KITCHENS-55 from its official label files.

The labels of the two test splits are withheld. The papers split the labelled rows by participant:
P01 to P25 train, P26 to P31 val.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from heads.protocols import Protocol
from pipeline.dataset_epic import class_ids, class_names, promised_seconds, read_epic_rows
from pipeline.errors import AnnotationError
from pipeline.segments import Dataset, Segment, make_dataset

__all__ = ["load_epic55"]

ORIGIN = "github.com/epic-kitchens/epic-kitchens-55-annotations"
LABELS = "EPIC_train_action_labels.csv"
TESTS = {"test_s1": "EPIC_test_s1_timestamps.csv", "test_s2": "EPIC_test_s2_timestamps.csv"}
LAST_TRAIN_PARTICIPANT = 25
# Classes of more rows than this, of all the labelled ones, are many-shot; of several nouns the
# first counts. That gives the official lists.
MANY_SHOT_ROWS = 100


def load_epic55(
    folder: Path,
    *,
    splits: Collection[str] = ("train", "val"),
    train_on: Literal["split", "all"] = "split",
) -> Dataset:
    """Read the splits asked for; ``train_on: all`` puts the rows of val into train.

    The many-shot classes are those of ``EPIC_many_shot_verbs.csv`` and ``EPIC_many_shot_nouns.csv``
    where these are there, else they are counted.

    Raises:
        AnnotationError: as `pipeline.datasets.load_dataset`.
    """
    verb_names = class_names(folder / "EPIC_verb_classes.csv", "verb_id", "class_key")
    noun_names = class_names(folder / "EPIC_noun_classes.csv", "noun_id", "class_key")
    labels: dict[str, Segment] = {}
    if not {"train", "val"}.isdisjoint(splits):
        labels = dict(read_epic_rows(folder / LABELS, "uid", "train", labelled=True, origin=ORIGIN))
    segments = {}
    for where, segment in labels.items():
        split = _split(segment.participant_id, where)
        if split in splits:
            segments[where] = replace(segment, split="train" if train_on == "all" else split)
    for split, name in TESTS.items():
        if split in splits:
            segments |= read_epic_rows(folder / name, "uid", split, labelled=False, origin=ORIGIN)
    return make_dataset(
        segments,
        verb_names,
        noun_names,
        source=folder,
        splits=[split for split in splits if train_on == "split" or split != "val"],
        promised_seconds=promised_seconds(folder / "EPIC_video_info.csv", "video"),
        protocol=_protocol(folder, labels.values(), len(verb_names), len(noun_names)),
    )


def _protocol(
    folder: Path, labels: Collection[Segment], num_verbs: int, num_nouns: int
) -> Protocol:
    verbs = class_ids(folder / "EPIC_many_shot_verbs.csv", "verb_class", num_verbs)
    nouns = class_ids(folder / "EPIC_many_shot_nouns.csv", "noun_class", num_nouns)
    if verbs is None:
        verbs = _many_shot(segment.verb_class for segment in labels)
    if nouns is None:
        nouns = _many_shot(segment.noun_class for segment in labels)
    return Protocol("epic55", many_shot_verbs=verbs, many_shot_nouns=nouns)


def _split(participant_id: str, where: str) -> str:
    if not (participant_id[:1] == "P" and participant_id[1:].isdecimal()):
        raise AnnotationError(f"{where}: got participant_id {participant_id!r}, expected e.g. P01")
    return "train" if int(participant_id[1:]) <= LAST_TRAIN_PARTICIPANT else "val"


def _many_shot(classes: Iterable[int]) -> tuple[int, ...]:
    counts = Counter(classes)
    return tuple(sorted(c for c, rows in counts.items() if rows > MANY_SHOT_ROWS))
