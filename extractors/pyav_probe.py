"""What a video file holds, found out through PyAV (FFmpeg) when it is opened.

All packets are read once without decoding them, and one frame is decoded for its size and
rotation. A file whose packets do not number its frames (see `packet_index`) is decoded once
from start to end to count them.

Guesses: a counted frame's time is `i / average rate` where the decoder's own times do not
increase; the last frame lasts as long as its packet says, or one usual step, or one step of the
average rate; a container's keyframe, duration and rotation fields are taken at their word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from extractors import heartbeat
from extractors.file_stamp import FileStamp, file_stamp
from extractors.limits import MAX_DURATION_SECONDS, MAX_FRAMES
from extractors.packet_index import (
    TIMED_CODECS,
    TIMED_CONTAINERS,
    PacketFacts,
    PacketIndex,
    first_picture_type,
    index_packets,
    nal_length_size,
)
from extractors.pyav_container import FOLDER_HINT, open_container, video_stream, whole_packets
from extractors.regular_file import check_regular
from extractors.video_reader import UnreadableVideo

__all__ = ["VideoFacts", "probe_video"]

# How far the frames may fall short of a declared duration before the file counts as cut off.
_STREAM_MARGIN_FRAMES = 2.5
_FILE_MARGIN_SECONDS = 1.0  # a soundtrack often runs a little longer than the picture
_FILE_MARGIN_SHARE = 0.1

_FALLBACK_RATE_FPS = Fraction(25)  # for a single frame of unknown length


@dataclass(frozen=True)
class VideoFacts:
    """What opening a file found out.

    Attributes:
        stamp: of the file as it was read.
        index: frames by their packets' times; None if they can only be counted.
        rotation: degrees, anticlockwise, that turn a decoded frame into the displayed one.
        other fields: as in `VideoReader`.
    """

    path: Path
    stamp: FileStamp
    container: str
    codec: str
    pixel_format: str
    index: PacketIndex | None
    width_px: int
    height_px: int
    rotation: int
    timestamps_seconds: NDArray[np.float64]
    duration_seconds: float
    declared_duration_seconds: float | None
    declared_margin_seconds: float

    @property
    def num_frames(self) -> int:
        """How many frames a decode from start to end gives."""
        return len(self.timestamps_seconds)


@dataclass(frozen=True)
class _Header:
    """A video stream's header."""

    container: str
    codec: str
    pixel_format: str
    time_base: Fraction
    average_rate_fps: Fraction
    declared_seconds: float | None
    is_declared_for_file: bool


def probe_video(path: Path) -> VideoFacts:
    """Open a file, number its frames and close it.

    Raises:
        UnreadableVideo: if the file is missing, no frame of it can be decoded, or it has more
            frames, pixels, streams or hours than any video should.
    """
    check_regular(path, hint=FOLDER_HINT)
    stamp = file_stamp(path)
    header, index = _read_packets(path)
    first, counted = _decode_ahead(path, index)
    if index is not None and first.pts != index.pts[0]:
        # The decoder passes over the first packets, as after a cut between keyframes.
        index = None
        first, counted = _decode_ahead(path, index)
    width_px, height_px = first.width, first.height
    rotation = _quarter_turns(path, first.rotation)
    if rotation % 180:
        width_px, height_px = height_px, width_px
    times, duration = _frame_times(header, index, counted)
    if duration > MAX_DURATION_SECONDS:
        raise UnreadableVideo(
            f"{path}: got {duration / 3600:,.1f} hours of video, expected at most "
            f"{MAX_DURATION_SECONDS / 3600:g}; split it, or mend its frame times"
        )
    declared, margin = _declared(header, duration / len(times))
    return VideoFacts(
        path=path,
        stamp=stamp,
        container=header.container,
        codec=header.codec,
        pixel_format=header.pixel_format,
        index=index,
        width_px=width_px,
        height_px=height_px,
        rotation=rotation,
        timestamps_seconds=times,
        duration_seconds=duration,
        declared_duration_seconds=declared,
        declared_margin_seconds=margin,
    )


def _read_packets(path: Path) -> tuple[_Header, PacketIndex | None]:
    with open_container(path) as container:
        stream = video_stream(path, container)
        header = _read_header(container, stream)
        if header.container not in TIMED_CONTAINERS or header.codec not in TIMED_CODECS:
            return header, None
        return header, index_packets(_all_packets(path, container, stream), header.codec)


