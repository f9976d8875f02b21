"""Videos as numbered images, as EPIC-KITCHENS publishes them, in folders or in tar files.

The official RGB frames are `frame_0000000001.jpg`, `frame_0000000002.jpg`, … written at a rate of
their own (60 frames a second for the two-digit videos, P01_01, and 50 for the three-digit ones,
P01_101), whatever the rate of the video. The annotations number frames by
`max(1, floor(seconds × rate))`. So file number `n` is on screen from `n / rate`, and the first
file from 0.

The official flow is two grey images a frame, `u/frame_0000000001.jpg` (horizontal) and
`v/frame_0000000001.jpg` (vertical); `extractors.flow` says what their values mean. Facts, from the
organisers' own conversion of labels (C1-Action-Recognition-TSN-TRN-TSM): flow has a stride of 2
for the two-digit videos and of 1 for the three-digit ones, and RGB number n belongs to flow number
`(n − 1) // stride + 1`. Hence flow number j is on screen from the time of RGB number
`1 + stride · (j − 1)`, with `rate` that of the RGB frames.

A frame that is missing within the video spoils what looks at it and nothing else: it keeps its
number and its time, and no other frame stands in. `extractors.frames_numbered` says how many may
be missing.

Guesses: the last image stays for as long as any other; the two greys are horizontal first where
letters x and y stand in place of u and v.
"""

from __future__ import annotations

import io
import math
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from extractors.frames_images import FolderImages, Images, ReadImage, TarImages
from extractors.limits import MAX_DURATION_SECONDS, MAX_FRAME_PIXELS
from extractors.video_reader import FrameDecodeError, Outcome, UnreadableVideo, VideoReader

__all__ = ["FlowReader", "FramesReader", "epic_frame_number"]

FRAMES_TIME_TOLERANCE_SECONDS = 1e-6  # times travel rounded to microseconds

_FORMATS = ("JPEG", "PNG")
_MODES_OF_8_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def epic_frame_number(seconds: float, rate_fps: float) -> int:
    """Number of the frame at a time, as the EPIC-KITCHENS annotations count: from 1.

    This is the rule to the last bit: annotations round a product such as 16.4 × 60 =
    983.9999999999999 down to 983. `FramesReader.index_at` allows for times that were rounded
    to microseconds and gives frame 984 there, one sixtieth of a second later.

    Args:
        seconds: time in the video.
        rate_fps: 60 for videos with a two-digit number, 50 for those with three.
    """
    return max(1, math.floor(seconds * rate_fps))


