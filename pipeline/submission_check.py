"""Submissions read back: everything that is wrong with them, else their figures.

Ranks are taken from the numbers in the file, as the official code does: verbs and nouns as they
stand, actions as given, or from the softmax of verbs and nouns where none are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads.metrics import softmax
from heads.ranking import BEST_ACTIONS, TOP, Ranking, best_actions, class_order
from heads.scores import Scores
from pipeline.errors import SubmissionError
from pipeline.head_metrics import Measured, measure, shortened, some
from pipeline.segments import Dataset
from pipeline.submission import TASK, Challenge, challenge_of
from pipeline.submission_json import JsonObject, Numbers, parse_object, read_files

__all__ = ["CheckedFile", "check_submission"]

MOST_PROBLEMS = 20
LEVELS = ("sls_pt", "sls_tl", "sls_td")


@dataclass(frozen=True)
class CheckedFile:
    """A valid file of a submission; ``measured``: None where its split has no labels."""

    name: str
    split: str
    num_segments: int
    has_actions: bool
    measured: Measured | None


def check_submission(
    path: Path, dataset: Dataset, *, split: str | None = None
) -> list[CheckedFile]:
    """Check a submission against the splits of its data set.

    Args:
        path: of a zip, or of one JSON file.
        split: that a JSON file is of, or the only one to look at; by default the file names say.

    Raises:
        SubmissionError: listing everything that is wrong.
        ValueError: a file that cannot be read, or a split that the data set has not.
    """
    challenge = challenge_of(dataset)
    files = read_files(path)
    splits = {name: split or _split_of(name, challenge) for name in files}
    if split is not None and len(files) > 1:
        files = {name: files[name] for name in files if name == challenge.member(split)}
    if not files:
        raise ValueError(f"{path}: got no {challenge.member(str(split))} in the zip")
    for name in files:
        if splits[name] not in dataset.splits:
            raise ValueError(
                f"{path}: got {name} for split {splits[name]!r}, expected one of "
                f"{', '.join(dataset.splits)}; see --split and data.splits"
            )
    return [
        _check_file(f"{path}: {name}", name, content, dataset, challenge, splits[name])
        for name, content in files.items()
    ]


def _split_of(name: str, challenge: Challenge) -> str:
    for split, member in challenge.members.items():
        if name == member:
            return split
    return name.removesuffix(".json")


def _check_file(
    where: str, name: str, content: bytes, dataset: Dataset, challenge: Challenge, split: str
) -> CheckedFile:
    found = parse_object(where, content)
    problems = _Problems()
    _check_header(found, challenge, problems)
    results = found.values.get("results")
    segments = dataset.split(split)
    answers = None
    if not isinstance(results, JsonObject):
        problems.say("results: expected an object of segments")
    else:
        ids = [segment.segment_id for segment in segments]
        _check_ids(results, ids, problems)
        entries = {one: results.values[one] for one in ids if one in results.values}
        sizes = len(dataset.verb_names), len(dataset.noun_names)
        answers = _answers(entries, sizes, challenge, problems)
    if problems.found or answers is None:
        raise SubmissionError(f"{where}, split {split!r}:\n{problems}")
    measured = None
    if all(segment.labelled for segment in segments):
        scores = Scores(
            tuple(segment.segment_id for segment in segments),
            softmax(answers.verbs),
            softmax(answers.nouns),
            np.array([segment.verb_class for segment in segments], dtype=np.int64),
            np.array([segment.noun_class for segment in segments], dtype=np.int64),
        )
        measured = measure(dataset, scores, _rank(answers, scores))
    return CheckedFile(name, split, len(segments), answers.actions is not None, measured)


class _Problems:
    """What is wrong, and with which segments."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = defaultdict(list)

    def say(self, problem: str, segment_id: str | None = None) -> None:
        self.found[problem] += [] if segment_id is None else [segment_id]

    def __str__(self) -> str:
        lines = [
            f"- {problem}{f': {some(ids)}' if ids else ''}" for problem, ids in self.found.items()
        ]
        more = len(lines) - MOST_PROBLEMS
        return "\n".join(lines[:MOST_PROBLEMS] + ([f"- and {more:,} more"] if more > 0 else []))


def _check_header(found: JsonObject, challenge: Challenge, problems: _Problems) -> None:
    levels = LEVELS if challenge.levels else ()
    for key in found.duplicates:
        problems.say(f"key {shortened(key)} occurs twice")
    for key in found.values.keys() - {"version", "challenge", "results", *levels}:
        problems.say(f"unknown key {shortened(key)}")
    for key, expected in (("version", challenge.version), ("challenge", TASK)):
        if found.values.get(key) != expected:
            problems.say(f"got {key} {shortened(found.values.get(key))}, expected {expected!r}")
    for key in levels:
        value = found.values.get(key)
        if type(value) is not int or not 0 <= value <= 5:
            problems.say(f"got {key} {shortened(value)}, expected 0 to 5")


