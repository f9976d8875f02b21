"""What comes out of a decoder that was started once: which pictures are sound, which are damaged.

A damaged picture spoils what is decoded after it and may be built on it, and that is often shown
before it. So a picture is handed on when all that was decoded before it has come out, whole. Damage
lasts until the next point at which a decoder may start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.packet_index import PacketIndex, SeekPoint, is_disposable, nal_length_size
from extractors.pyav_source import PyavSource

__all__ = ["INVENTED", "Damage", "DecoderPass"]

INVENTED = "the decoder had to invent part of it"


@dataclass(frozen=True)
class Damage:
    """A picture that cannot be had.

    Attributes:
        place: in decoding order; what is decoded before it does not know of it.
        frame: its index; None if it is none that is shown.
        is_disposable: nothing is built on it.
        reason: in words.
    """

    place: int
    frame: int | None
    is_disposable: bool
    reason: str


@dataclass(frozen=True)
class _Picture:
    """A packet that was decoded. ``latest_pts``: of all up to this one."""

    place: int
    pts: int | None
    latest_pts: int
    is_disposable: bool


class DecoderPass:
    """Wanted frames from one start on, up to the first damage that is met.

    Args:
        source: of packets, and the decoder.
        start: where to start; None is the start of a file that has just been opened.
        wanted: frame indices, sorted, behind the start.
        index: what the packets promise.
        leaves_out: do not decode pictures that nobody wants and nothing is built on.

    Attributes:
        damage: the first in decoding order; None as long as none was met.
        waiting: frames that were not handed on.
    """

    def __init__(
        self,
        source: PyavSource,
        start: SeekPoint | None,
        wanted: Sequence[int],
        index: PacketIndex,
        *,
        leaves_out: bool,
    ) -> None:
        self.damage: Damage | None = None
        self.waiting = deque(wanted)
        self._stream = source.stream
        self._first_pts, self._packets = source.packets_from(start, index)
        self._index = index
        self._wanted_pts = set(index.pts[wanted].tolist())
        self._length_size = _h264_length_size(source.stream) if leaves_out else None
        self._fed = _Picture(0, None, self._first_pts, is_disposable=False)
        self._shown_pts = self._first_pts - 1
        self._inside: dict[int, _Picture] = {}  # decoded, and not out yet
        self._held: dict[int, tuple[_Picture, VideoFrame]] = {}  # wanted, and not handed on yet

    def frames(self, *, to_the_end: bool) -> Iterator[tuple[int, VideoFrame]]:
        """Sound frames in order; ends early, with `damage` set, where one cannot be given.

        Args:
            to_the_end: have the decoder give all that it holds when it meets damage, so that
                `damage` is the first there is and `take` gives what was decoded before it. Needs a
                decoder of one thread: others do not tell which packet an error belongs to.
        """
        try:
            for packet in self._packets:
                if self._feed(packet):
                    self._show(packet.decode)
                    yield from self._sound()
                    if self.damage is not None or not self.waiting:
                        break
            else:
                self._end()
        except av.FFmpegError as error:  # of the container; whatever is still to come is lost
            lost = _Picture(self._fed.place + 1, None, self._fed.latest_pts, is_disposable=False)
            self._note(lost, str(error.strerror))
        if self.damage is not None and to_the_end:
            self._show(lambda: self._stream.codec_context.decode(None))
            self._end()
        yield from self._sound()

    def take(self, index: int) -> VideoFrame | None:
        """A sound frame that a damaged one holds up; None if it is not here, or not sound."""
        picture, frame = self._held.get(int(self._index.pts[index]), (None, None))
        return frame if picture is not None and self._is_sound(picture) else None

    def _feed(self, packet: Packet[VideoStream]) -> bool:
        """Whether to decode a packet; the one that ends all is none of the pictures."""
        if not packet.size:
            return True
        size, pts = self._length_size, packet.pts
        disposable = size is not None and is_disposable(memoryview(packet), size)
        if disposable and pts not in self._wanted_pts:
            return False
        latest_pts = max(self._fed.latest_pts, self._first_pts if pts is None else pts)
        if packet.is_discard:  # decoded and never shown
            latest_pts = self._fed.latest_pts
        self._fed = _Picture(self._fed.place + 1, pts, latest_pts, disposable)
        if pts is not None and pts >= self._first_pts and not packet.is_discard:
            self._inside[pts] = self._fed
        return True

    def _show(self, decode: Callable[[], list[VideoFrame]]) -> None:
        try:
            frames = decode()
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._note(self._fed, str(error.strerror))
            return
        for frame in frames:
            self._show_frame(frame)

    def _show_frame(self, frame: VideoFrame) -> None:
        """Take a frame from the decoder, which gives them in the order of their times."""
        pts = frame.pts
        if pts is not None and pts < self._first_pts:
            return
        picture = None if pts is None else self._inside.pop(pts, None)
        if frame.is_corrupt:
            unknown = _Picture(0, pts, self._first_pts, is_disposable=False)
            self._note(picture or unknown, INVENTED)
        if pts is None:
            return
        for passed in [time for time in self._inside if time < pts]:
            self._pass_over(passed)
        self._shown_pts = max(self._shown_pts, pts)
        if picture is not None and pts in self._wanted_pts:
            self._held[pts] = picture, frame

    def _end(self) -> None:
        """Nothing more comes out."""
        for passed in list(self._inside):
            self._pass_over(passed)
        self._shown_pts = self._fed.latest_pts

    def _pass_over(self, pts: int) -> None:
        self._note(self._inside.pop(pts), "the decoder passed over it")

    def _note(self, picture: _Picture, reason: str) -> None:
        if self.damage is None or picture.place < self.damage.place:
            frame = None if picture.pts is None else self._frame_at(picture.pts)
            self.damage = Damage(picture.place, frame, picture.is_disposable, reason)

    def _frame_at(self, pts: int) -> int | None:
        at = int(np.searchsorted(self._index.pts, pts))
        return at if at < len(self._index.pts) and self._index.pts[at] == pts else None

    def _is_sound(self, picture: _Picture) -> bool:
        is_before_damage = self.damage is None or picture.place < self.damage.place
        return is_before_damage and picture.latest_pts <= self._shown_pts

    def _sound(self) -> Iterator[tuple[int, VideoFrame]]:
        """Hand on what nothing that is still to come can spoil."""
        while self.waiting:
            index = self.waiting[0]
            frame = self.take(index)
            if frame is None:
                return
            del self._held[int(self._index.pts[index])]
            yield self.waiting.popleft(), frame


def _h264_length_size(stream: VideoStream) -> int | None:
    context = stream.codec_context
    if context.codec.canonical_name != "h264":
        return None
    return nal_length_size("h264", context.extradata or b"")
