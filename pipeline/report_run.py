"""What a report knows of one run: its files, and the experiment as far as it is still there."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.checkpoint import Checkpoint, read_checkpoint
from heads.evaluation import METRICS_FILE
from heads.training import HEAD_FILE
from pipeline.config import ExperimentConfig
from pipeline.datasets import load_dataset
from pipeline.errors import PipelineError, RunFolderError
from pipeline.experiment import Experiment, resolve
from pipeline.runs import evaluation_folder
from pipeline.saved_scores import open_scores
from pipeline.segments import Segment

__all__ = ["Branch", "ReportedRun", "read_run"]


@dataclass(frozen=True)
class Branch:
    """One branch's answers to the n segments of a run.

    ``names``: of the C classes. ``scores``: (n, C) probabilities. ``labels``: (n,) int64, −1 where
    a segment has none.
    """

    name: str
    names: Sequence[str]
    scores: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int64]

    @cached_property
    def predictions(self) -> npt.NDArray[np.int64]:
        """(n,) the class of the highest score; of equal ones the first."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    @cached_property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a segment has a label."""
        return np.asarray(self.labels >= 0)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the best class is the label's."""
        return np.asarray(self.predictions == self.labels)


@dataclass(frozen=True)
class ReportedRun:
    """A run that was trained and evaluated, or a fusion of such runs.

    Attributes:
        checkpoint: what its head says of itself; None for a fusion, which has none.
        metrics: what ``metrics.json`` holds.
        epochs: the rows of ``log.csv``, numbers by column.
        segment_ids: of the n evaluated segments.
        verb, noun: the answers.
        segments: the data set's segments by id; empty where it cannot be read any more.
        num_segments: of each split.
        experiment: with stages and videos; None where something it needs is gone.
        notes: what is gone, as sentences.
    """

    folder: Path
    config: ExperimentConfig
    checkpoint: Checkpoint | None
    split: str
    metrics: Mapping[str, Any]
    epochs: Sequence[Mapping[str, float]]
    segment_ids: Sequence[str]
    verb: Branch
    noun: Branch
    segments: Mapping[str, Segment]
    num_segments: Mapping[str, int]
    experiment: Experiment | None
    notes: Sequence[str]

    @property
    def name(self) -> str:
        """The run folder's own name."""
        return self.folder.resolve().name

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,) whether verb and noun are both right."""
        return self.verb.right & self.noun.right

    @cached_property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """(n,) whether both labels are there."""
        return self.verb.labelled & self.noun.labelled

    @cached_property
    def confidence(self) -> npt.NDArray[np.floating]:
        """(n,) P(best verb) · P(best noun)."""
        return np.asarray(self.verb.scores.max(axis=1) * self.noun.scores.max(axis=1))

    @property
    def kept_epoch(self) -> int | None:
        """The epoch that the checkpoint is of, counted from 1."""
        return int(self.checkpoint.training["epoch"]) if self.checkpoint else None

    @property
    def stage_keys(self) -> Mapping[str, str]:
        """Stage → key of the features that were trained on; empty for a fusion."""
        source = self.checkpoint.provenance if self.checkpoint else self.details
        found: Mapping[str, str] = source.get("stages") or {}
        return found

    @property
    def details(self) -> Mapping[str, Any]:
        """Where the scores come from, as ``metrics.json`` says."""
        found: Mapping[str, Any] = self.metrics.get("details") or {}
        return found

    @property
    def what(self) -> str:
        """What answered, in words."""
        fused = self.details.get("fused")
        return f"fusion of {len(fused)} runs" if fused else f"head {self.config.head.name}"


def read_run(folder: Path, split: str | None = None) -> ReportedRun:
    """Read what a report needs.

    Args:
        folder: of a run or a fusion.
        split: whose evaluation; by default the config's.

    Raises:
        RunFolderError: not such a folder, not evaluated yet, or other classes than the data set's.
        ValueError: files that no evaluation wrote.
    """
    saved = open_scores(folder, split)
    scores = saved.scores
    names, segments, num_segments, experiment, notes = _look_up(saved.config)
    verb, noun = (
        Branch(name, _names(names.get(name), score, name, folder), score, labels)
        for name, score, labels in (
            ("verb", scores.verb_scores, scores.verb_labels),
            ("noun", scores.noun_scores, scores.noun_labels),
        )
    )
    evaluated = evaluation_folder(folder, saved.config, saved.split)
    head = folder / HEAD_FILE
    return ReportedRun(
        folder=folder,
        config=saved.config,
        checkpoint=read_checkpoint(head) if head.is_file() else None,
        split=saved.split,
        metrics=json.loads((evaluated / METRICS_FILE).read_text(encoding="utf-8")),
        epochs=_read_log(folder / "log.csv"),
        segment_ids=scores.segment_ids,
        verb=verb,
        noun=noun,
        segments=segments,
        num_segments=num_segments,
        experiment=experiment,
        notes=notes,
    )


def _look_up(
    config: ExperimentConfig,
) -> tuple[
    dict[str, Sequence[str]],
    dict[str, Segment],
    Mapping[str, int],
    Experiment | None,
    list[str],
]:
    """Class names, segments, segments a split, the experiment, and what of them is gone."""
    experiment, notes = None, []
    try:
        experiment = resolve(config)
        dataset = experiment.dataset
    except (PipelineError, OSError, ValueError) as error:
        notes.append(f"Frames and attention are left out: {error}.")
        try:
            dataset = load_dataset(config.data)
        except (PipelineError, OSError, ValueError) as gone:
            notes.append(f"Classes go by their numbers: {gone}.")
            return {}, {}, {}, None, notes
    names = {"verb": dataset.verb_names, "noun": dataset.noun_names}
    segments = {segment.segment_id: segment for segment in dataset.segments}
    sizes = Counter(segment.split for segment in dataset.segments)
    return names, segments, sizes, experiment, notes


def _names(
    names: Sequence[str] | None, scores: npt.NDArray[np.floating], what: str, folder: Path
) -> Sequence[str]:
    """Names of the classes that were scored; numbers where there are none."""
    count = scores.shape[1]
    if names is None:
        return [f"{what} {i}" for i in range(count)]
    if len(names) != count:
        raise RunFolderError(
            f"{folder}: got scores of {count} {what} classes, expected the data set's "
            f"{len(names)}; evaluate the run again"
        )
    return names


def _read_log(path: Path) -> list[dict[str, float]]:
    """Rows of ``log.csv``; cells that are no numbers are left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_numbers(row) for row in csv.DictReader(file)]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text)
        except (TypeError, ValueError):
            continue
    return found
