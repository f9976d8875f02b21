"""Folders of evaluated runs without their trainings, over a data set of a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from experiment_fixtures import settings, write_labels

from heads.metrics import softmax
from heads.ranking import rank_classes
from heads.scores import Scores
from pipeline.config_file import dump_config, parse_config
from pipeline.datasets import load_dataset
from pipeline.head_metrics import measure, training_prior, write_measured
from pipeline.runs import evaluation_folder
from pipeline.segments import Dataset

__all__ = ["LABELS", "make_evaluated_run"]

LABELS = (
    ("t0", "a", 0.0, 1.0, 0, 1, "train"),
    ("t1", "a", 1.0, 2.0, 1, 2, "train"),
    ("v0", "b", 0.0, 1.0, 0, 1, "val"),
    ("v1", "b", 1.0, 2.0, 1, 2, "val"),
    ("v2", "b", 2.0, 3.0, 1, 0, "val"),
)


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
    config = parse_config(
        yaml.safe_dump(settings(folder.parent)), overrides, source=str(folder / "config.yaml")
    )
    dataset = load_dataset(config.data)
    scores = random_answers(dataset, split, seed)
    prior = training_prior(dataset, config.evaluate.action_prior)
    ranking = rank_classes(scores.verb_scores, scores.noun_scores, prior)
    measured = measure(dataset, scores, ranking) if scores.labelled else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    details = {
        "split": split,
        "action_prior": config.evaluate.action_prior,
        "stages": {"verb": "k"},
    }
    write_measured(evaluation_folder(folder, config, split), scores, measured, details)
    return scores


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
