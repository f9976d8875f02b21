"""Resizes and crops, held against torchvision's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from extractors.geometry import Geometry, square


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", [(48, 85), (85, 48), (61, 61)])
@pytest.mark.parametrize(
    ("resize_px", "crop_px"), [(32, 28), (32, None), ((40, 57), 33), ((40, 57), None)]
)
def test_frames_are_resized_and_cropped_as_torchvision_does(size, resize_px, crop_px):
    frame = picture(*size)
    expected = resize(
        torch.from_numpy(frame).permute(2, 0, 1),
        resize_px if isinstance(resize_px, int) else list(resize_px),
        InterpolationMode.BILINEAR,
        antialias=True,
    )
    if crop_px is not None:
        expected = center_crop(expected, crop_px)
    made = Geometry(resize_px, crop_px).apply(frame)
    # Its kernel for this memory layout rounds a few pixels the other way.
    difference = made.astype(int) - expected.permute(1, 2, 0).numpy()
    assert made.shape == difference.shape
    assert np.abs(difference).max() <= 1
    assert made.flags.c_contiguous


def test_a_square_shows_the_whole_frame():
    assert square(8).apply(picture(20, 30)).shape == (8, 8, 3)
    assert square(8).region_xyxy_px(20, 30) == (0, 0, 30, 20)


def test_a_crop_shows_the_middle_of_the_frame():
    # 100×200 → 50×100 → the middle 40: rows 5 to 45, columns 30 to 70, twice as many native pixels
    assert Geometry(50, 40).region_xyxy_px(100, 200) == (60, 10, 140, 90)
    # aspect not kept: 100×200 → 50×50, one cell is 2 px high and 4 px wide
    assert Geometry((50, 50), 40).region_xyxy_px(100, 200) == (20, 10, 180, 90)


def test_flow_has_two_channels():
    assert square(8).apply(picture(20, 30, 2)).shape == (8, 8, 2)


@pytest.mark.parametrize(("resize_px", "crop_px"), [(0, None), ((4, 0), None), (8, 9), (8, 0)])
def test_impossible_sizes_are_refused(resize_px, crop_px):
    with pytest.raises(ValueError, match="expected sides of 1 or more"):
        Geometry(resize_px, crop_px)


def test_every_setting_is_in_the_key():
    keys = {str(g.settings) for g in (square(8), Geometry(8), Geometry(8, 4), Geometry((8, 9)))}
    assert len(keys) == 4
