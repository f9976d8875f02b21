"""Which of many file names are the frames of a video: numbered from 1.

Number 1 has to be there, and at most one number in twenty may be missing before the highest one:
what a copy lost. Missing frames keep their numbers and times, and no other frame stands in for
them. Where more is missing, files are not numbered as they are taken to be, or most of a copy is
lost. What is missing behind the highest number leaves no trace in the names.

Frames of flow come in two sets of images, horizontal and vertical. They are told apart by one
letter of their names, wherever it stands: `u/frame_0000000001.jpg` and `v/frame_0000000001.jpg`
as EPIC publishes them, or `flow_x_00001.jpg` and `flow_y_00001.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from extractors.limits import MAX_FRAMES
from extractors.video_reader import UnreadableVideo

__all__ = ["FLOW_COMPONENTS", "Numbering", "number_frames"]

MAX_MISSING_SHARE = 1 / 20
FLOW_COMPONENTS = ("u", "v")  # horizontal, vertical
_PAIRS_OF_LETTERS = (FLOW_COMPONENTS, ("x", "y"))

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<digits>\d+)(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)

Shape = tuple[str, int, str]  # what stands before the number, its digits, what stands behind it


@dataclass(frozen=True)
class Numbering:
    """Names of a video's images.

    Attributes:
        patterns: one for RGB; horizontal and vertical for flow; each with a `{number}` field.
        num_frames: numbers run from 1 to this one.
        missing: the numbers among them without an image, for each pattern.
    """

    patterns: tuple[str, ...]
    num_frames: int
    missing: tuple[frozenset[int], ...]

    def name(self, component: int, number: int) -> str:
        """File name of an image."""
        return self.patterns[component].format(number=number)


def number_frames(
    path: Path, names: Collection[str], *, pattern: str | None, is_flow: bool
) -> Numbering:
    """Find the frames among the names of a folder or tar.

    Args:
        path: for messages.
        names: of files, with "/" between folders.
        pattern: "frame_{number:010d}.jpg", for flow "{component}/frame_{number:010d}.jpg"; None
            takes the one numbering there is.
        is_flow: look for two sets of images instead of one.

    Raises:
        UnreadableVideo: if there is no numbering or more than one, more than one number in twenty
            or the first is missing, or flow goes further in one component than in the other.
        ValueError: for a pattern that makes no sense.
    """
    names = names if isinstance(names, set | frozenset) else set(names)
    if pattern is not None:
        patterns = _given_patterns(pattern, is_flow=is_flow)
    else:
        patterns = _find_patterns(path, names, is_flow=is_flow)
    highest, missing = zip(*(_find_frames(path, names, p) for p in patterns), strict=True)
    if len(set(highest)) > 1:
        raise UnreadableVideo(
            f"{path}: got {highest[0]} images of horizontal and {highest[1]} of vertical flow, "
            "expected as many of each; get the frames again"
        )
    if highest[0] > MAX_FRAMES:
        raise UnreadableVideo(
            f"{path}: got {highest[0]:,} frames, expected at most {MAX_FRAMES:,}; split the video"
        )
    return Numbering(patterns, highest[0], missing)


def _find_patterns(path: Path, names: Collection[str], *, is_flow: bool) -> tuple[str, ...]:
    """The file name pattern that all numbered images share; two of them for flow."""
    shapes = {
        (match["prefix"], len(match["digits"]), match["suffix"])
        for name in names
        if (match := _NUMBERED.fullmatch(name))
    }
    example = "u/frame_0000000001.jpg and v/frame_0000000001.jpg" if is_flow else "frame_01.jpg"
    if not shapes:
        raise UnreadableVideo(
            f"{path}: got {len(names)} entries and no numbered image, expected files such as "
            f"{example}"
        )
    patterns = sorted(_pattern(shape) for shape in shapes)
    if is_flow:
        pair = _flow_pair(shapes)
        if pair is None:
            raise UnreadableVideo(
                f"{path}: got the numberings {', '.join(patterns[:3])}, expected two that differ "
                f"in one letter, u and v or x and y, such as {example}"
            )
        return tuple(_pattern(shape) for shape in pair)
    if len(patterns) > 1:
        raise UnreadableVideo(
            f"{path}: got more than one numbering ({', '.join(patterns[:3])}), expected one; "
            "keep the frames of one video alone, or name the wanted one as frame_pattern"
        )
    return tuple(patterns)


def _flow_pair(shapes: Collection[Shape]) -> tuple[Shape, Shape] | None:
    """Horizontal and vertical, if the two shapes differ in nothing but that letter."""
    if len(shapes) != 2:
        return None
    first, second = sorted(shapes)
    letters = [(a, b) for a, b in zip(first[0], second[0], strict=False) if a != b]
    same_rest = first[1:] == second[1:] and len(first[0]) == len(second[0])
    is_pair = len(letters) == 1 and letters[0] in _PAIRS_OF_LETTERS
    return (first, second) if same_rest and is_pair else None


def _pattern(shape: Shape) -> str:
    prefix, width, suffix = shape
    return f"{_literal(prefix)}{{number:0{width}d}}{_literal(suffix)}"


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _given_patterns(pattern: str, *, is_flow: bool) -> tuple[str, ...]:
    fields = ["component", "number"] if is_flow else ["number"]
    patterns = [pattern.replace("{component}", _literal(c)) for c in FLOW_COMPONENTS]
    try:
        found = sorted(field for _, field, _, _ in Formatter().parse(pattern) if field is not None)
        names = {part.format(number=n) for part in patterns for n in (1, 2)}
    except (ValueError, KeyError, IndexError):
        found, names = [], set()
    if found != fields or len(names) != 2 * len(fields):
        example = "{component}/frame_{number:010d}.jpg" if is_flow else "frame_{number:010d}.jpg"
        raise ValueError(f'got frame_pattern "{pattern}", expected one such as "{example}"')
    return tuple(patterns) if is_flow else (pattern,)


def _find_frames(path: Path, names: Collection[str], pattern: str) -> tuple[int, frozenset[int]]:
    """The highest number of a frame, and those below it that are missing."""
    numbers = {n for n in _numbers_in(names) if pattern.format(number=n) in names}
    present, highest = len(numbers), max(numbers, default=0)
    if not present:
        raise UnreadableVideo(
            f"{path}: got no file named like {pattern.format(number=1)}; check frame_pattern"
        )
    missing = (n for n in range(1, highest) if n not in numbers)
    if 1 not in numbers or highest - present > MAX_MISSING_SHARE * highest:
        raise UnreadableVideo(
            f"{path}: got {present} frames numbered up to {highest}, but "
            f"{pattern.format(number=next(missing))} is missing, expected the first and at least "
            f"{1 - MAX_MISSING_SHARE:.0%} of all; get the frames again"
        )
    return highest, frozenset(missing)


def _numbers_in(names: Collection[str]) -> set[int]:
    """Every positive number that stands in a file name."""
    return {int(digits) for name in names for digits in re.findall(r"\d+", name)} - {0}
