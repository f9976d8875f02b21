"""The interface of a video: numbered frames with exact times, and what can go wrong.

A reader promises that frame `i` is the `i`-th frame of a decode from the start to the end of
the same file, whatever was read before it. How each adapter keeps that promise is told in
`pyav_reader`, `decord_reader` and `frames_reader`.

    VideoError (ValueError)
    ├── UnreadableVideo     nothing can be decoded: missing, not a video, no picture in it
    │   └── VideoVanished   there when its rows were planned, and not now
    ├── TruncatedVideo      the container promises more than the file holds
    ├── VideoChanged        not the file that it was when its rows were planned
    └── FrameDecodeError    a promised frame could not be decoded; `frame` names it
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from extractors import heartbeat

__all__ = [
    "FILE_TIME_TOLERANCE_SECONDS",
    "FrameDecodeError",
    "Outcome",
    "TruncatedVideo",
    "UnreadableVideo",
    "VideoChanged",
    "VideoError",
    "VideoReader",
    "VideoVanished",
]

FILE_TIME_TOLERANCE_SECONDS = 1e-3  # Matroska rounds frame times to milliseconds


class VideoError(ValueError):
    """A video that cannot be read as asked; the message names the file and what to do."""


class UnreadableVideo(VideoError):
    """The path holds nothing that decodes to frames."""


class VideoVanished(UnreadableVideo):
    """The path holds nothing any more."""


class TruncatedVideo(VideoError):
    """The file ends before what its container promises."""


class VideoChanged(VideoError):
    """The path holds another file, or other content, than it did before."""


class FrameDecodeError(VideoError):
    """A promised frame could not be decoded.

    Attributes:
        frame: index of that frame, counted from 0; None if it is not known.
    """

    def __init__(self, message: str, frame: int | None = None) -> None:
        super().__init__(message)
        self.frame = frame


# A frame, (height_px, width_px, channels), or why there is none.
Outcome = NDArray[np.uint8] | FrameDecodeError


class VideoReader(ABC):
    """Frames of one video by index, with the time at which each comes on screen.

    A reader holds no decoder between passes, so any number of passes may run one after the
    other; every pass returns the same pixels for the same index.

    Attributes:
        path: the file or folder.
        reader_name: which adapter decodes: "pyav", "decord", "frames" or "flow".
        width_px, height_px: size of the frames as displayed, after rotation.
        timestamps_seconds: (N,) float64, read-only; the first is 0, strictly increasing.
        duration_seconds: end of the last frame.
        declared_duration_seconds: what the container promises; None if it says nothing.
        declared_margin_seconds: by how much that promise may honestly exceed the frames.
        time_tolerance_seconds: how early a frame may be asked for and still be found.
        channels: of a frame: 3 for RGB, 2 for flow.
    """

    path: Path
    reader_name: str
    channels: int = 3

    def __init__(
        self,
        *,
        path: Path,
        width_px: int,
        height_px: int,
        timestamps_seconds: NDArray[np.float64],
        duration_seconds: float,
        time_tolerance_seconds: float,
        declared_duration_seconds: float | None = None,
        declared_margin_seconds: float = 0.0,
    ) -> None:
        self.path = path
        self.width_px = width_px
        self.height_px = height_px
        self.timestamps_seconds = timestamps_seconds.astype(np.float64)
        self.timestamps_seconds.setflags(write=False)
        self.duration_seconds = duration_seconds
        self.time_tolerance_seconds = time_tolerance_seconds
        self.declared_duration_seconds = declared_duration_seconds
        self.declared_margin_seconds = declared_margin_seconds
        self._is_closed = False

    @property
    def num_frames(self) -> int:
        """How many frames the video has."""
        return len(self.timestamps_seconds)

    @property
    def rate_fps(self) -> float:
        """Average number of frames a second."""
        return self.num_frames / self.duration_seconds

    def index_at(self, times_seconds: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Which frame is on screen at each time.

        Args:
            times_seconds: any shape; time 0 is the first frame.

        Returns:
            Indices, int64, of the last frame that starts no later than the time plus the
            tolerance, and a mask of the times that lie before the first frame or after the
            end of the last; those get the first or the last frame. Both of the input's shape.

        Raises:
            ValueError: if a time is not finite.
        """
        times = np.asarray(times_seconds, dtype=np.float64)
        if not np.isfinite(times).all():
            raise ValueError(f"{self.path}: got a time that is not finite, expected seconds")
        reached = times + self.time_tolerance_seconds
        indices = np.searchsorted(self.timestamps_seconds, reached, side="right") - 1
        outside = (reached < 0) | (reached >= self.duration_seconds)
        return np.clip(indices, 0, self.num_frames - 1).astype(np.int64), np.asarray(outside)

    def check_present(self, indices: Iterable[int]) -> None:
        """Refuse frames that are known to be missing, before anything is decoded.

        Raises:
            FrameDecodeError: names the first of them.
        """
        del indices  # only frames that are files of their own can be known to be missing

    def frames(self, indices: ArrayLike) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode frames in one forward pass.

        The decoder is released when the iterator is exhausted, closed or dropped.

        Args:
            indices: frame indices, sorted, without repeats.

        Returns:
            Iterator over (index, frame); frame is uint8 (height_px, width_px, channels), RGB
            (or horizontal and vertical flow).

        Raises:
            ValueError: for indices that are unsorted, repeated or outside the video, and for
                a closed reader; at once, not at the first frame.
            FrameDecodeError: (while iterating) if a frame cannot be decoded.
        """
        return _or_raise(self.outcomes(indices))

    def outcomes(self, indices: ArrayLike) -> Generator[tuple[int, Outcome], None, None]:
        """As `frames`, but an error in place of each frame that cannot be decoded.

        What comes for an index depends on the video alone, and not on what else is asked for.

        Raises:
            ValueError: as `frames`.
        """
        if self._is_closed:
            raise ValueError(f"{self.path}: got a closed reader; open the video again")
        return self._verified(self._checked_indices(indices))

    def close(self) -> None:
        """Release what the reader holds; later passes are refused."""
        self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        """Generate what comes of each of `wanted`, which is sorted and not empty, in order."""

    def _verified(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        """Pass on what `_decode` gives, refusing frames of another shape."""
        if not wanted:
            return
        shape = (self.height_px, self.width_px, self.channels)
        num_given = 0
        with closing(self._decode(wanted)) as decoded:
            for index, outcome in decoded:
                heartbeat.beat()
                if not isinstance(outcome, FrameDecodeError) and outcome.shape != shape:
                    outcome = FrameDecodeError(
                        f"{self.path}: got frame {index} of shape {outcome.shape}, expected "
                        f"{shape} as the first frame; re-encode the video to one size",
                        index,
                    )
                yield index, outcome
                num_given += 1
        for index in wanted[num_given:]:
            yield index, self._ended_before(index)

    def _ended_before(self, index: int) -> FrameDecodeError:
        return FrameDecodeError(
            f"{self.path}: decoding ended before frame {index} of {self.num_frames}; "
            "the file is damaged, get it again or re-encode it",
            index,
        )

    def _checked_indices(self, indices: ArrayLike) -> list[int]:
        wanted = np.asarray(indices)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise ValueError(
                f"got indices of shape {wanted.shape} and type {wanted.dtype}, "
                "expected a list of whole numbers"
            )
        if (np.diff(wanted) <= 0).any():
            raise ValueError("got indices that are unsorted or repeat; pass np.unique of them")
        if wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(
                f"{self.path}: got indices {wanted[0]} to {wanted[-1]}, "
                f"expected 0 to {self.num_frames - 1}"
            )
        return [int(index) for index in wanted]


def _or_raise(
    outcomes: Generator[tuple[int, Outcome], None, None],
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with closing(outcomes):
        for index, outcome in outcomes:
            if isinstance(outcome, FrameDecodeError):
                raise outcome
            yield index, outcome
