"""Boxes from a file: what a detector, or a person, found before."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extractors.base import GivenBoxes
from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError

__all__ = ["BOX_COLUMNS", "BoxFile"]

BOX_COLUMNS = ("video_id", "time_seconds", "x0", "y0", "x1", "y1", "score", "noun_class")

# The nearest boxed time counts as a frame's own if it is this near: half a frame at 20 fps, so that
# boxes at the frames' own times meet the grid at every usual rate.
TIME_TOLERANCE_US = 25_000

Times = npt.NDArray[np.int64]
NO_BOXES = (np.empty(0, dtype=np.int64), np.empty((0, 7)))


class BoxFile:
    """Boxes by video and time.

    The file is CSV with the columns of `BOX_COLUMNS`: seconds from the first frame, native-frame
    pixels (xyxy), one row per box. A time without rows is a frame without objects.

    Raises:
        AnnotationError: a column is absent, a value is no number, or a time or class is negative.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for line, row in read_rows(path, BOX_COLUMNS):
            where = f"{path}:{line}"
            values = [number(row, column, where) for column in BOX_COLUMNS[1:7]]
            values.append(integer(row, "noun_class", where))
            for column, value in ((BOX_COLUMNS[1], values[0]), (BOX_COLUMNS[7], values[6])):
                if value < 0:
                    raise AnnotationError(f"{where}: got {column} {value}, expected 0 or more")
            rows[required(row, "video_id", where)].append(tuple(values))
        self._boxes = {video: _by_time(np.array(values)) for video, values in rows.items()}

    def video_ids(self) -> list[str]:
        """The videos that have boxes."""
        return list(self._boxes)

    def times_us(self, video_id: str) -> Times:
        """The times of a video that have boxes: (n,) int64 microseconds, increasing."""
        return np.unique(self._boxes.get(video_id, NO_BOXES)[0])

    def at(self, video_id: str, time_us: int) -> GivenBoxes:
        """The boxes of one frame, in file order; none is a frame without objects."""
        times, rows = self._boxes.get(video_id, NO_BOXES)
        low, high = 0, 0
        if len(times):
            after = min(int(np.searchsorted(times, time_us)), len(times) - 1)
            before = max(after - 1, 0)
            near = min((times[before], times[after]), key=lambda t: abs(int(t) - time_us))
            if abs(int(near) - time_us) <= TIME_TOLERANCE_US:
                low, high = np.searchsorted(times, (near, near + 1))
        chosen = rows[low:high]
        return GivenBoxes(
            boxes_xyxy_px=chosen[:, 1:5].astype(np.float32),
            scores=chosen[:, 5].astype(np.float32),
            classes=chosen[:, 6].astype(np.int32),
        )


def _by_time(rows: npt.NDArray[np.float64]) -> tuple[Times, npt.NDArray[np.float64]]:
    ordered = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.rint(ordered[:, 0] * 1e6).astype(np.int64), ordered
