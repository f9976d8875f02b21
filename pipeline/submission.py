"""Files for the EPIC-KITCHENS challenges, made from saved scores.

One JSON object per test split: version 0.1 for EPIC-55 (`seen.json` and `unseen.json` in one zip),
version 0.2 for EPIC-100 (`test.json`). Equal scores give equal bytes.

The challenge servers take a softmax of what they get, so verbs and nouns are written as logarithms
of probabilities, of which the softmax is the probabilities again. The best 100 actions are written
too, with the run's action prior. Ten digits are kept; a probability of zero is written as the
logarithm of the smallest number there is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from heads.ranking import best_actions
from heads.scores import Scores
from pipeline.datasets import load_dataset
from pipeline.head_metrics import some, training_prior
from pipeline.saved_scores import open_config, open_scores
from pipeline.segments import Dataset
from stores.durable import replace_file

__all__ = ["CHALLENGES", "Challenge", "Supervision", "challenge_of", "write_submission"]

TASK = "action_recognition"
LEAST_PROBABILITY = float(np.nextafter(0, 1))
# Zip files carry a time; one that never changes keeps equal scores equal.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
ZIP_LEVEL = 5


@dataclass(frozen=True)
class Challenge:
    """``members``: split → the name its file has in the zip. ``levels``: whether it asks for
    levels of supervision. ``exact_actions``: whether it wants 100 actions or up to 100."""

    version: str
    members: Mapping[str, str]
    levels: bool
    exact_actions: bool

    def member(self, split: str) -> str:
        """The file of a split; splits that no challenge has are called by their names."""
        return self.members.get(split, f"{split}.json")


CHALLENGES = {
    "epic55": Challenge("0.1", {"test_s1": "seen.json", "test_s2": "unseen.json"}, False, True),
    "epic100": Challenge("0.2", {"test": "test.json"}, True, False),
}


@dataclass(frozen=True)
class Supervision:
    """Levels of supervision, 0 to 5 each: github.com/epic-kitchens/sls.

    ``sls_pt``: pre-training (2: public images and videos). ``sls_tl``: training labels (3: start
    and stop times, 4: boxes, too). ``sls_td``: training data (3: train, 4: train and val).
    """

    sls_pt: int
    sls_tl: int
    sls_td: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 5:
                raise ValueError(f"got {name} {value}, expected 0 to 5")


def challenge_of(dataset: Dataset) -> Challenge:
    """The challenge of a data set.

    Raises:
        ValueError: it has none.
    """
    if dataset.protocol.name not in CHALLENGES:
        raise ValueError(
            "got a data set without a challenge, expected one of data.kind "
            f"{' or '.join(CHALLENGES)}"
        )
    return CHALLENGES[dataset.protocol.name]


def write_submission(
    folder: Path,
    out: Path,
    *,
    splits: Sequence[str] = (),
    supervision: Supervision | None = None,
) -> list[str]:
    """Write the scores of a run, or a fusion, as a challenge wants them.

    Args:
        folder: with the scores of these splits.
        out: of kind .zip, or .json for one split.
        splits: by default the data set's test splits.
        supervision: for EPIC-100.

    Returns:
        The splits.

    Raises:
        RunFolderError: no scores of a split.
        ValueError: no such challenge, segments without scores, or wrong arguments.
    """
    if out.suffix not in {".json", ".zip"}:
        raise ValueError(f"got --out {out}, expected a name that ends in .zip or .json")
    dataset = load_dataset(open_config(folder).data)
    challenge = challenge_of(dataset)
    if challenge.levels != (supervision is not None):
        got, expected = ("none", "all three") if challenge.levels else ("some", "none")
        raise ValueError(
            f"got {got} of --sls-pt, --sls-tl and --sls-td, the levels of supervision, expected "
            f"{expected} for this challenge; github.com/epic-kitchens/sls says what they mean"
        )
    chosen = list(splits) or [split for split in challenge.members if split in dataset.splits]
    if not chosen:
        raise ValueError(
            f"got a data set without {' or '.join(challenge.members)}; add them to data.splits "
            "and evaluate them, or name another split with --split"
        )
    if out.suffix == ".json" and len(chosen) > 1:
        raise ValueError(f"got splits {', '.join(chosen)} for one JSON file; use a .zip for both")
    files = {
        challenge.member(split): "".join(_text(folder, split, dataset, challenge, supervision))
        for split in chosen
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    content = _zipped(files) if out.suffix == ".zip" else next(iter(files.values())).encode()
    replace_file(out, content, durable=True)
    return chosen


def _text(
    folder: Path,
    split: str,
    dataset: Dataset,
    challenge: Challenge,
    supervision: Supervision | None,
) -> Iterator[str]:
    """The JSON text of a split, a segment at a time, in the order of the annotations."""
    saved = open_scores(folder, split)
    ids = [segment.segment_id for segment in dataset.split(split)]
    rows = {segment_id: row for row, segment_id in enumerate(saved.scores.segment_ids)}
    if missing := [one for one in ids if one not in rows]:
        raise ValueError(
            f"{folder}: got no scores of {some(missing)} of split {split!r}, expected all; "
            "evaluate without --skip-missing"
        )
    prior = training_prior(dataset, saved.config.evaluate.action_prior)
    header = {"version": challenge.version, "challenge": TASK}
    levels = {} if supervision is None else asdict(supervision)
    yield json.dumps({**header, **levels})[:-1] + ', "results": {'
    order = np.array([rows[one] for one in ids], dtype=np.int64)
    for place, (one, entry) in enumerate(
        zip(ids, _entries(saved.scores, order, prior), strict=True)
    ):
        yield f"{',' if place else ''}\n{json.dumps(one)}: {entry}"
    yield "\n}}\n"


def _entries(scores: Scores, order: NDArray[np.int64], prior: NDArray[np.float64]) -> Iterator[str]:
    """What is said of each segment."""
    verbs, nouns = scores.verb_scores[order], scores.noun_scores[order]
    best = best_actions(verbs, nouns, prior)
    verb_ids, noun_ids = ([str(i) for i in range(rows.shape[1])] for rows in (verbs, nouns))
    for row in range(len(order)):
        actions = [f"{v},{n}" for v, n in zip(best.verbs[row], best.nouns[row], strict=True)]
        fields = {
            "verb": _numbers(verb_ids, verbs[row]),
            "noun": _numbers(noun_ids, nouns[row]),
            "action": _numbers(actions, best.scores[row]),
        }
        yield "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"


def _numbers(ids: Iterable[str], probabilities: NDArray[np.float64]) -> str:
    logarithms = np.log(np.maximum(probabilities, LEAST_PROBABILITY)).tolist()
    pairs = [f'"{one}": {value:.10g}' for one, value in zip(ids, logarithms, strict=True)]
    return "{" + ", ".join(pairs) + "}"


def _zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            info = ZipInfo(name, ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, text, compress_type=ZIP_DEFLATED, compresslevel=ZIP_LEVEL)
    return buffer.getvalue()
