"""Video files through decord, only where its frames are provably those of a plain decode.

decord numbers frames by the packets it finds and cannot tell which picture it hands out, so
three habits of it would give wrong frames without any error: it jumps to keyframes it did not
check and takes their places in decoding order for places on screen (wrong on HEVC and on
open-GOP H.264, in `skip_frames`, `get_batch` and `[]` alike); it counts a packet that gives no
picture; and it repeats the last picture for one that fails. Hence this reader

- only ever calls `next()`, from the start, so decord never jumps;
- takes only files of which a trial decode proved that each packet gives exactly one sound
  picture, in the order of the packets' times, and on which decord found as many frames at the
  same times;
- sets decord's tolerance so low that the first repeated picture raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np

from extractors import heartbeat
from extractors.file_stamp import check_unchanged
from extractors.pyav_probe import VideoFacts
from extractors.pyav_reader import decodes_as_indexed
from extractors.video_reader import (
    FILE_TIME_TOLERANCE_SECONDS,
    FrameDecodeError,
    Outcome,
    VideoError,
    VideoReader,
)

__all__ = ["DecordReader", "NotExact", "objection"]

_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_NO_REPEATED_FRAMES = 1e-6  # share of frames that decord may replace; 0 would mean "any"


class NotExact(VideoError):
    """decord is not sure to give this file's frames; PyAV is."""


class DecordReader(VideoReader):
    """Frames of a file, decoded by decord from the start on every pass.

    Raises:
        NotExact: if the file does not meet the conditions.
        ImportError: if decord is not installed.
    """

    reader_name = "decord"

    def __init__(self, facts: VideoFacts, *, num_threads: int = 0) -> None:
        reason = objection(facts, num_threads=num_threads)
        if reason is not None:
            raise NotExact(f"{facts.path}: decord is not sure to be exact on {reason}; use PyAV")
        super().__init__(
            path=facts.path,
            width_px=facts.width_px,
            height_px=facts.height_px,
            timestamps_seconds=facts.timestamps_seconds,
            duration_seconds=facts.duration_seconds,
            time_tolerance_seconds=FILE_TIME_TOLERANCE_SECONDS,
            declared_duration_seconds=facts.declared_duration_seconds,
            declared_margin_seconds=facts.declared_margin_seconds,
        )
        self._stamp = facts.stamp
        self._num_threads = num_threads
        self._unused: Any = self._open()  # opening reads the whole file: keep it for the first pass

    def close(self) -> None:
        """Release the decoder; later passes are refused."""
        self._unused = None
        super().close()

    def _open(self) -> Any:
        decord = _import_decord()
        try:
            video = decord.VideoReader(
                str(self.path.absolute()),
                num_threads=self._num_threads,
                fault_tol=_NO_REPEATED_FRAMES,
            )
            # decord keeps times as 32-bit floats, so they agree to seven digits only
            times = video.get_frame_timestamp(range(len(video)))[:, 0]
        except _decord_errors() as error:
            raise NotExact(f"{self.path}: decord does not open it; use PyAV") from error
        expected = self.timestamps_seconds
        if len(times) != self.num_frames or not np.allclose(times, expected, 1e-6, 1e-4):
            raise NotExact(
                f"{self.path}: decord found {len(times)} frames or other times than the "
                f"{self.num_frames} frames that PyAV found; use PyAV"
            )
        return video

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        check_unchanged(self.path, self._stamp)
        video = self._open() if self._unused is None else self._unused
        self._unused = None
        left = deque(wanted)
        try:
            for position in range(wanted[-1] + 1):
                heartbeat.beat()
                picture = video.next()
                if position == left[0]:
                    frame = picture.asnumpy()
                    yield left.popleft(), frame
        except _decord_errors():  # it counts on, whatever comes behind this frame
            for index in left:
                yield index, self._failed(index)

    def _failed(self, index: int) -> FrameDecodeError:
        return FrameDecodeError(
            f"{self.path}: got no frame {index} of {self.num_frames}; "
            "the file is damaged, get it again or re-encode it",
            index,
        )


def objection(facts: VideoFacts, *, num_threads: int = 0) -> str | None:
    """Why decord is not sure to be exact on a file; None if it is.

    The last condition is found out by decoding the whole file with PyAV: a picture that is
    missing or damaged does not show in the packets, and decord would not tell.
    """
    if facts.index is None:
        return f"{facts.codec} in {facts.container}, whose frames can only be counted"
    if facts.codec != "h264":
        return f"the codec {facts.codec}"
    if facts.pixel_format not in _PIXEL_FORMATS:
        return f"the pixel format {facts.pixel_format}"
    if not decodes_as_indexed(facts, num_threads=num_threads):
        return "a video in which pictures are missing, damaged or of another size"
    return None


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise ImportError("decord is not installed; pip install decord2") from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_errors() -> tuple[type[Exception], ...]:
    """What decord raises when it cannot open a file or give a frame."""
    from decord._ffi.base import DECORDError, DECORDLimitReachedError

    return DECORDError, DECORDLimitReachedError, RuntimeError, StopIteration
