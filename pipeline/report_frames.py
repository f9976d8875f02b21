"""Frames of a video as pictures that lie inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.videos import Video

__all__ = ["PICTURE_WIDTH_PX", "data_uri", "read_pictures"]

PICTURE_WIDTH_PX = 360
JPEG_QUALITY = 70


def read_pictures(video: Video, times_seconds: Sequence[float]) -> list[str]:
    """The frames on screen at some times, as ``data:`` URIs of small JPEGs.

    Times outside the video give its first or last frame, as they do for the stored rows.

    Raises:
        VideoError: the video is gone, has changed, or does not decode.
        OSError: it cannot be read.
    """
    with video.open() as reader:
        indices, _ = reader.index_at(times_seconds)
        pictures = {index: data_uri(frame) for index, frame in reader.frames(np.unique(indices))}
    return [pictures[int(index)] for index in indices]


def data_uri(frame: npt.NDArray[np.uint8]) -> str:
    """A frame (H, W, 3) uint8 RGB as a JPEG at most ``PICTURE_WIDTH_PX`` wide."""
    image = Image.fromarray(frame)
    if image.width > PICTURE_WIDTH_PX:
        height_px = max(1, round(image.height * PICTURE_WIDTH_PX / image.width))
        image = image.resize((PICTURE_WIDTH_PX, height_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
