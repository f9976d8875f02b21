"""A video file that is open for decoding: its packets from the start, or from a safe point on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Self

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from extractors.packet_index import PacketIndex, SeekPoint
from extractors.pyav_container import open_container, video_stream, whole_packets

__all__ = ["PyavSource"]


class PyavSource:
    """Packets of a file and the decoder that they are for.

    Args:
        path: the file.
        index: what its packets promise; None if frames can only be counted.
        num_threads: of the decoder; 0 leaves the number to it.
    """

    def __init__(self, path: Path, index: PacketIndex | None, num_threads: int) -> None:
        self._path = path
        self._index = index
        self._num_threads = num_threads
        self._open()

    def _open(self) -> None:
        self._container: InputContainer = open_container(self._path)
        self.stream: VideoStream = video_stream(self._path, self._container)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._num_threads
        if self.stream.codec_context.codec.canonical_name == "mjpeg":
            # Else a picture that ends early is filled up with what lay in memory.
            self.stream.codec_context.options |= {"err_detect": "explode"}
        self._hold_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from where the file stands."""
        return whole_packets(self._container, self.stream)

    def packets_from(
        self, start: SeekPoint | None, index: PacketIndex
    ) -> tuple[int, Iterator[Packet[VideoStream]]]:
        """The time of the first picture, and packets from a point on, or from one before it.

        Args:
            start: None is the start of a file that has just been opened.
            index: of the file.
        """
        if start is not None:
            found = self._jump(start, index)
            if found is not None:
                return found
            # The container cannot jump there: decode all the way.
            self._container.close()
            self._open()
        return int(index.pts[0]), self.packets()

    def _jump(
        self, start: SeekPoint, index: PacketIndex
    ) -> tuple[int, Iterator[Packet[VideoStream]]] | None:
        """From a safe start at or before `start`; None if the container misses it.

        Containers count jumps in either of the two times: where one leads past the point, the
        other leads to it or before it.
        """
        safe = {point.pts for point in index.seek_points if point.frame <= start.frame}
        for offset in (start.pts, start.dts):
            try:
                self._container.seek(offset, stream=self.stream)
                packets = self.packets()
                first = next(packets, None)
            except av.FFmpegError:
                continue
            if first is not None and first.pts in safe:
                self._hold_back()
                return first.pts, chain([first], packets)
        return None

    def _hold_back(self) -> None:
        """Tell the decoder how far pictures are reordered: guessing too little drops some."""
        if self._index is not None:
            context = self.stream.codec_context
            context.reorder_depth = max(context.reorder_depth, self._index.reorder_depth)
