"""What a head answered for some segments, and the file that keeps it: `scores.npz`."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads.atomic import write_atomically
from heads.metrics import Metrics, recognition_metrics

UNLABELLED = -1


@dataclass(frozen=True)
class Scores:
    """Softmax scores of `n` segments with their labels; `UNLABELLED` where nobody knows them."""

    segment_ids: tuple[str, ...]
    verb_scores: NDArray[np.float64]
    """(n, num_verbs)."""
    noun_scores: NDArray[np.float64]
    """(n, num_nouns)."""
    verb_labels: NDArray[np.int64]
    """(n,)."""
    noun_labels: NDArray[np.int64]
    """(n,)."""

    @property
    def labelled(self) -> bool:
        """True if every segment has its labels."""
        return bool((self.verb_labels != UNLABELLED).all() and (self.noun_labels >= 0).all())

    def metrics(self, prior: NDArray[np.float64]) -> Metrics:
        """Accuracies, with actions weighted by `prior` (num_verbs, num_nouns).

        Raises:
            ValueError: if there are NaN or infinite scores, or segments without labels.
        """
        if not self.labelled:
            raise ValueError("got segments without labels, expected labels to measure against")
        return recognition_metrics(
            self.verb_scores, self.noun_scores, self.verb_labels, self.noun_labels, prior
        )


def save_scores(path: Path, scores: Scores) -> None:
    """Write the fields of `Scores` as arrays of an npz file, atomically; ids are text."""
    arrays = {field.name: np.asarray(getattr(scores, field.name)) for field in fields(scores)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def load_scores(path: Path) -> Scores:
    """Read what `save_scores` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or arrays that do not belong together.
    """
    names = [field.name for field in fields(Scores)]
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: got a file that is no scores.npz of an evaluation ({error}); evaluate again"
        ) from error
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: got arrays of lengths {sizes}, expected one row per segment")
    ids = tuple(str(segment_id) for segment_id in arrays.pop("segment_ids"))
    scores = Scores(ids, **arrays)
    if problem := _problem(scores):
        raise ValueError(f"{path}: got {problem}; evaluate again")
    return scores


def _problem(scores: Scores) -> str | None:
    """What no evaluation writes."""
    if len(set(scores.segment_ids)) < len(scores.segment_ids):
        return "segment ids that occur twice"
    for name in ("verb", "noun"):
        rows, labels = getattr(scores, f"{name}_scores"), getattr(scores, f"{name}_labels")
        if rows.ndim != 2 or rows.dtype != np.float64:
            return f"{name}_scores {rows.dtype} {rows.shape}, expected float64 (segments, classes)"
        if not np.isfinite(rows).all():
            return f"NaN or infinite {name}_scores"
        if labels.ndim != 1 or labels.dtype != np.int64:
            return f"{name}_labels {labels.dtype} {labels.shape}, expected int64 (segments,)"
        if len(labels) and not UNLABELLED <= labels.min() <= labels.max() < rows.shape[1]:
            return f"{name}_labels outside the {rows.shape[1]} classes"
    return None
