"""A head's answers for a table of segments, how good they are, and the files that keep both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.atomic import write_atomically
from heads.base import Head
from heads.class_figures import ClassFigures
from heads.loader import open_batches
from heads.metrics import Metrics, softmax
from heads.scores import Scores, save_scores
from heads.table import FeatureTable

SCORES_FILE = "scores.npz"
METRICS_FILE = "metrics.json"


class NotFiniteError(ValueError):
    """A head answered with NaN or infinity."""


@torch.no_grad()
def score_table(
    head: Head, table: FeatureTable, *, batch_size: int = 64, device: str | torch.device = "cpu"
) -> Scores:
    """Run a head over all views of all segments of a table.

    The scores of a segment are the mean of its views' softmax scores (multi-clip testing).

    Args:
        head: moved to `device` and put in evaluation mode.
        table: with the outputs the head reads.
        batch_size: views at a time.
        device: where the head runs.

    Raises:
        ValueError: if the table has labels that the head does not know.
        NotFiniteError: the logits of one of a segment's views are NaN or infinite.
    """
    table.check_labels(head.config.num_verbs, head.config.num_nouns, unlabelled=True)
    head.to(device).eval()
    sizes = {"verb": head.config.num_verbs, "noun": head.config.num_nouns}
    sums = {name: np.zeros((len(table), size)) for name, size in sizes.items()}
    segments, views = _all_views(table)
    starts = range(batch_size, len(segments), batch_size)
    requests = list(zip(np.split(segments, starts), np.split(views, starts), strict=True))
    with open_batches(table, requests, device=device) as batches:
        for (indices, _), batch in zip(requests, batches, strict=True):
            logits = head(batch)
            for name, of_segments in sums.items():
                _check_finite(name, logits[name], table.segment_ids(indices))
                np.add.at(of_segments, indices, softmax(logits[name].cpu().numpy()))
    return Scores(
        segment_ids=tuple(sample.segment_id for sample in table.samples),
        verb_scores=sums["verb"] / table.num_views[:, None],
        noun_scores=sums["noun"] / table.num_views[:, None],
        verb_labels=table.verbs,
        noun_labels=table.nouns,
    )


def _all_views(table: FeatureTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of samples and numbers of their views, (sum of num_views,) each."""
    segments = np.repeat(np.arange(len(table)), table.num_views)
    first = np.cumsum(table.num_views) - table.num_views
    return segments, np.arange(len(segments)) - first[segments]


def _check_finite(name: str, logits: Tensor, segment_ids: Sequence[str]) -> None:
    finite = logits.isfinite().all(dim=1).tolist()
    views = zip(segment_ids, finite, strict=True)
    if bad := list(dict.fromkeys(segment_id for segment_id, good in views if not good)):
        raise NotFiniteError(
            f"got NaN or infinite {name} logits for {len(bad)} segments (the first: {bad[0]}); "
            "check their features and the head's weights"
        )


def write_evaluation(
    run_folder: Path,
    scores: Scores,
    metrics: Metrics | None,
    *,
    details: Mapping[str, Any],
    official: Mapping[str, float] | None = None,
    classes: Mapping[str, Sequence[ClassFigures]] | None = None,
) -> None:
    """Write `scores.npz` and `metrics.json`, each atomically.

    `metrics.json` holds `metrics`, `official`, `classes` and `details`; the first three are null
    where there are no labels.

    Args:
        run_folder: made if absent.
        scores: to keep for fusion with other runs.
        metrics: of these scores; None where there are no labels.
        details: JSON-able; which checkpoint, prior and segments the numbers belong to.
        official: from `official_metrics`.
        classes: `verb` and `noun` → from `class_table`.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    save_scores(run_folder / SCORES_FILE, scores)
    content = {
        "metrics": None if metrics is None else asdict(metrics),
        "official": None if official is None else dict(official),
        "classes": None if classes is None else _plain(classes),
        "details": dict(details),
    }
    text = f"{json.dumps(content, indent=2)}\n"
    write_atomically(run_folder / METRICS_FILE, text.encode())


def _plain(classes: Mapping[str, Sequence[ClassFigures]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(row) for row in rows] for name, rows in classes.items()}
