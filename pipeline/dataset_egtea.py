"""EGTEA Gaze+ from its official action annotations: three splits, each of train and test.

The name of a clip says all about it: P04-R06-GreekSalad-682170-683940-F016368-F016419 is session
P04-R06-GreekSalad of participant P04, annotated from 682.170 s to 683.940 s. The frame numbers
count at 24 fps and say which frames of the session the official trimmed file holds: the annotated
time, widened by a tenth of its length at either end, and to 24 frames at least.

Guesses where the papers are silent: in sessions a segment is the annotated time; a trimmed file is
taken whole, as others do. Of several nouns the first one is the class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from heads.protocols import Protocol
from pipeline.errors import AnnotationError
from pipeline.segments import Dataset, Segment, make_dataset

__all__ = ["load_egtea"]

ORIGIN = "the action annotations of EGTEA Gaze+ (cbs.ic.gatech.edu/fpv)"
FILES = {"train": "train_split{}.txt", "val": "test_split{}.txt"}
FRAME_RATE_FPS = 24
# Where the files with their names are not there.
NUM_VERBS = 19
NUM_NOUNS = 53
CLIP_NAME = re.compile(
    r"(?P<session>(?P<participant>[A-Z]+\d+)-R\d+-\w+)-(?P<start_ms>\d{1,9})-(?P<stop_ms>\d{1,9})"
    r"-F(?P<first>\d{1,9})-F(?P<last>\d{1,9})",
    re.ASCII,
)

Pair = tuple[int, int]


def load_egtea(folder: Path, *, split: int, clips: Literal["full", "trimmed"]) -> Dataset:
    """Read one of the splits 1, 2, 3; its test part is ``val``.

    Classes are the official ids less 1, and the names are those of ``verb_idx.txt`` and
    ``noun_idx.txt``, or the official ids themselves without these files.

    Args:
        clips: ``full``: videos are sessions; ``trimmed``: each segment is a video of its own.

    Raises:
        AnnotationError: as `pipeline.datasets.load_dataset`; also an action that has two pairs of
            verb and noun, or a pair that has two actions.
    """
    verb_names = _names(folder / "verb_idx.txt") or _numbers(NUM_VERBS)
    noun_names = _names(folder / "noun_idx.txt") or _numbers(NUM_NOUNS)
    action_names = _names(folder / "action_idx.txt")
    segments: dict[str, Segment] = {}
    actions: dict[int, Pair] = {}
    for part, name in FILES.items():
        for where, (clip, *columns) in _lines(folder / name.format(split)):
            ids = _ids(columns, len(action_names), len(verb_names), len(noun_names), where)
            action, pair = ids[0], (ids[1] - 1, ids[2] - 1)
            _check_action(action, pair, actions, where)
            narration = action_names[action - 1] if action_names else ""
            segments[where] = _segment(clip, pair, part, narration, where, clips=clips)
    return make_dataset(
        segments,
        verb_names,
        noun_names,
        source=folder,
        splits=tuple(FILES),
        protocol=Protocol("egtea", actions=_table(actions, folder)),
    )


def _segment(
    clip: str,
    pair: Pair,
    split: str,
    narration: str,
    where: str,
    *,
    clips: Literal["full", "trimmed"],
) -> Segment:
    match = CLIP_NAME.fullmatch(clip)
    if match is None:
        raise AnnotationError(
            f"{where}: got clip name {clip!r}, expected one such as "
            "P04-R06-GreekSalad-682170-683940-F016368-F016419"
        )
    full = clips == "full"
    num_frames = int(match["last"]) - int(match["first"])
    return Segment(
        segment_id=clip,
        video_id=match["session"] if full else clip,
        participant_id=match["participant"],
        start_seconds=int(match["start_ms"]) / 1000 if full else 0.0,
        stop_seconds=int(match["stop_ms"]) / 1000 if full else num_frames / FRAME_RATE_FPS,
        verb_class=pair[0],
        noun_class=pair[1],
        split=split,
        narration=narration,
        session_id=match["session"],
    )


def _ids(
    columns: list[str], num_actions: int, num_verbs: int, num_nouns: int, where: str
) -> list[int]:
    """The official ids of a line: action, verb, and one noun or more."""
    if len(columns) < 3:
        raise AnnotationError(
            f"{where}: got {len(columns) + 1} columns, expected clip name, action, verb, noun"
        )
    limits = [("action", num_actions), ("verb", num_verbs)]
    limits += [("noun", num_nouns)] * (len(columns) - 2)
    ids = []
    for (kind, count), text in zip(limits, columns, strict=True):
        number = _integer(text, kind, where)
        if number < 1 or (count and number > count):
            allowed = f"1 to {count}" if count else "1 or more"
            raise AnnotationError(f"{where}: got {kind} {number}, expected {allowed}")
        ids.append(number)
    return ids


def _check_action(action: int, pair: Pair, actions: dict[int, Pair], where: str) -> None:
    """An action stands for one pair of verb and noun, and a pair for one action."""
    verb, noun = actions.setdefault(action, pair)
    if (verb, noun) != pair:
        raise AnnotationError(
            f"{where}: got action {action} with verb {pair[0] + 1} and noun {pair[1] + 1}, "
            f"expected verb {verb + 1} and noun {noun + 1} as in earlier lines"
        )


def _table(actions: Mapping[int, Pair], folder: Path) -> tuple[Pair, ...]:
    """The pair of each action in the order of the official ids; no pair comes twice."""
    known: dict[Pair, int] = {}
    for action, pair in sorted(actions.items()):
        if known.setdefault(pair, action) != action:
            raise AnnotationError(
                f"{folder}: got actions {known[pair]} and {action} for verb {pair[0] + 1} and noun "
                f"{pair[1] + 1}, expected one action for each pair"
            )
    return tuple(known)


def _names(path: Path) -> tuple[str, ...]:
    """Names in the order of their ids, from lines ``name id``; empty where there is no file."""
    if not path.exists():
        return ()
    names: dict[int, str] = {}
    for where, words in _lines(path):
        number = _integer(words[-1], "id", where)
        if number in names or len(words) < 2:
            raise AnnotationError(f"{where}: got {' '.join(words)!r}, expected a name and a new id")
        names[number] = " ".join(words[:-1])
    if not names or sorted(names) != list(range(1, len(names) + 1)):
        raise AnnotationError(f"{path}: expected ids that count 1, 2, 3, … without gaps")
    return tuple(names[i] for i in sorted(names))


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(1, count + 1))


def _integer(text: str, kind: str, where: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise AnnotationError(f"{where}: got {kind} {text!r}, expected a whole number")
    return int(text)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (``file:line``, words) of a file's lines, empty ones apart."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise AnnotationError(f"{path}: no such label file; take it from {ORIGIN}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield f"{path}:{number}", words
