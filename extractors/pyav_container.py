"""Opening video files through PyAV (FFmpeg), and refusing what no honest video asks for.

FFmpeg would follow playlists to other files and to the network, open pipes and devices, and
decode pictures of any size. Here it gets plain files by their absolute paths, formats that hold
their own data, the file protocol alone, and a limit on pixels, also for pictures that grow later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from extractors import heartbeat
from extractors.limits import MAX_FRAME_PIXELS, MAX_STREAMS
from extractors.regular_file import open_regular
from extractors.video_reader import UnreadableVideo

__all__ = ["FOLDER_HINT", "open_container", "video_stream", "whole_packets"]

FOLDER_HINT = 'open a folder with kind="frames"'

# Containers that hold their own data. Playlists (HLS, DASH, ffconcat) would open other files.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,m4v,h264,hevc,mp3,wav,aac,flac"


def open_container(path: Path) -> InputContainer:
    """Open a file; the caller closes it.

    Raises:
        UnreadableVideo: if it is no plain file, or nothing that opens as a video.
    """
    os.close(open_regular(path, hint=FOLDER_HINT))
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        "max_pixels": str(MAX_FRAME_PIXELS),
    }
    try:
        # An absolute path cannot be taken for a protocol such as "concat:".
        return av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except av.FFmpegError as error:
        raise UnreadableVideo(
            f"{path}: got a file that does not open as a video ({error.strerror}), expected "
            "MP4, MOV, MKV, WebM, AVI or the like; get it again, it may be incomplete"
        ) from error


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The picture stream, whose decoder will refuse pictures over the limit.

    Raises:
        UnreadableVideo: if there is none, or there are too many streams or pixels.
    """
    if len(container.streams) > MAX_STREAMS:
        raise UnreadableVideo(
            f"{path}: got {len(container.streams)} streams, expected at most {MAX_STREAMS}; keep "
            "the picture alone"
        )
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise UnreadableVideo(f"{path}: got {kinds} and no video in it, expected a video")
    context = stream.codec_context
    if context is None:  # whatever PyAV's type hints say
        raise UnreadableVideo(
            f"{path}: got a video in a codec that FFmpeg has no decoder for; re-encode it"
        )
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise UnreadableVideo(
            f"{path}: got frames of {context.width} × {context.height} pixels, expected at most "
            f"{MAX_FRAME_PIXELS:,} pixels; re-encode the video smaller"
        )
    context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def whole_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets to decode, without those cut off: they would spoil the frames still to come."""
    for packet in container.demux(stream):
        heartbeat.beat()
        if not packet.is_corrupt:
            yield packet
