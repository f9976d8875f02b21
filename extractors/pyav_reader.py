"""Video files through PyAV (FFmpeg): exact on every file, with shortcuts where they are safe.

Where frames carry their packet's time (see `packet_index`) a pass recognises each frame by that
time, so it makes no difference where the decoder started, and it starts only at packets that
need nothing before them. Pictures of H.264 that nobody asked for and no other picture is built on
are not decoded at all. Everywhere else (AVI above all, whose frame times are made up) every pass
decodes from the start and counts.

Whether a damaged file gives a frame depends on the file and the frame alone. Behind damage a pass
starts again at the next frame that needs nothing before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from extractors import heartbeat
from extractors.file_stamp import check_unchanged
from extractors.packet_index import PacketIndex, SeekPoint, plan_runs
from extractors.pyav_container import open_container, video_stream
from extractors.pyav_pass import INVENTED, Damage, DecoderPass
from extractors.pyav_probe import VideoFacts
from extractors.pyav_source import PyavSource
from extractors.video_reader import (
    FILE_TIME_TOLERANCE_SECONDS,
    FrameDecodeError,
    Outcome,
    VideoReader,
)

__all__ = ["PyavReader", "decodes_as_indexed"]

_MOST_UNEVEN = 1.5  # times the usual step from frame to frame; a lost frame makes it 2


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
        self._leaves_out = facts.container != "matroska" or _is_even(facts.index)

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        check_unchanged(self.path, self._stamp)
        index = self._index
        if index is None:
            yield from self._count(wanted)
            return
        left = wanted
        while left:
            num_given = 0
            for item in self._decode_runs(left, index):
                num_given += 1
                yield item
            left = left[num_given:]
            if left:  # there is damage: decide about all frames that have the same start
                start = _start_of(left[0], index)
                same = [i for i in left if _start_of(i, index) == start]
                yield from self._decide(same, start, index)
                left = left[len(same) :]

    def _decode_runs(
        self, wanted: list[int], index: PacketIndex
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Wanted frames in order, up to the first damage."""
        with PyavSource(self.path, index, self._num_threads) as source:
            for run in plan_runs(wanted, index.seek_points):
                decoder = self._pass(source, run.start, run.indices, index)
                for i, frame in decoder.frames(to_the_end=False):
                    yield i, self._pixels(frame)
                if decoder.waiting:
                    return

    def _decide(
        self, wanted: list[int], start: SeekPoint | None, index: PacketIndex
    ) -> Iterator[tuple[int, Outcome]]:
        """Each of some frames that have the same start, or why it cannot be given.

        What becomes of a frame is what becomes of it when nothing is decoded from the start on but
        what others are built on, and itself: whatever else is wanted makes no difference. So a
        damaged picture that nothing is built on spoils itself, and the rest is decoded again
        without it; any other spoils all that is decoded behind it.
        """
        errors: dict[int, FrameDecodeError] = {}
        left = deque(wanted)
        while asked := [i for i in left if i not in errors]:
            # One thread: an error is that of the packet it was just given.
            with PyavSource(self.path, index, num_threads=1) as source:
                decoder = self._pass(source, start, asked, index)
                for _, frame in decoder.frames(to_the_end=True):
                    while left[0] in errors:
                        yield left[0], errors[left.popleft()]
                    yield left.popleft(), self._pixels(frame)
            damage = decoder.damage
            if damage is None:
                break
            lost = damage.frame
            if damage.is_disposable and lost is not None and lost in decoder.waiting:
                errors[lost] = self._failed(lost, damage.reason)
                continue
            for i in left:
                sound = None if i in errors else decoder.take(i)
                error = errors.get(i) or self._failed(i, _reason(i, damage))
                yield i, error if sound is None else self._pixels(sound)
            return
        for i in left:
            yield i, errors.get(i) or self._ended_before(i)

    def _pass(
        self,
        source: PyavSource,
        start: SeekPoint | None,
        wanted: list[int],
        index: PacketIndex,
    ) -> DecoderPass:
        return DecoderPass(source, start, wanted, index, leaves_out=self._leaves_out)

    def _count(self, wanted: list[int]) -> Iterator[tuple[int, Outcome]]:
        """Frames by their place in the decode from the start; damage lasts until a keyframe."""
        left = deque(wanted)
        place, is_spoilt = 0, False
        with PyavSource(self.path, None, self._num_threads) as source:
            try:
                for packet in source.packets():
                    for frame in packet.decode():
                        is_spoilt = frame.is_corrupt or (is_spoilt and not frame.key_frame)
                        if place == left[0]:
                            left.popleft()
                            error = self._failed(place, INVENTED) if is_spoilt else None
                            yield place, error or self._pixels(frame)
                            if not left:
                                return
                        place += 1
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                for i in left:
                    yield i, self._failed(i, str(error.strerror))

    def _pixels(self, frame: VideoFrame) -> NDArray[np.uint8]:
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


def _is_even(index: PacketIndex | None) -> bool:
    """Whether no frame seems to be lost: Matroska passes over what it cannot read without a word.

    What a decoder makes of the frames behind depends on all that it is given.
    """
    if index is None or len(index.pts) < 3:
        return False
    steps = np.diff(index.pts)
    return bool(steps.max() <= _MOST_UNEVEN * np.median(steps))


def _start_of(index: int, packets: PacketIndex) -> SeekPoint | None:
    """The last point at which a decoder may start for a frame; None is the start of the file."""
    at = bisect_right(packets.seek_points, index, key=lambda point: point.frame) - 1
    return packets.seek_points[at] if at >= 0 else None


def _reason(index: int, damage: Damage) -> str:
    if damage.frame is None or damage.frame == index:
        return damage.reason
    return f"it may be built on frame {damage.frame}: {damage.reason}"


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