class FramesReader(VideoReader):
    """RGB frames; index `i` is image number `i + 1`."""

    reader_name = "frames"

    _is_flow = False

    def __init__(
        self,
        path: str | Path,
        *,
        kind: Literal["frames", "tar"] = "frames",
        frame_rate_fps: float,
        stride: int = 1,
        frame_pattern: str | None = None,
    ) -> None:
        """Find the images and read the first one's size.

        Args:
            path: folder (`kind="frames"`) or tar.
            frame_rate_fps: rate at which RGB frames were written.
            stride: of how many RGB frames each of these stands for.
            frame_pattern: file name with a `{number}` field, as in
                "frame_{number:010d}.jpg"; None takes the one numbering there is.

        Raises:
            UnreadableVideo: if there is no folder or tar, no frame, more than one numbering, too
                many numbers missing, or a tar with something in it that is no plain file.
            FrameDecodeError: if the first image is none.
            ValueError: for a rate, stride or pattern that makes no sense.
        """
        path = Path(path)
        if not (math.isfinite(frame_rate_fps) and frame_rate_fps > 0):
            raise ValueError(f"{path}: got frame_rate_fps {frame_rate_fps}, expected more than 0")
        if stride < 1:
            raise ValueError(f"{path}: got stride {stride}, expected 1 or more")
        place = FolderImages if kind == "frames" else TarImages
        self._images: Images = place(path, pattern=frame_pattern, is_flow=self._is_flow)
        times_seconds = _times_seconds(
            path, self._images.numbering.num_frames, frame_rate_fps, stride
        )
        with self._images.opened() as read:
            height_px, width_px = self._read(read, 0).shape[:2]
        super().__init__(
            path=path,
            width_px=width_px,
            height_px=height_px,
            timestamps_seconds=times_seconds[:-1],
            duration_seconds=float(times_seconds[-1]),
            time_tolerance_seconds=FRAMES_TIME_TOLERANCE_SECONDS,
        )

    def check_present(self, indices: Iterable[int]) -> None:
        """As promised by `VideoReader`; the message has the name of the file."""
        wanted = [int(index) for index in indices]
        for component, missing in enumerate(self._images.numbering.missing):
            for index in wanted:
                if index + 1 in missing:
                    label = self._images.label(component, index + 1)
                    raise FrameDecodeError(f"{label}: is missing; get the frames again", index)

    def _decode(self, wanted: list[int]) -> Generator[tuple[int, Outcome], None, None]:
        with self._images.opened() as read:
            for index in wanted:
                outcome: Outcome
                try:
                    self.check_present([index])
                    outcome = self._read(read, index)
                except FrameDecodeError as error:
                    outcome = error
                yield index, outcome

    def _read(self, read: ReadImage, index: int) -> NDArray[np.uint8]:
        """The frame, (H, W, channels)."""
        return self._pixels(read, 0, index, "RGB")

    def _pixels(
        self, read: ReadImage, component: int, index: int, mode: Literal["RGB", "L"]
    ) -> NDArray[np.uint8]:
        """One image, (H, W, 3), or (H, W) for mode "L"."""
        label = self._images.label(component, index + 1)
        try:
            data = read(component, index + 1)
        except OSError as error:
            raise FrameDecodeError(
                f"{label}: cannot be read ({error.strerror}); get the frames again", index
            ) from error
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                reason = _objection(image, mode)
                if reason is None:
                    same = image.mode == mode
                    return np.array(image if same else image.convert(mode), dtype=np.uint8)
        except _DECODER_ERRORS as error:
            # Pillow's own words for what it does not know are the address of the bytes in memory.
            unknown = isinstance(error, UnidentifiedImageError)
            reason = f"{len(data):,} bytes that are no image" if unknown else str(error)
            raise FrameDecodeError(
                f"{label}: got a frame that does not decode ({reason}), expected a whole JPEG or "
                "PNG image; get the frames again",
                index,
            ) from error
        raise FrameDecodeError(f"{label}: got {reason}; get the frames again", index)


def _times_seconds(
    path: Path, num_frames: int, frame_rate_fps: float, stride: int
) -> NDArray[np.float64]:
    """When each frame starts, and the end of the last."""
    numbers = 1 + stride * np.arange(num_frames + 1, dtype=np.float64)  # of RGB frames
    times_seconds = numbers / frame_rate_fps
    times_seconds[0] = 0.0
    if times_seconds[-1] > MAX_DURATION_SECONDS:
        raise UnreadableVideo(
            f"{path}: got {num_frames:,} frames, or {times_seconds[-1] / 3600:.1f} hours at "
            f"{frame_rate_fps:g} fps, expected at most {MAX_DURATION_SECONDS / 3600:g}; check "
            "frame_rate_fps or split the video"
        )
    return times_seconds


class FlowReader(FramesReader):
    """Optical flow; frames are (H, W, 2) uint8, horizontal first.

    `stride`: 2 for EPIC's two-digit videos, 1 for the three-digit ones.
    """

    reader_name = "flow"
    channels = 2

    _is_flow = True

    def _read(self, read: ReadImage, index: int) -> NDArray[np.uint8]:
        horizontal, vertical = (self._pixels(read, c, index, "L") for c in (0, 1))
        if horizontal.shape != vertical.shape:
            raise FrameDecodeError(
                f"{self._images.label(0, index + 1)}: got {horizontal.shape} pixels of horizontal "
                f"and {vertical.shape} of vertical flow, expected one size; get the frames again",
                index,
            )
        return np.stack([horizontal, vertical], axis=-1)


# Pillow's decoders raise these on broken files; a warning is an error where the caller says so.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    OverflowError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _objection(image: Image.Image, mode: str) -> str | None:
    """Why an image is no frame; None if it is. Nothing of it is decoded yet."""
    if image.width * image.height > MAX_FRAME_PIXELS:
        return (
            f"an image of {image.width} × {image.height} pixels, expected at most "
            f"{MAX_FRAME_PIXELS:,} pixels"
        )
    if mode == "L" and image.mode != "L":
        return f"an image of mode {image.mode}, expected a grey one (L) for a component of flow"
    if image.mode not in _MODES_OF_8_BITS:
        return f"an image of mode {image.mode}, expected 8 bits a channel"
    return None
