"""Folders of evaluated runs without their trainings, over a data set of a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from experiment_fixtures import settings, write_labels

from heads.metrics import softmax
from heads.scores import Scores
from pipeline.config_file import dump_config, parse_config
from pipeline.datasets import load_dataset
from pipeline.head_metrics import measure_scores, write_measured
from pipeline.runs import evaluation_folder
from pipeline.segments import Dataset

__all__ = [
    "LABELS",
    "NUM_NOUNS",
    "NUM_VERBS",
    "Run",
    "make_epic_run",
    "make_evaluated_run",
    "random_answers",
    "write_epic",
]

# Of the small EPIC data sets: more than a hundred pairs, so that submissions must choose.
NUM_VERBS, NUM_NOUNS = 12, 10


LABELS = (
    ("t0", "a", 0.0, 1.0, 0, 1, "train"),
    ("t1", "a", 1.0, 2.0, 1, 2, "train"),
    ("v0", "b", 0.0, 1.0, 0, 1, "val"),
    ("v1", "b", 1.0, 2.0, 1, 2, "val"),
    ("v2", "b", 2.0, 3.0, 1, 0, "val"),
)


@dataclass(frozen=True)
class Run:
    """A folder, the data set of its config, and the scores of each split."""

    folder: Path
    dataset: Dataset
    scores: dict[str, Scores]


def make_evaluated_run(
    folder: Path,
    *,
    seed: int = 0,
    split: str = "val",
    overrides: Sequence[str] = (),
) -> Scores:
    """Write config, scores and metrics as `symbio evaluate` does, with random scores."""
    labels = folder.parent / "labels.csv"
    if not labels.exists():
        write_labels(labels, LABELS)
    values = settings(folder.parent)
    return _write_run(folder, values, [split], seed=seed, overrides=overrides).scores[split]


def make_epic_run(folder: Path, kind: str, splits: Sequence[str], *, seed: int = 0) -> Run:
    """A run on a small EPIC-55 or EPIC-100, evaluated on these splits."""
    annotations = folder.parent / kind
    if not annotations.exists():
        write_epic(annotations, kind)
    values = settings(folder.parent)
    values["data"] = {
        "kind": kind,
        "annotations": str(annotations),
        "videos": {"root": "videos", "pattern": "{video_id}.MP4"},
        "splits": ["train", *splits],
    }
    return _write_run(folder, values, splits, seed=seed, overrides=())


def write_epic(folder: Path, kind: str) -> None:
    """Official label files of a few segments per split."""
    folder.mkdir(parents=True)
    times = "participant_id,video_id,start_timestamp,stop_timestamp"
    uid, prefix, key = {
        "epic55": ("uid", "EPIC", "verb_id,class_key,verbs"),
        "epic100": ("narration_id", "EPIC_100", "id,key,instances"),
    }[kind]

    def rows(first: int, count: int, person: str, *, labelled: bool) -> str:
        generator = np.random.default_rng(first)
        return "".join(
            f"{number},{person},{person}_01,00:00:{place:02d},00:00:{place + 1:02d}"
            + (
                f",do,{generator.integers(NUM_VERBS)},{generator.integers(NUM_NOUNS)}"
                if labelled
                else ""
            )
            + "\n"
            for place, number in enumerate(range(first, first + count))
        )

    labels = f"{uid},{times},narration,verb_class,noun_class\n"
    train = rows(0, 30, "P01", labelled=True)
    val, tests = rows(100, 9, "P30", labelled=True), f"{uid},{times}\n"
    s1, s2 = (rows(first, 5, "P32", labelled=False) for first in (200, 300))
    files = {
        "epic55": {
            "train_action_labels": labels + train + val,
            "test_s1_timestamps": tests + s1,
            "test_s2_timestamps": tests + s2,
        },
        "epic100": {
            "train": labels + train,
            "validation": labels + val,
            "test_timestamps": tests + s1,
        },
    }[kind]
    for name, count in (("verb", NUM_VERBS), ("noun", NUM_NOUNS)):
        lines = "".join(f"{number},{name}{number},x\n" for number in range(count))
        files[f"{name}_classes"] = f"{key.replace('verb', name)}\n{lines}"
    for name, text in files.items():
        (folder / f"{prefix}_{name}.csv").write_text(text)


def _write_run(
    folder: Path,
    values: dict[str, Any],
    splits: Sequence[str],
    *,
    seed: int,
    overrides: Sequence[str],
) -> Run:
    config = parse_config(yaml.safe_dump(values), overrides, source=str(folder / "config.yaml"))
    dataset = load_dataset(config.data)
    kind = config.evaluate.action_prior
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    found = {}
    for split in splits:
        scores = found[split] = random_answers(dataset, split, seed)
        measured = measure_scores(dataset, scores, kind)
        details = {"split": split, "action_prior": kind, "stages": {"verb": "k"}}
        write_measured(evaluation_folder(folder, config, split), scores, measured, details)
    return Run(folder, dataset, found)


def random_answers(dataset: Dataset, split: str, seed: int) -> Scores:
    """Random probabilities for a split's segments, shuffled."""
    generator = np.random.default_rng(seed)
    segments = dataset.split(split)
    segments = [segments[place] for place in generator.permutation(len(segments))]
    return Scores(
        tuple(segment.segment_id for segment in segments),
        softmax(3 * generator.normal(size=(len(segments), len(dataset.verb_names)))),
        softmax(3 * generator.normal(size=(len(segments), len(dataset.noun_names)))),
        np.array([segment.verb_class for segment in segments], dtype=np.int64),
        np.array([segment.noun_class for segment in segments], dtype=np.int64),
    )
