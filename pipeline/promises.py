"""What annotations promise of a video, held against what the video holds.

A cut-off video decodes without a word up to the cut; padding it would give features of nothing.
"""

from __future__ import annotations

from extractors.video import TruncatedVideo, VideoReader
from pipeline.videos import CLAMP_ADVICE, Video

__all__ = ["check_length", "check_segment"]

# How far a video may end before its annotations say: a second, or a hundredth of its length.
LENGTH_TOLERANCE_SECONDS = 1.0
LENGTH_TOLERANCE_FRACTION = 0.01
# How far a segment may reach beyond the end: a second, or a quarter of the segment if that is less.
SEGMENT_TOLERANCE_SECONDS = 1.0
SEGMENT_TOLERANCE_FRACTION = 0.25


def check_length(video: Video, opened: VideoReader) -> None:
    """Refuse a video that is shorter than its annotations say, unless it may be.

    Raises:
        TruncatedVideo: names the file, its length and the promised one.
    """
    promised = video.promised_seconds
    if promised is None or video.may_be_short:
        return
    tolerance = max(LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_FRACTION * promised)
    if opened.duration_seconds < promised - tolerance:
        raise TruncatedVideo(
            f"{video.path}: got {opened.duration_seconds:.2f} s of video, expected "
            f"{promised:.2f} s as its annotations say; download it again, or {CLAMP_ADVICE}"
        )


def check_segment(
    video: Video, opened: VideoReader, start_seconds: float, stop_seconds: float
) -> None:
    """Refuse a segment that the video does not hold.

    Where the video may be short, a segment has to begin inside it; elsewhere it has to end inside
    it as well, but for a tolerance.

    Raises:
        TruncatedVideo: names the file, its length and the segment.
    """
    length = opened.duration_seconds
    tolerance = min(
        SEGMENT_TOLERANCE_SECONDS, SEGMENT_TOLERANCE_FRACTION * (stop_seconds - start_seconds)
    )
    too_long = not video.may_be_short and stop_seconds > length + tolerance
    if start_seconds >= length or too_long:
        raise TruncatedVideo(
            f"{opened.path}: got {length:.2f} s of video, expected a segment from "
            f"{start_seconds:.2f} to {stop_seconds:.2f} s inside it; the video is cut off, or the "
            "annotation belongs to another one"
        )
