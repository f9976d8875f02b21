"""Boxes from a file: what a detector, or a person, found before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from extractors.base import GivenBoxes
from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError

__all__ = ["BOX_COLUMNS", "BoxFile", "BoxTable", "BoxedVideo"]

BOX_COLUMNS = ("video_id", "time_seconds", "x0", "y0", "x1", "y1", "score", "noun_class")

# The nearest boxed time counts as a frame's own if it is this near: half a frame at 20 fps, so that
# boxes at the frames' own times meet the grid at every usual rate.
TIME_TOLERANCE_US = 25_000

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BoxedVideo:
    """The boxes of one video, frame after frame.

    Attributes:
        times_us: (f,) of the frames that somebody looked at, increasing.
        starts: (f + 1,) boxes of frame i are those from ``starts[i]`` to ``starts[i + 1]``.
        boxes_xyxy_px: (n, 4) float32.
        scores: (n,) float32.
        classes: (n,) int32.
        frame_sizes_px: (f, 2) width and height of the frames the boxes were drawn in, if known.
        lines: (n,) int64, where each box stands in its file, if it has lines.
    """

    times_us: Times
    starts: npt.NDArray[np.int64]
    boxes_xyxy_px: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    frame_sizes_px: npt.NDArray[np.int32] | None = None
    lines: npt.NDArray[np.int64] | None = None

    def frame(self, index: int, source: str) -> GivenBoxes:
        """The boxes of one frame; `source` is for messages."""
        of_frame = slice(int(self.starts[index]), int(self.starts[index + 1]))
        size = None if self.frame_sizes_px is None else self.frame_sizes_px[index]
        return GivenBoxes(
            self.boxes_xyxy_px[of_frame],
            self.scores[of_frame],
            self.classes[of_frame],
            frame_size_px=None if size is None else (int(size[0]), int(size[1])),
            source=source,
            lines=None if self.lines is None else self.lines[of_frame],
        )


NO_BOXES = GivenBoxes(
    np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32)
)


class BoxTable:
    """Boxes by video and time.

    Attributes:
        path: where they come from, for messages.
        entry: what holds a box there.
    """

    entry: ClassVar[str] = "line"

    def __init__(self, path: Path, videos: Mapping[str, BoxedVideo]) -> None:
        self.path = path
        self._videos = videos

    def video_ids(self) -> list[str]:
        """The videos that somebody looked at."""
        return list(self._videos)

    def times_us(self, video_id: str) -> Times:
        """The times of a video that have boxes: (n,) int64 microseconds, increasing."""
        video = self._videos.get(video_id)
        if video is None:
            return np.empty(0, dtype=np.int64)
        return video.times_us[np.diff(video.starts) > 0]

    def at(self, video_id: str, time_us: int) -> GivenBoxes:
        """The boxes of one frame, in their order; none is a frame without objects."""
        video = self._videos.get(video_id)
        if video is None or not len(video.times_us):
            return NO_BOXES
        times = video.times_us
        after = min(int(np.searchsorted(times, time_us)), len(times) - 1)
        before = max(after - 1, 0)
        near = min((before, after), key=lambda index: abs(int(times[index]) - time_us))
        if abs(int(times[near]) - time_us) > TIME_TOLERANCE_US:
            return NO_BOXES
        seconds = int(times[near]) / 1e6
        return video.frame(near, f"video {video_id} at {seconds:.12g} s in {self.path}")

    def count_without(self, video_id: str, times_us: Times) -> int:
        """How many of these (n,) times `at` has no boxes for."""
        video = self._videos.get(video_id)
        if video is None or not len(video.times_us):
            return len(times_us)
        known = video.times_us
        after = np.minimum(np.searchsorted(known, times_us), len(known) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(known[before] - times_us) <= np.abs(known[after] - times_us)
        near = np.where(nearer, before, after)
        found = np.abs(known[near] - times_us) <= TIME_TOLERANCE_US
        return int(np.sum(~found | (np.diff(video.starts)[near] == 0)))


class BoxFile(BoxTable):
    """Boxes from a CSV file with the columns of `BOX_COLUMNS`.

    Seconds from the first frame, native-frame pixels (xyxy), one line per box. A time without lines
    is a frame without objects. Corners and scores may be any number, ``nan`` as well: what no frame
    can have is the failure of that frame.

    Raises:
        AnnotationError: a column is absent, a value is no number, or a time or class is negative.
    """

    def __init__(self, path: Path) -> None:
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for line, row in read_rows(path, BOX_COLUMNS):
            where = f"{path}:{line}"
            time_seconds = number(row, "time_seconds", where)
            noun_class = integer(row, "noun_class", where)
            for column, value in (("time_seconds", time_seconds), ("noun_class", noun_class)):
                if value < 0:
                    raise AnnotationError(f"{where}: got {column} {value}, expected 0 or more")
            measured = (number(row, c, where, finite=False) for c in BOX_COLUMNS[2:7])
            video_id = required(row, "video_id", where)
            rows[video_id].append((time_seconds, *measured, noun_class, line))
        super().__init__(path, {video: _by_time(np.array(rows)) for video, rows in rows.items()})


def _by_time(rows: npt.NDArray[np.float64]) -> BoxedVideo:
    ordered = rows[np.argsort(rows[:, 0], kind="stable")]
    times_us = np.rint(ordered[:, 0] * 1e6).astype(np.int64)
    frames, starts = np.unique(times_us, return_index=True)
    return BoxedVideo(
        times_us=frames,
        starts=np.append(starts, len(ordered)),
        boxes_xyxy_px=ordered[:, 1:5].astype(np.float32),
        scores=ordered[:, 5].astype(np.float32),
        classes=ordered[:, 6].astype(np.int32),
        lines=ordered[:, 7].astype(np.int64),
    )