def _all_packets(
    path: Path, container: InputContainer, stream: VideoStream
) -> Iterator[PacketFacts]:
    codec = stream.codec_context.codec.canonical_name
    length_size = nal_length_size(codec, stream.codec_context.extradata or b"")
    count = 0
    try:
        for packet in container.demux(stream):
            heartbeat.beat()
            if packet.size:  # the last one is empty and only ends the stream
                count += 1
                _check_count(path, count)
                yield _packet_facts(packet, codec, length_size)
    except av.FFmpegError as error:
        raise UnreadableVideo(
            f"{path}: reading stopped after {count} packets ({error.strerror}); "
            "the file is damaged, get it again"
        ) from error


def _check_count(path: Path, count: int) -> None:
    if count > MAX_FRAMES:
        raise UnreadableVideo(
            f"{path}: got more than {MAX_FRAMES:,} frames, expected fewer; split the video"
        )


def _packet_facts(packet: Packet[VideoStream], codec: str, length_size: int | None) -> PacketFacts:
    picture_type = None
    if length_size is not None:
        picture_type = first_picture_type(memoryview(packet), codec, length_size)
    return PacketFacts(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        is_key=packet.is_keyframe,
        is_discard=packet.is_discard,
        is_corrupt=packet.is_corrupt,
        picture_type=picture_type,
    )


def _read_header(container: InputContainer, stream: VideoStream) -> _Header:
    context = stream.codec_context
    time_base = stream.time_base or Fraction(1, av.time_base)
    start_seconds = float((stream.start_time or 0) * time_base)
    declared, is_for_file = None, False
    if stream.duration:
        declared = float(stream.duration * time_base)
    elif end := _seconds_of_tag(stream.metadata.get("DURATION", "")):
        declared = end - start_seconds
    elif container.duration:
        end_seconds = (container.duration + (container.start_time or 0)) / av.time_base
        declared, is_for_file = end_seconds - start_seconds, True
    return _Header(
        container=container.format.name.split(",")[0],
        codec=context.codec.canonical_name,
        pixel_format=context.pix_fmt or "",
        time_base=time_base,
        average_rate_fps=stream.average_rate or _FALLBACK_RATE_FPS,
        declared_seconds=declared,
        is_declared_for_file=is_for_file,
    )


def _seconds_of_tag(text: str) -> float:
    """Seconds of a Matroska tag such as "00:00:10.333000000"; 0 if it is none."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _decode_ahead(path: Path, index: PacketIndex | None) -> tuple[VideoFrame, list[int | None]]:
    """The first frame, and the times of all frames if there is no index to number them."""
    with open_container(path) as container:
        stream = video_stream(path, container)
        stream.thread_type = "AUTO"
        first: VideoFrame | None = None
        times: list[int | None] = []
        try:
            for packet in whole_packets(container, stream):
                for frame in packet.decode():
                    first = first or frame
                    times.append(frame.pts)
                    _check_count(path, len(times))
                if index is not None and times:
                    break
        except av.FFmpegError as error:
            raise UnreadableVideo(
                f"{path}: decoding stopped at frame {len(times)} ({error.strerror}); "
                "the file is damaged, get it again or re-encode it"
            ) from error
    if first is None:
        raise UnreadableVideo(f"{path}: got a video stream without a single frame; get it again")
    return first, times


def _quarter_turns(path: Path, rotation: int) -> int:
    if rotation % 90:
        raise UnreadableVideo(
            f"{path}: got a rotation of {rotation} degrees, expected a multiple of 90; "
            "re-encode the video upright"
        )
    return rotation % 360


def _frame_times(
    header: _Header, index: PacketIndex | None, counted: list[int | None]
) -> tuple[NDArray[np.float64], float]:
    """Seconds at which each frame comes on screen, and the end of the last."""
    step_seconds = float(1 / header.average_rate_fps)
    time_base = float(header.time_base)
    if index is not None:
        times = _seconds(index.pts, time_base)
        last_seconds = float(index.end_pts - index.pts[-1]) * time_base
        return times, float(times[-1]) + (last_seconds or step_seconds)
    known = [pts for pts in counted if pts is not None]
    if len(known) == len(counted) and all(np.diff(known) > 0):
        times = _seconds(np.array(known, dtype=np.int64), time_base)
    else:
        times = _seconds(np.arange(len(counted), dtype=np.int64), step_seconds)
    return times, float(times[-1]) + step_seconds


def _seconds(pts: NDArray[np.int64], time_base: float) -> NDArray[np.float64]:
    return (pts - pts[0]).astype(np.float64) * np.float64(time_base)


def _declared(header: _Header, frame_seconds: float) -> tuple[float | None, float]:
    """The duration that is promised, and by how much it may be missed."""
    if header.declared_seconds is None:
        return None, 0.0
    declared = header.declared_seconds
    margin = _STREAM_MARGIN_FRAMES * frame_seconds
    if header.is_declared_for_file:
        margin = max(margin, min(_FILE_MARGIN_SECONDS, _FILE_MARGIN_SHARE * declared))
    return declared, margin
