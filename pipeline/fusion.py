"""Late fusion: the mean of the softmax scores of several runs (two-stream, ensembles).

A fusion is a folder like a run's, without a head: config.yaml (the first run's, with the split that
was fused), scores.npz and metrics.json, whose details name the runs, their weights and their
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.scores import UNLABELLED, Scores
from heads.training import HEAD_FILE
from pipeline.datasets import load_dataset
from pipeline.errors import RunFolderError
from pipeline.head_metrics import measure_scores, some, write_measured
from pipeline.head_runs import Evaluated
from pipeline.runs import CONFIG_NAME, write_config
from pipeline.saved_scores import SavedScores, open_scores

__all__ = ["fuse_runs", "fuse_scores"]


def fuse_runs(
    folders: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    split: str | None = None,
) -> Evaluated:
    """Fuse the scores of runs, or of fusions, and measure them.

    Args:
        folders: of two or more.
        out: where the fusion goes; an earlier fusion there is replaced.
        weights: of each folder, made to sum 1; equal by default.
        split: by default each run's own ``evaluate.split``, which must be one.

    Raises:
        RunFolderError: a folder has no such scores, or `out` holds something else.
        ValueError: runs over other segments, classes, labels, splits or data sets; wrong weights.
    """
    shares = _shares(folders, weights)
    _check_out(out, folders)
    runs = [open_scores(folder, split) for folder in folders]
    first = runs[0]
    _check_alike(runs)
    fused = fuse_scores([run.scores for run in runs], shares, names=[str(one) for one in folders])
    dataset = load_dataset(first.config.data)
    kind = first.config.evaluate.action_prior
    measured = measure_scores(dataset, fused, kind)
    details = {
        "split": first.split,
        "action_prior": kind,
        "experiment": first.config.name,
        "fused": [_origin(run, share) for run, share in zip(runs, shares, strict=True)],
    }
    evaluate = first.config.evaluate.model_copy(update={"split": first.split})
    out.mkdir(parents=True, exist_ok=True)
    write_config(out, first.config.model_copy(update={"evaluate": evaluate}))
    write_measured(out, fused, measured, details)
    return Evaluated(first.split, measured, len(fused.segment_ids))


def fuse_scores(
    runs: Sequence[Scores], weights: Sequence[float], *, names: Sequence[str]
) -> Scores:
    """The weighted mean of scores, segment by segment, in the order of the first run.

    Args:
        runs: of the same segments, in any order.
        weights: of sum 1.
        names: of the runs, for errors.

    Raises:
        ValueError: other segments, classes or labels than the first run's; names run and ids.
    """
    first = runs[0]
    aligned = [first]
    for run, name in zip(runs[1:], names[1:], strict=True):
        for kind in ("verb_scores", "noun_scores"):
            got, expected = getattr(run, kind).shape[1], getattr(first, kind).shape[1]
            if got != expected:
                raise ValueError(
                    f"{name}: got {kind} of {got} classes, expected {expected} as in {names[0]}"
                )
        aligned.append(_in_order_of(first, run, names[0], name))
    return replace(
        first,
        verb_scores=_weighted([run.verb_scores for run in aligned], weights),
        noun_scores=_weighted([run.noun_scores for run in aligned], weights),
    )


def _weighted(runs: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    total = np.zeros_like(runs[0])
    for scores, weight in zip(runs, weights, strict=True):
        total += weight * scores
    return total


def _in_order_of(first: Scores, run: Scores, first_name: str, name: str) -> Scores:
    places = {segment_id: place for place, segment_id in enumerate(run.segment_ids)}
    if missing := [one for one in first.segment_ids if one not in places]:
        raise ValueError(f"{name}: got no scores of {some(missing)}, which {first_name} has")
    if unknown := sorted(set(run.segment_ids) - set(first.segment_ids)):
        raise ValueError(f"{name}: got scores of {some(unknown)}, which {first_name} lacks")
    order = np.array([places[one] for one in first.segment_ids], dtype=np.int64)
    found = Scores(
        first.segment_ids,
        run.verb_scores[order],
        run.noun_scores[order],
        run.verb_labels[order],
        run.noun_labels[order],
    )
    differ = (found.verb_labels != first.verb_labels) | (found.noun_labels != first.noun_labels)
    if differ.any():
        ids = [first.segment_ids[row] for row in np.flatnonzero(differ)]
        what = "other labels than"
        if (found.verb_labels[differ] == UNLABELLED).all():
            what = "no labels, unlike"
        raise ValueError(f"{name}: got {what} {first_name} for {some(ids)}; evaluate both again")
    return found


def _shares(folders: Sequence[Path], weights: Sequence[float] | None) -> list[float]:
    if len(folders) < 2:
        raise ValueError(f"got {len(folders)} run, expected two or more to fuse")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("got the same run twice, expected different ones; --weights weighs them")
    given = [1.0] * len(folders) if weights is None else list(weights)
    if len(given) != len(folders):
        raise ValueError(f"got {len(given)} weights for {len(folders)} runs")
    if not all(np.isfinite(weight) and weight > 0 for weight in given):
        raise ValueError(f"got weights {given}, expected positive numbers")
    return [weight / sum(given) for weight in given]


def _check_out(out: Path, folders: Sequence[Path]) -> None:
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise RunFolderError(f"{out}: one of the runs to fuse; choose another folder with --out")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out}: got a file, expected a folder; choose another with --out")
    has_head = (out / HEAD_FILE).exists()
    if has_head or (out.exists() and any(out.iterdir()) and not (out / CONFIG_NAME).exists()):
        raise RunFolderError(
            f"{out}: holds something that is no fusion; choose another folder with --out"
        )


def _check_alike(runs: Sequence[SavedScores]) -> None:
    """Refuse runs whose segments, or figures, have no common meaning."""
    for what, found in (
        ("kinds of data", [run.config.data.kind for run in runs]),
        ("splits", [run.split for run in runs]),
        ("action priors", [run.config.evaluate.action_prior for run in runs]),
    ):
        if len(set(found)) > 1:
            each = ", ".join(f"{one} ({run.folder})" for one, run in zip(found, runs, strict=True))
            hint = "; name one with --split" if what == "splits" else ""
            raise ValueError(f"got runs over different {what}: {each}{hint}")


def _origin(run: SavedScores, share: float) -> dict[str, Any]:
    """Which run, how much of it, and what made its scores."""
    found: dict[str, Any] = {"run": str(run.folder), "weight": share}
    if "fused" in run.details:
        return {**found, "fused": run.details["fused"]}
    head = run.folder / HEAD_FILE
    return {
        **found,
        "head": run.config.head.name,
        "checkpoint": run.details.get("checkpoint"),
        "checkpoint_sha256": sha256(head.read_bytes()).hexdigest() if head.is_file() else None,
        "stages": run.details.get("stages"),
    }
