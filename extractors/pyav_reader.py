"""Video files through PyAV (FFmpeg): exact on every file, with shortcuts where they are safe.

Where frames carry their packet's time (see `packet_index`) a pass recognises each frame by that
time, so it makes no difference where the decoder started, and it starts only at packets that
need nothing before them. Pictures of H.264 that nobody asked for and no other picture is built on
are not decoded at all. Everywhere else (AVI above all, whose frame times are made up) every pass
decodes from the start and counts.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from extractors import heartbeat
from extractors.file_stamp import check_unchanged
from extractors.packet_index import (
    PacketIndex,
    Run,
    SeekPoint,
    is_disposable,
    nal_length_size,
    plan_runs,
)
from extractors.pyav_container import open_container, video_stream, whole_packets
from extractors.pyav_probe import VideoFacts
from extractors.video_reader import FILE_TIME_TOLERANCE_SECONDS, FrameDecodeError, VideoReader

__all__ = ["PyavReader", "decodes_as_indexed"]


class PyavReader(VideoReader):
    """Frames of a file, decoded by PyAV."""

    reader_name = "pyav"

    def __init__(self, facts: VideoFacts, *, num_threads: int = 0) -> None:
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
        self._index = facts.index
        self._rotation = facts.rotation
        self._num_threads = num_threads
        self._nal_length_size: int | None = None  # of H.264; found out by each pass

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
        check_unchanged(self.path, self._stamp)
        with open_container(self.path) as container:
            stream = self._start_decoder(container)
            if self._index is None:
                yield from self._count(whole_packets(container, stream), wanted)
                return
            self._nal_length_size = _h264_length_size(stream)
            for run in plan_runs(wanted, self._index.seek_points):
                yield from self._decode_run(container, stream, run, self._index)

    def _start_decoder(self, container: InputContainer) -> VideoStream:
        stream = video_stream(self.path, container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._num_threads
        self._hold_back(stream)
        return stream

    def _hold_back(self, stream: VideoStream) -> None:
        """Tell the decoder how far pictures are reordered: guessing too little drops some."""
        if self._index is not None:
            context = stream.codec_context
            context.reorder_depth = max(context.reorder_depth, self._index.reorder_depth)

    def _decode_run(
        self, container: InputContainer, stream: VideoStream, run: Run, index: PacketIndex
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        packets: Iterator[Packet[VideoStream]] | None = whole_packets(container, stream)
        if run.start is not None:
            packets = self._jump(container, stream, run.start, index)
        if packets is not None:
            yield from self._recognise(packets, run.indices, index)
            return
        # The container cannot jump there: decode all the way.
        with open_container(self.path) as fresh:
            packets = whole_packets(fresh, self._start_decoder(fresh))
            yield from self._recognise(packets, run.indices, index)

    def _jump(
        self, container: InputContainer, stream: VideoStream, start: SeekPoint, index: PacketIndex
    ) -> Iterator[Packet[VideoStream]] | None:
        """Packets from a safe start at or before `start`; None if the container misses it.

        Containers count jumps in either of the two times: where one leads past the point, the
        other leads to it or before it.
        """
        safe = {point.pts for point in index.seek_points if point.frame <= start.frame}
        for offset in (start.pts, start.dts):
            try:
                container.seek(offset, stream=stream)
                packets = whole_packets(container, stream)
                first = next(packets, None)
            except av.FFmpegError:
                continue
            if first is not None and first.pts in safe:
                self._hold_back(stream)
                return chain([first], packets)
        return None

    def _recognise(
        self, packets: Iterator[Packet[VideoStream]], indices: list[int], index: PacketIndex
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Frames by their times, which the decoder gives in increasing order."""
        wanted_pts = set(index.pts[indices].tolist())
        waiting = iter(indices)
        wanted = next(waiting)
        is_spoilt = False
        for packet in packets:
            if packet.pts not in wanted_pts and self._is_idle(packet):
                continue
            for frame in self._decoded(packet, wanted):
                is_spoilt = _is_spoilt(frame, is_spoilt)
                if frame.pts is not None and frame.pts < index.pts[wanted]:
                    continue
                if frame.pts != index.pts[wanted]:
                    raise self._failed(wanted, "the decoder passed over it")
                yield wanted, self._pixels(frame, wanted, is_spoilt)
                following = next(waiting, None)
                if following is None:
                    return
                wanted = following

    def _is_idle(self, packet: Packet[VideoStream]) -> bool:
        """Whether leaving a packet out changes no other frame; the one that ends all must stay."""
        size = self._nal_length_size
        return size is not None and packet.size > 0 and is_disposable(memoryview(packet), size)

    def _count(
        self, packets: Iterator[Packet[VideoStream]], indices: list[int]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Frames by their place in the decode from the start."""
        place = 0
        left = len(indices)
        wanted = set(indices)
        is_spoilt = False
        for packet in packets:
            for frame in self._decoded(packet, place):
                is_spoilt = _is_spoilt(frame, is_spoilt)
                if place in wanted:
                    yield place, self._pixels(frame, place, is_spoilt)
                    left -= 1
                    if not left:
                        return
                place += 1

    def _decoded(self, packet: Packet[VideoStream], wanted: int) -> list[VideoFrame]:
        try:
            return packet.decode()
        except av.FFmpegError as error:
            raise self._failed(wanted, str(error.strerror)) from error

    def _pixels(self, frame: VideoFrame, index: int, is_spoilt: bool) -> NDArray[np.uint8]:
        if is_spoilt:
            raise self._failed(index, "the decoder had to invent part of it")
        # One thread: splitting a picture of this size costs more than converting it.
        pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
        upright = np.rot90(pixels, self._rotation // 90)
        return np.ascontiguousarray(upright, dtype=np.uint8)

    def _failed(self, index: int, reason: str) -> FrameDecodeError:
        return FrameDecodeError(
            f"{self.path}: got no frame {index} of {self.num_frames} ({reason}); "
            "the file is damaged, get it again or re-encode it",
            index,
        )


def _h264_length_size(stream: VideoStream) -> int | None:
    context = stream.codec_context
    if context.codec.canonical_name != "h264":
        return None
    return nal_length_size("h264", context.extradata or b"")


def _is_spoilt(frame: VideoFrame, is_spoilt: bool) -> bool:
    """Whether part of a frame is invented: damage lasts until the next sound keyframe."""
    return frame.is_corrupt or (is_spoilt and not frame.key_frame)


def decodes_as_indexed(facts: VideoFacts, *, num_threads: int = 0) -> bool:
    """Whether a plain decode gives each indexed frame once, in order, whole and of one size.

    Decodes the whole file, without turning frames to RGB.
    """
    if facts.index is None:
        return False
    expected = iter(facts.index.pts.tolist())
    with open_container(facts.path) as container:
        stream = video_stream(facts.path, container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        stream.codec_context.options |= {"skip_loop_filter": "all"}  # only prettier pixels
        size = (stream.codec_context.width, stream.codec_context.height)
        try:
            for frame in container.decode(stream):
                heartbeat.beat()
                is_whole = not frame.is_corrupt and (frame.width, frame.height) == size
                if frame.pts != next(expected, None) or not is_whole:
                    return False
        except av.FFmpegError:
            return False
    return next(expected, None) is None