def _check_ids(results: JsonObject, ids: Sequence[str], problems: _Problems) -> None:
    known = set(ids)
    for one in ids:
        if one not in results.values:
            problems.say("segments that are missing", one)
    for one in results.values:
        if one not in known:
            problems.say("segments that the split has not", one)
    for one in results.duplicates:
        problems.say("segments that occur twice", one)


@dataclass(frozen=True)
class _Answers:
    """The numbers of a file, in the order of the split's segments: (n, V), (n, N), (n, 5).

    ``actions``: the best, as ``verb * N + noun``, −1 where there are fewer than five; or None.
    """

    verbs: NDArray[np.float64]
    nouns: NDArray[np.float64]
    actions: NDArray[np.int64] | None


def _answers(
    entries: Mapping[str, object],
    sizes: tuple[int, int],
    challenge: Challenge,
    problems: _Problems,
) -> _Answers | None:
    num_verbs, num_nouns = sizes
    verbs, nouns = np.empty((len(entries), num_verbs)), np.empty((len(entries), num_nouns))
    actions = np.full((len(entries), TOP), -1)
    with_actions = 0
    for row, (one, entry) in enumerate(entries.items()):
        if not isinstance(entry, JsonObject):
            problems.say('expected an object with "verb" and "noun"', one)
            continue
        for key in (*entry.duplicates, *(entry.values.keys() - {"verb", "noun", "action"})):
            problems.say(f"key {shortened(key)} is unknown or occurs twice", one)
        _fill(verbs[row], "verb", entry.values.get("verb"), problems, one)
        _fill(nouns[row], "noun", entry.values.get("noun"), problems, one)
        if "action" in entry.values:
            with_actions += 1
            _fill_actions(actions[row], entry.values["action"], sizes, challenge, problems, one)
    if with_actions not in (0, len(entries)):
        problems.say(f"got actions of {with_actions:,} of {len(entries):,} segments, expected all")
    if problems.found:
        return None
    return _Answers(verbs, nouns, actions if with_actions else None)


def _fill(
    row: NDArray[np.float64], kind: str, found: object, problems: _Problems, one: str
) -> None:
    """The scores of all classes into a row of (classes,)."""
    if not isinstance(found, Numbers):
        problems.say(f"{kind}: expected an object of numbers, one per class", one)
        return
    expected = {str(number): number for number in range(len(row))}
    if found.duplicates:
        problems.say(f"{kind}: classes that occur twice", one)
    if expected.keys() - set(found.keys):
        problems.say(f"{kind}: classes missing of 0 to {len(row) - 1}", one)
    if set(found.keys) - expected.keys():
        problems.say(f"{kind}: classes that are not 0 to {len(row) - 1}", one)
        return
    if not np.isfinite(found.values).all():
        problems.say(f"{kind}: numbers that are not finite", one)
    row[[expected[key] for key in found.keys]] = found.values


def _fill_actions(
    row: NDArray[np.int64],
    found: object,
    sizes: tuple[int, int],
    challenge: Challenge,
    problems: _Problems,
    one: str,
) -> None:
    """The best actions into a row of (5,)."""
    if not isinstance(found, Numbers):
        problems.say('action: expected an object of numbers under "verb,noun"', one)
        return
    most = min(BEST_ACTIONS, sizes[0] * sizes[1])
    if len(found.keys) > most or (challenge.exact_actions and len(found.keys) < most):
        problems.say(f"action: expected {'' if challenge.exact_actions else 'up to '}{most}", one)
    if found.duplicates:
        problems.say("action: actions that occur twice", one)
    if not np.isfinite(found.values).all():
        problems.say("action: numbers that are not finite", one)
    ids = [_action_id(key, sizes) for key in found.keys]
    if None in ids:
        problems.say('action: keys that are not "verb,noun" of known classes', one)
        return
    best = np.array(ids, dtype=np.int64)[found.values.argsort()[::-1]][:TOP]
    row[: len(best)] = best


def _action_id(key: str, sizes: tuple[int, int]) -> int | None:
    """`verb * N + noun` of "verb,noun", spelt as JSON's numbers are."""
    verb, comma, noun = key.partition(",")
    if not (comma and verb.isascii() and noun.isascii() and verb.isdigit() and noun.isdigit()):
        return None
    if len(key) > 20 or key != f"{int(verb)},{int(noun)}":
        return None
    if int(verb) >= sizes[0] or int(noun) >= sizes[1]:
        return None
    return int(verb) * sizes[1] + int(noun)


def _rank(answers: _Answers, scores: Scores) -> Ranking:
    num_nouns = answers.nouns.shape[1]
    actions = answers.actions
    if actions is None:
        nothing = np.ones((answers.verbs.shape[1], num_nouns))
        best = best_actions(scores.verb_scores, scores.noun_scores, nothing, TOP)
        actions = best.verbs * num_nouns + best.nouns
    return Ranking(
        class_order(answers.verbs)[:, :TOP], class_order(answers.nouns)[:, :TOP], actions, num_nouns
    )
