"""Colours of both readers of video files against the standards' equations, worked out by hand.

Rec. ITU-R BT.601, BT.709 and BT.2020: with luma weights Kr and Kb, R = Y + 2 (1 - Kr) Cr,
B = Y + 2 (1 - Kb) Cb, and G such that Y = Kr R + Kg G + Kb B. In limited range Y runs from 16 to
235 and chroma over 224 steps round 128; in full range both use all values. Ten bits are four
times as fine.
"""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from extractors.video import open_video

BT709, UNSPECIFIED, BT470BG, SMPTE170M, BT2020 = 1, 2, 5, 6, 9
WEIGHTS = {
    BT709: (0.2126, 0.0722),
    UNSPECIFIED: (0.299, 0.114),  # taken for BT.601 at every size, as FFmpeg does
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    BT2020: (0.2627, 0.0593),
}
# Y, Cb, Cr of upright stripes, in 8 bits.
STRIPES = np.array(
    [(180, 90, 150), (81, 90, 240), (145, 54, 34), (41, 240, 110), (120, 128, 128), (60, 150, 140)]
)
WIDTH_PX = 32  # of a stripe


def expected_rgb(matrix: int, *, is_full: bool) -> NDArray[np.float64]:
    """(stripes, 3), 0 to 255."""
    luma, blue, red = STRIPES.astype(np.float64).T
    offset, luma_steps, chroma_steps = (0, 255, 255) if is_full else (16, 219, 224)
    y, cb, cr = (
        (luma - offset) / luma_steps,
        (blue - 128) / chroma_steps,
        (red - 128) / chroma_steps,
    )
    k_red, k_blue = WEIGHTS[matrix]
    r, b = y + 2 * (1 - k_red) * cr, y + 2 * (1 - k_blue) * cb
    g = (y - k_red * r - k_blue * b) / (1 - k_red - k_blue)
    return 255 * np.clip(np.stack([r, g, b], axis=1), 0, 1)


def write_stripes(
    path: Path, *, pixel_format: str, matrix: int, color_range: ColorRange, height_px: int
) -> Path:
    """Two frames of the stripes, coded without loss and tagged as told."""
    is_deep = "10" in pixel_format
    dtype, scale = (np.uint16, 4) if is_deep else (np.uint8, 1)
    width_px = WIDTH_PX * len(STRIPES)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, pixel_format
        stream.options = {"qp": "0", "preset": "ultrafast"}
        for tagged in (
            stream.codec_context,
            frame := av.VideoFrame(width_px, height_px, pixel_format),
        ):
            tagged.colorspace, tagged.color_range = matrix, color_range
        for plane, values in zip(frame.planes, STRIPES.T, strict=True):
            pixels = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
            pixels[:, : plane.width] = (values * scale).repeat(plane.width // len(STRIPES))
            plane.update(pixels.tobytes())
        for index in range(2):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_colours_are_those_of_the_standards(
    tmp_path: Path, matrix: int, color_range: ColorRange, pixel_format: str
) -> None:
    path = write_stripes(
        tmp_path / "a.mp4",
        pixel_format=pixel_format,
        matrix=matrix,
        color_range=color_range,
        height_px=64,
    )
    assert_colours(path, expected_rgb(matrix, is_full=color_range == ColorRange.JPEG))


@pytest.mark.parametrize("matrix", [UNSPECIFIED, BT709])
def test_size_does_not_decide_the_matrix(tmp_path: Path, matrix: int) -> None:
    """Players guess BT.709 for tall frames without a tag; FFmpeg, and so the papers, do not."""
    path = write_stripes(
        tmp_path / "a.mp4",
        pixel_format="yuv420p",
        matrix=matrix,
        color_range=ColorRange.MPEG,
        height_px=1080,
    )
    assert_colours(path, expected_rgb(matrix, is_full=False))


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
def test_decord_has_the_same_colours(tmp_path: Path, matrix: int, color_range: ColorRange) -> None:
    pytest.importorskip("decord")
    path = write_stripes(
        tmp_path / "a.mp4",
        pixel_format="yuv420p",
        matrix=matrix,
        color_range=color_range,
        height_px=64,
    )
    expected = expected_rgb(matrix, is_full=color_range == ColorRange.JPEG)
    assert_colours(path, expected, reader="decord")


def assert_colours(path: Path, expected: NDArray[np.float64], reader: Any = "pyav") -> None:
    """Within 3 of 255: FFmpeg rounds down along the way, and 4:2:0 once more."""
    with open_video(path, reader=reader) as video:
        assert video.reader_name == reader
        for _, frame in video.frames([0, 1]):
            middles = frame[:, WIDTH_PX // 2 :: WIDTH_PX].astype(np.float64)
            assert np.abs(middles - expected).max() < 3


def test_the_standards_differ_by_more_than_the_tolerance() -> None:
    """Or the tests above could not tell one from another."""
    tables = [
        expected_rgb(matrix, is_full=is_full)
        for matrix in (BT709, SMPTE170M, BT2020)
        for is_full in (False, True)
    ]
    for place, table in enumerate(tables):
        for other in tables[place + 1 :]:
            assert np.abs(table - other).max() > 6
