"""What a file's packets say about its frames, worked out without decoding and without PyAV.

A packet is one coded picture, in decoding order, with the time at which it is shown (pts). For
the codecs and containers in `TIMED_CODECS` and `TIMED_CONTAINERS` each packet that is shown
becomes exactly one frame that carries the packet's pts. There, frame `i` is the frame with the
`i`-th smallest pts and can be recognised however the decoder got to it. Everywhere else frames
can only be counted from the start.

A decoder may start at a packet only if nothing from there on needs earlier pictures. A
container's keyframe flag does not promise that (H.264 recovery points are flagged too), so the
coded picture type is looked up:

- H.264 (ITU-T H.264, 7.4.1.2.4): IDR pictures, NAL unit type 5.
- HEVC (ITU-T H.265, 7.4.2.2): random access pictures, NAL unit types 16 to 21. Pictures that
  may need earlier ones after such a start (RASL) are shown before it, never after.
- VP9 and MJPEG: every keyframe resets the decoder.
- AV1: nowhere; a forward keyframe may be flagged without resetting.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TIMED_CONTAINERS = frozenset({"mov", "matroska"})
TIMED_CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg"})
H264_IDR = 5

_HEVC_RANDOM_ACCESS = range(16, 22)
_CODECS_RESET_BY_KEYFRAMES = frozenset({"vp9", "mjpeg"})

# Decoding this many frames costs about as much as a jump, which empties the decoder's pipeline.
_MIN_FRAMES_SAVED_BY_A_JUMP = 24

_MAX_REORDER_DEPTH = 16  # what decoders hold back at most; told more, FFmpeg ends the process


class PacketFacts(NamedTuple):
    """One packet in decoding order; times count the stream's time base.

    `picture_type` is the NAL unit type of the packet's first coded slice; None if the codec has
    no such thing, or if the packet holds no slice.
    """

    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_discard: bool
    is_corrupt: bool
    picture_type: int | None


class SeekPoint(NamedTuple):
    """A packet at which a decoder may start, and the frame that it becomes."""

    frame: int
    pts: int
    dts: int


@dataclass(frozen=True)
class PacketIndex:
    """Frames of a stream as its packets promise them.

    Attributes:
        pts: (N,) int64, increasing; one entry per frame that is shown.
        end_pts: end of the last frame.
        seek_points: where a decoder may start, by increasing index.
        reorder_depth: the most pictures that precede one in decoding and follow it on screen.
    """

    pts: NDArray[np.int64]
    end_pts: int
    seek_points: tuple[SeekPoint, ...]
    reorder_depth: int


class Run(NamedTuple):
    """Frames to take in one go; the decoder starts at `start`, or goes on if that is None."""

    start: SeekPoint | None
    indices: list[int]


def index_packets(packets: Iterable[PacketFacts], codec: str) -> PacketIndex | None:
    """Number the frames of a stream; None if its times cannot tell them apart.

    `packets` are gone through once; of each that starts nothing, eight bytes are kept.
    """
    times = array("q")
    starts: list[PacketFacts] = []
    last: PacketFacts | None = None
    is_timed = True
    order = _Reordering()
    for packet in packets:
        if packet.pts is not None:
            order.add(packet.pts)
        # A packet that was cut off decodes to an invented picture: it is not promised.
        if packet.is_discard or packet.is_corrupt:
            continue
        if packet.pts is None:
            is_timed = False
            continue
        times.append(packet.pts)
        if last is None or packet.pts > _known(last.pts):
            last = packet
        if packet.is_key and _resets_decoder(packet, codec):
            starts.append(packet)
    pts = np.sort(np.array(times, dtype=np.int64))
    if last is None or not is_timed or (np.diff(pts) == 0).any():
        return None
    return PacketIndex(
        pts=pts,
        end_pts=_known(last.pts) + (last.duration or _usual_step(pts)),
        seek_points=_seek_points(starts, pts),
        reorder_depth=order.depth,
    )


def plan_runs(wanted: Sequence[int], seek_points: Sequence[SeekPoint]) -> list[Run]:
    """Split a sorted pass into runs that jump over what need not be decoded.

    Args:
        wanted: frame indices, sorted, not empty.
        seek_points: by increasing index.
    """
    starts = np.array([point.frame for point in seek_points], dtype=np.int64)
    runs: list[Run] = []
    decoded = 0  # frames before this one are behind the decoder
    for index in wanted:
        at = int(np.searchsorted(starts, index, side="right")) - 1
        if at >= 0 and starts[at] - decoded >= _MIN_FRAMES_SAVED_BY_A_JUMP:
            runs.append(Run(seek_points[at], [index]))
        elif runs:
            runs[-1].indices.append(index)
        else:
            runs.append(Run(None, [index]))
        decoded = index + 1
    return runs


def nal_length_size(codec: str, extradata: bytes) -> int | None:
    """Bytes of the length before each NAL unit; None if units are not stored that way.

    From ISO/IEC 14496-15: AVCDecoderConfigurationRecord and HEVCDecoderConfigurationRecord.
    """
    position = {"h264": 4, "hevc": 21}.get(codec)
    if position is None or len(extradata) <= position or extradata[0] != 1:
        return None
    return (extradata[position] & 3) + 1


def first_picture_type(data: memoryview, codec: str, length_size: int) -> int | None:
    """NAL unit type of the first coded slice in a packet of H.264 or HEVC; None without one."""
    position = 0
    while position + length_size < len(data):
        size = int.from_bytes(data[position : position + length_size], "big")
        header = data[position + length_size]
        unit_type = header & 31 if codec == "h264" else (header >> 1) & 63
        if (1 <= unit_type <= 5) if codec == "h264" else unit_type < 32:
            return unit_type
        position += length_size + size
    return None


def is_disposable(data: memoryview, length_size: int) -> bool:
    """Whether no other picture needs a packet of H.264, so that it may be left out.

    So it is if every slice says that it is no reference (ITU-T H.264, 7.4.1: nal_ref_idc is 0). A
    packet whose units do not fill it is damaged, and what it says is not believed.
    """
    position, has_slice = 0, False
    while position + length_size < len(data):
        size = int.from_bytes(data[position : position + length_size], "big")
        header = data[position + length_size]
        if 1 <= header & 31 <= 5:
            has_slice = True
            if header & 0x60:
                return False
        position += length_size + size
    return has_slice and position == len(data)


def _seek_points(starts: Sequence[PacketFacts], pts: NDArray[np.int64]) -> tuple[SeekPoint, ...]:
    points = [
        # Matroska keeps no dts; what FFmpeg makes up for it is missing at the start.
        SeekPoint(int(np.searchsorted(pts, time)), time, time if p.dts is None else p.dts)
        for p, time in ((p, _known(p.pts)) for p in starts)
    ]
    return tuple(sorted(points))


def _resets_decoder(packet: PacketFacts, codec: str) -> bool:
    if codec == "h264":
        return packet.picture_type == H264_IDR
    if codec == "hevc":
        return packet.picture_type in _HEVC_RANDOM_ACCESS
    return codec in _CODECS_RESET_BY_KEYFRAMES


class _Reordering:
    """`depth`: the most entries that stand before one of a smaller value, as far as it matters."""

    def __init__(self) -> None:
        self.depth = 0
        self._latest: list[int] = []  # so few that hostile orders cost no more than others

    def add(self, time: int) -> None:
        latest = self._latest
        place = bisect(latest, time)
        self.depth = max(self.depth, min(len(latest) - place, _MAX_REORDER_DEPTH))
        latest.insert(place, time)
        del latest[: -_MAX_REORDER_DEPTH - 1]


def _usual_step(pts: NDArray[np.int64]) -> int:
    return int(np.median(np.diff(pts))) if len(pts) > 1 else 0


def _known(time: int | None) -> int:
    if time is None:
        raise ValueError("got a packet without a time where one was checked before")
    return time
