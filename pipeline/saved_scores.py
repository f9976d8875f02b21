"""Scores that an evaluation or a fusion left in a folder, with the config they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heads.evaluation import METRICS_FILE, SCORES_FILE
from heads.scores import Scores, load_scores
from pipeline.config import ExperimentConfig
from pipeline.config_file import load_config
from pipeline.errors import RunFolderError
from pipeline.runs import CONFIG_NAME, evaluation_folder

__all__ = ["SavedScores", "open_config", "open_scores"]


@dataclass(frozen=True)
class SavedScores:
    """``details``: those of ``metrics.json``, which say where the scores come from."""

    folder: Path
    config: ExperimentConfig
    split: str
    scores: Scores
    details: Mapping[str, Any]


def open_config(folder: Path) -> ExperimentConfig:
    """The config of a run or of a fusion.

    Raises:
        RunFolderError: no such folder.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise RunFolderError(
            f"{folder}: got no {CONFIG_NAME}, expected the folder of a `symbio train` or a "
            "`symbio fuse`"
        )
    return load_config(folder / CONFIG_NAME)


def open_scores(folder: Path, split: str | None = None) -> SavedScores:
    """Read the scores of a run, or of a fusion, on one split.

    Args:
        folder: of a run or a fusion.
        split: by default the config's ``evaluate.split``.

    Raises:
        RunFolderError: no such folder, or no scores of this split in it.
        ValueError: files that no evaluation wrote.
    """
    config = open_config(folder)
    split = split or config.evaluate.split
    evaluated = evaluation_folder(folder, config, split)
    for name in (SCORES_FILE, METRICS_FILE):
        if not (evaluated / name).is_file():
            raise RunFolderError(
                f"{evaluated}: got no {name} of split {split!r}; run `symbio evaluate {folder} "
                f"--split {split}` first"
            )
    return SavedScores(
        folder, config, split, load_scores(evaluated / SCORES_FILE), _details(evaluated)
    )


def _details(folder: Path) -> Mapping[str, Any]:
    file = folder / METRICS_FILE
    try:
        details = json.loads(file.read_text(encoding="utf-8"))["details"]
        details["split"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{file}: got a file that no evaluation wrote ({error}); evaluate again"
        ) from error
    found: Mapping[str, Any] = details
    return found
