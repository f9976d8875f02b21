"""Where a segment's video lies and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extractors.video import FileStamp, TruncatedVideo, VideoReader, open_video
from pipeline.config_data import PATTERN_FIELDS, FlowVideosConfig, PlaceConfig, VideosConfig
from pipeline.errors import AnnotationError
from pipeline.segments import Segment

__all__ = ["CLAMP_ADVICE", "Video", "absent", "epic_rate_fps", "locate_flow", "locate_video"]

CLAMP_ADVICE = "set data.videos.truncated: clamp to use what is there"

EPIC_RATE_FPS = 60.0
EPIC_RATE_FPS_THREE_DIGITS = 50.0
EPIC_STRIDES = {EPIC_RATE_FPS: 2, EPIC_RATE_FPS_THREE_DIGITS: 1}  # of official flow
EPIC_VIDEO_ID = re.compile(r"P\d{2}_(?P<number>\d{2,3})", re.ASCII)


@dataclass(frozen=True)
class Video:
    """A video to read.

    Attributes:
        frame_rate_fps: rate of the frames of a folder or tar; None for video files.
        promised_seconds: the length its annotations give it, or None.
        reader: what decodes a file.
        may_be_short: whether it may hold less than container and annotations promise.
        stride: how many RGB frames there are to one of flow.
        stamp: of the file when its content was identified; None if nobody has looked.
    """

    video_id: str
    path: Path
    kind: Literal["file", "frames", "tar", "flow"]
    frame_rate_fps: float | None
    promised_seconds: float | None
    reader: Literal["pyav", "decord"] = "pyav"
    may_be_short: bool = False
    stride: int = 1
    stamp: FileStamp | None = None

    def open(self, *, num_threads: int = 0) -> VideoReader:
        """Open it for reading; ``num_threads`` of the decoder, 0 leaves the number to it.

        Raises:
            VideoError: it is no video, ends before its container says, or has changed since it
                was identified.
        """
        try:
            return open_video(
                self.path,
                kind=self.kind,
                reader=self.reader,
                frame_rate_fps=self.frame_rate_fps,
                stride=self.stride,
                check_complete=not self.may_be_short,
                expected_stamp=self.stamp,
                num_threads=num_threads,
            )
        except TruncatedVideo as error:
            raise TruncatedVideo(f"{error}, or {CLAMP_ADVICE}") from error


def absent(video: Video) -> str:
    """Why a video that is not there is missing."""
    kinds = {"frames": "folder of frames", "flow": "folder or tar of flow"}
    return f"{video.path}: no such {kinds.get(video.kind, 'file')}"


def locate_video(
    segment: Segment, config: VideosConfig, promised_seconds: Mapping[str, float]
) -> Video:
    """The video of a segment; whether it is there is not looked at.

    Raises:
        AnnotationError: an id that would lead out of the folder, an empty id that the pattern
            asks for, or one that EPIC's rule for rates does not know.
    """
    rate = config.frame_rate_fps
    return Video(
        video_id=segment.video_id,
        path=_path(segment, config, "data.videos"),
        kind=config.kind,
        frame_rate_fps=epic_rate_fps(segment.video_id) if rate == "epic" else rate,
        promised_seconds=promised_seconds.get(segment.video_id),
        reader=config.reader,
        may_be_short=config.truncated == "clamp",
    )


def locate_flow(segment: Segment, config: FlowVideosConfig, video: Video) -> Video:
    """The official flow of a segment's video; whether it is there is not looked at.

    Raises:
        AnnotationError: as `locate_video`.
    """
    rate, stride = config.frame_rate_fps, config.stride
    return Video(
        video_id=segment.video_id,
        path=_path(segment, config, "data.flow"),
        kind="flow",
        frame_rate_fps=epic_rate_fps(segment.video_id) if rate == "epic" else rate,
        promised_seconds=video.promised_seconds,
        may_be_short=video.may_be_short,
        stride=EPIC_STRIDES[epic_rate_fps(segment.video_id)] if stride == "epic" else stride,
    )


def _path(segment: Segment, config: PlaceConfig, where: str) -> Path:
    ids = {name: getattr(segment, name) for name in PATTERN_FIELDS}
    for name, value in ids.items():
        if "/" in value or "\\" in value or "\0" in value or value in (".", ".."):
            raise AnnotationError(
                f"segment {segment.segment_id!r}: got {name} {value!r}, expected a plain name "
                "without path separators"
            )
        if not value and f"{{{name}}}" in config.pattern:
            raise AnnotationError(
                f"segment {segment.segment_id!r}: has no {name}, which {where}.pattern "
                f"{config.pattern!r} asks for"
            )
    return config.root / config.pattern.format(**ids)


def epic_rate_fps(video_id: str) -> float:
    """Rate of EPIC's official frame numbers: 60, or 50 for three-digit videos (P01_101).

    Raises:
        AnnotationError: not the id of an EPIC video.
    """
    match = EPIC_VIDEO_ID.fullmatch(video_id)
    if match is None:
        raise AnnotationError(
            f"got video_id {video_id!r}, expected one such as P01_01 or P01_101 for "
            "data.videos.frame_rate_fps: epic; give the rate as a number"
        )
    return EPIC_RATE_FPS_THREE_DIGITS if len(match["number"]) == 3 else EPIC_RATE_FPS
