"""Folders of numbered frames, as EPIC-KITCHENS publishes them.

The official RGB folders hold `frame_0000000001.jpg`, `frame_0000000002.jpg`, … written at a
rate of their own (60 frames a second for the two-digit videos, P01_01, and 50 for the
three-digit ones, P01_101), whatever the rate of the video. The annotations number frames by
`max(1, floor(seconds × rate))`. So file number `n` is on screen from `n / rate`, and the first
file from 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from pathlib import Path
from string import Formatter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from extractors.video_reader import FrameDecodeError, UnreadableVideo, VideoReader

__all__ = ["FramesFolder", "epic_frame_number"]

FOLDER_TIME_TOLERANCE_SECONDS = 1e-6  # times travel rounded to microseconds

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<digits>\d+)(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)


def epic_frame_number(seconds: float, rate_fps: float) -> int:
    """Number of the frame at a time, as the EPIC-KITCHENS annotations count: from 1.

    This is the rule to the last bit: annotations round a product such as 16.4 × 60 =
    983.9999999999999 down to 983. `FramesFolder.index_at` allows for times that were rounded
    to microseconds and gives frame 984 there, one sixtieth of a second later.

    Args:
        seconds: time in the video.
        rate_fps: 60 for videos with a two-digit number, 50 for those with three.
    """
    return max(1, math.floor(seconds * rate_fps))


class FramesFolder(VideoReader):
    """Frames of a folder; index `i` is file number `i + 1`."""

    reader_name = "frames"

    def __init__(
        self, path: str | Path, *, frame_rate_fps: float, frame_pattern: str | None = None
    ) -> None:
        """List the folder and read the first frame's size.

        Args:
            path: folder.
            frame_rate_fps: rate at which the frames were written.
            frame_pattern: file name with a `{number}` field, as in
                "frame_{number:010d}.jpg"; None takes the one numbering there is.

        Raises:
            UnreadableVideo: if there is no folder, no frame, more than one numbering, or a
                number missing.
            ValueError: for a rate or a pattern that makes no sense.
        """
        path = Path(path)
        if not (math.isfinite(frame_rate_fps) and frame_rate_fps > 0):
            raise ValueError(f"{path}: got frame_rate_fps {frame_rate_fps}, expected more than 0")
        self._pattern = _checked_pattern(frame_pattern) if frame_pattern else None
        names = _list_folder(path)
        self._pattern = self._pattern or _find_pattern(path, names)
        num_frames = _count_frames(path, names, self._pattern)
        width_px, height_px = _image_size(path / self._pattern.format(number=1))
        numbers = np.arange(1, num_frames + 1)
        times_seconds = numbers / frame_rate_fps
        times_seconds[0] = 0.0
        super().__init__(
            path=path,
            width_px=width_px,
            height_px=height_px,
            timestamps_seconds=times_seconds,
            duration_seconds=(num_frames + 1) / frame_rate_fps,
            time_tolerance_seconds=FOLDER_TIME_TOLERANCE_SECONDS,
        )

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
        for index in wanted:
            yield index, self._read(index)

    def _read(self, index: int) -> NDArray[np.uint8]:
        file = self.path / str(self._pattern).format(number=index + 1)
        try:
            with Image.open(file) as image:
                return np.array(image.convert("RGB"), dtype=np.uint8)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise FrameDecodeError(
                f"{file}: got a frame that does not decode ({error}); get the file again", index
            ) from error


def _list_folder(path: Path) -> set[str]:
    if not path.exists():
        raise UnreadableVideo(f"{path}: no such folder; check the path of the frames")
    if not path.is_dir():
        raise UnreadableVideo(
            f'{path}: got a file, expected a folder of frames; open a video with kind="file"'
        )
    return {entry.name for entry in path.iterdir()}


def _find_pattern(path: Path, names: set[str]) -> str:
    """The file name pattern that all numbered images of the folder share."""
    shapes = set()
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            width = len(match["digits"])
            shapes.add((match["prefix"], width, match["suffix"]))
    if not shapes:
        raise UnreadableVideo(
            f"{path}: got {len(names)} entries and no numbered image, "
            "expected files such as frame_0000000001.jpg"
        )
    patterns = sorted(f"{_literal(a)}{{number:0{width}d}}{_literal(z)}" for a, width, z in shapes)
    if len(patterns) > 1:
        raise UnreadableVideo(
            f"{path}: got more than one numbering ({', '.join(patterns[:3])}), expected one; "
            "name the wanted one as frame_pattern"
        )
    return patterns[0]


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _checked_pattern(pattern: str) -> str:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(pattern) if field is not None]
        distinct = pattern.format(number=1) != pattern.format(number=2)
    except (ValueError, KeyError, IndexError):
        fields, distinct = [], False
    if fields != ["number"] or not distinct:
        raise ValueError(
            f'got frame_pattern "{pattern}", expected one such as "frame_{{number:010d}}.jpg"'
        )
    return pattern


def _count_frames(path: Path, names: set[str], pattern: str) -> int:
    """How many frames there are, numbered from 1 without a gap."""
    numbers = [n for n in _numbers_in(names) if pattern.format(number=n) in names]
    present, highest = len(numbers), max(numbers, default=0)
    if not present:
        raise UnreadableVideo(
            f"{path}: got no file named like {pattern.format(number=1)}; check frame_pattern"
        )
    if present < highest:
        missing = next(n for n in range(1, highest) if pattern.format(number=n) not in names)
        raise UnreadableVideo(
            f"{path}: got {present} frames numbered up to {highest}, but "
            f"{pattern.format(number=missing)} is missing; get the folder again"
        )
    return highest


def _numbers_in(names: set[str]) -> set[int]:
    """Every positive number that stands in a file name."""
    return {int(digits) for name in names for digits in re.findall(r"\d+", name)} - {0}


def _image_size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise FrameDecodeError(
            f"{file}: got a frame that does not decode ({error}); get the file again", 0
        ) from error
