"""Pixel operations against slow references and hand-made numbers."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from extractors.transforms import center_crop, normalize_clip, random_scale_crop, resize_frame


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def triangle_weights(old: int, new: int) -> NDArray[np.float64]:
    """(new, old) weights of antialiased bilinear resizing, by its definition."""
    reach = max(old / new, 1.0)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new
        for j in range(old):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize("size", [(8, 8), (16, 5), (40, 60), (21, 33)])
def test_resize_is_antialiased_bilinear(size: tuple[int, int]) -> None:
    frame = noise(21, 33, 3)
    rows, columns = triangle_weights(21, size[0]), triangle_weights(33, size[1])
    expected = np.einsum("ij,jkc,lk->ilc", rows, frame.astype(float), columns)
    resized = resize_frame(frame, size)
    assert resized.dtype == np.uint8
    assert resized.shape == (*size, 3)
    assert resized.flags.c_contiguous
    assert np.abs(resized - expected).max() <= 1.01  # two roundings to whole levels


def test_resize_agrees_with_pillow() -> None:
    frame = noise(108, 192, 3)
    expected = np.asarray(Image.fromarray(frame).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(resize_frame(frame, 64).astype(int) - expected).max() <= 1


def test_resize_takes_any_memory_layout() -> None:
    frame = noise(20, 30, 3)
    expected = resize_frame(frame, 16)
    read_only = frame.copy()
    read_only.setflags(write=False)
    turned = np.ascontiguousarray(frame.transpose(1, 0, 2)).transpose(1, 0, 2)
    for same in (read_only, turned, frame[:, :, ::-1][:, :, ::-1]):
        assert np.array_equal(resize_frame(same, 16), expected)
    assert np.array_equal(resize_frame(frame, (20, 30)), frame)


@pytest.mark.parametrize(
    "frame", [noise(5, 5), noise(5, 5, 4), noise(5, 5, 3).astype(np.float32), noise(2, 5, 5, 3)]
)
def test_resize_refuses_what_is_no_frame(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="expected a uint8 frame"):
        resize_frame(frame, 8)


def test_normalize_by_hand() -> None:
    clips = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 2, 4, 5, 3)
    values = normalize_clip(clips, mean=(0.0, 0.1, 0.5), std=(1.0, 0.2, 0.5))
    assert values.shape == (1, 3, 2, 4, 5)
    assert values.dtype == torch.float32
    assert values.is_contiguous()
    for channel, expected in enumerate((0.0, 0.5, 1.0)):
        torch.testing.assert_close(values[0, channel], torch.full((2, 4, 5), expected))


def test_normalize_keeps_places() -> None:
    clips = torch.from_numpy(noise(2, 3, 4, 5, 3))
    values = normalize_clip(clips, mean=(0, 0, 0), std=(1, 1, 1))
    assert float(values[1, 2, 0, 3, 4]) * 255 == pytest.approx(int(clips[1, 0, 3, 4, 2]))
    assert clips.dtype == torch.uint8


def test_normalize_agrees_with_the_formula_in_double_precision() -> None:
    clips = torch.from_numpy(noise(2, 3, 16, 17, 3))
    mean, std = torch.tensor([0.4345, 0.4051, 0.3775]), torch.tensor([0.2768, 0.2713, 0.2737])
    exact = ((clips.double() / 255 - mean.double()) / std.double()).permute(0, 4, 1, 2, 3)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        values = normalize_clip(clips, mean.tolist(), std.tolist(), memory_format=layout)
        assert values.is_contiguous(memory_format=layout)
        torch.testing.assert_close(values.double(), exact, rtol=0, atol=5e-7)


def test_normalize_flow_from_images_and_from_pixels() -> None:
    half = (0.5, 0.5)
    pixels = torch.tensor([-20.0, -5.0, 0.0, 20.0]).expand(1, 2, 3, 2, 4).transpose(3, 4)
    before = pixels.clone()
    values = normalize_clip(pixels, half, half)
    assert values.shape == (1, 2, 2, 3, 4)
    assert values[0, 1, 1, 2].tolist() == [-1.0, -0.25, 0.0, 1.0]
    assert torch.equal(pixels, before)
    # Images stand for v / 255 * 40 - 20 pixels.
    images = torch.from_numpy(noise(1, 2, 6, 7, 2))
    same = normalize_clip(images.float() / 255 * 40 - 20, half, half)
    torch.testing.assert_close(normalize_clip(images, half, half), same, rtol=0, atol=1e-6)
    skewed = ((0.25, 0.5), (0.5, 0.125))  # of 0…1: 15 / 40 is 0.375
    assert normalize_clip(pixels, *skewed)[0, 0, 0, 0].tolist() == [-0.5, 0.25, 0.5, 1.5]
    assert normalize_clip(pixels, *skewed)[0, 1, 0, 0].tolist() == [-4.0, -1.0, 0.0, 4.0]


def test_normalize_refuses_other_input() -> None:
    with pytest.raises(ValueError, match="expected uint8 clips"):
        normalize_clip(torch.zeros(1, 2, 4, 5, 3), (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match=r"expected uint8 clips \(B, T, H, W, 2\)"):
        normalize_clip(torch.zeros(1, 2, 4, 5, 3, dtype=torch.uint8), (0, 0), (1, 1))
    with pytest.raises(ValueError, match="three values each for RGB or two for flow"):
        normalize_clip(torch.zeros(1, 2, 4, 5, 3, dtype=torch.uint8), (0, 0, 0), (1, 1))
    with pytest.raises(ValueError, match="std above 0"):
        normalize_clip(torch.zeros(1, 2, 4, 5, 3, dtype=torch.uint8), (0, 0, 0), (1, 0, 1))


def clip_of(frames: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(noise(frames, height, width, 3))


def test_crop_without_scaling_is_a_window_shared_by_all_frames() -> None:
    clip = clip_of(3, 12, 12)
    corners = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        cropped = random_scale_crop(clip, crop_px=10, scale_range_px=(12, 12), generator=generator)
        assert cropped.is_contiguous()
        matches = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(clip[:, top : top + 10, left : left + 10], cropped)
        ]
        assert len(matches) == 1
        corners.add(matches[0])
    assert len(corners) == 9  # every window comes up


def test_scaled_sides_cover_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    from extractors import transforms

    resize = transforms._resize

    def watched(frames: Tensor, size: tuple[int, int]) -> Tensor:
        sizes.append(size)
        return resize(frames, size)

    monkeypatch.setattr(transforms, "_resize", watched)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        cropped = random_scale_crop(
            clip_of(2, 20, 30), crop_px=8, scale_range_px=(8, 11), generator=generator
        )
        assert cropped.shape == (2, 8, 8, 3)
        assert cropped.dtype == torch.uint8
    assert set(sizes) == {(8, 12), (9, 14), (10, 15), (11, 16)}  # 30/20 of the side, rounded


def test_scaling_every_frame_like_resize_frame() -> None:
    clip = clip_of(2, 20, 20)
    cropped = random_scale_crop(
        clip, crop_px=12, scale_range_px=(12, 12), generator=torch.Generator().manual_seed(0)
    )
    for frame, expected in zip(clip.numpy(), cropped.numpy(), strict=True):
        assert np.array_equal(resize_frame(frame, 12), expected)


def test_random_crop_is_decided_by_its_generator() -> None:
    clip = clip_of(2, 20, 20)

    def crop(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return random_scale_crop(clip, crop_px=9, scale_range_px=(9, 20), generator=generator)

    assert torch.equal(crop(1), crop(1))
    assert not torch.equal(crop(1), crop(2))


def test_flip_only_when_asked() -> None:
    clip = clip_of(2, 8, 8)
    seen = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kwargs = {"crop_px": 8, "scale_range_px": (8, 8), "generator": generator}
        assert torch.equal(random_scale_crop(clip, **kwargs), clip)
        flipped = random_scale_crop(clip, **kwargs, flip=True)
        assert torch.equal(flipped, clip) or torch.equal(flipped, clip.flip(2))
        seen.add(torch.equal(flipped, clip))
    assert seen == {True, False}


def test_crops_refuse_what_does_not_fit() -> None:
    generator = torch.Generator()
    for sides in ((8, 20), (20, 12)):
        with pytest.raises(ValueError, match="crop <= least <= greatest"):
            random_scale_crop(
                clip_of(1, 20, 20), crop_px=9, scale_range_px=sides, generator=generator
            )
    with pytest.raises(ValueError, match="expected a uint8 clip"):
        random_scale_crop(
            torch.zeros(2, 8, 8, 3), crop_px=8, scale_range_px=(8, 8), generator=generator
        )
    with pytest.raises(ValueError, match="expected 1 to 6"):
        center_crop(clip_of(1, 6, 9), 7)


def test_center_crop() -> None:
    clip = clip_of(2, 7, 10)
    cropped = center_crop(clip, 4)
    assert torch.equal(cropped, clip[:, 1:5, 3:7])
    assert cropped.is_contiguous()
    assert torch.equal(center_crop(clip, 7), clip[:, :, 1:8])


@pytest.mark.needs_cuda
def test_normalize_on_the_device() -> None:
    clips = clip_of(3, 8, 8)[None]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    on_device = normalize_clip(clips.cuda(), mean, std)
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), normalize_clip(clips, mean, std))
