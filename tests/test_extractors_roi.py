import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from extractors.roi import align_objects, roi_max, step_times


def sample(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear value of one channel at cell-centre coordinates; 0 beyond one cell outside."""
    H, W = image.shape
    if not (-1 <= y <= H and -1 <= x <= W):
        return 0.0
    y, x = min(max(y, 0.0), H - 1), min(max(x, 0.0), W - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, H - 1), min(left + 1, W - 1)
    v, u = y - top, x - left
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[below, left] * (1 - u) + image[below, right] * u
    return float(upper * (1 - v) + lower * v)


def slow_bins(image: np.ndarray, box: list[float], bins: int, *, aligned: bool) -> np.ndarray:
    """RoIAlign of one channel and one box in map cells, adaptive sampling, loops only."""
    shift = 0.5 if aligned else 0.0
    left, top, right, bottom = (edge - shift for edge in box)
    width, height = right - left, bottom - top
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    rows, columns = math.ceil(height / bins), math.ceil(width / bins)
    out = np.zeros((bins, bins))
    for i in range(bins):
        for j in range(bins):
            total = 0.0
            for a in range(rows):
                for b in range(columns):
                    y = top + (i + (a + 0.5) / rows) * height / bins
                    x = left + (j + (b + 0.5) / columns) * width / bins
                    total += sample(image, y, x)
            out[i, j] = total / max(rows * columns, 1)
    return out


def slow_roi_max(
    maps: Tensor, box_px: list[float], size_px: tuple[int, int], bins: int
) -> list[float]:
    """(C, H, W) and one box in image pixels → C maxima."""
    C, H, W = maps.shape
    scale = (W / size_px[0], H / size_px[1]) * 2
    cells = [edge * s for edge, s in zip(box_px, scale, strict=True)]
    return [slow_bins(maps[c].numpy(), cells, bins, aligned=True).max() for c in range(C)]


@pytest.mark.parametrize(("aligned", "first", "last"), [(False, 7.5, 16.5), (True, 4.5, 13.5)])
def test_published_numbers(aligned: bool, first: float, last: float) -> None:
    """A 5×5 ramp, box [1, 1, 3, 3], 4×4 bins, as published for another implementation."""
    image = torch.arange(25.0).view(5, 5)
    slow = slow_bins(image.numpy(), [1, 1, 3, 3], 4, aligned=aligned)
    assert (slow[0, 0], slow[3, 3]) == (first, last)
    box = torch.tensor([[0.0, 1, 1, 3, 3]])
    fast = roi_align(image[None, None], box, 4, aligned=aligned)[0, 0]
    np.testing.assert_allclose(fast.numpy(), slow, atol=1e-6)


def test_roi_max_is_aligned_by_hand() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)
    got = roi_max(image, [torch.tensor([[1.0, 1, 3, 3]])], (5, 5), output_size=4)
    assert got.tolist() == [[13.5]]


def test_roi_max_maps_pixels_to_cells_per_axis() -> None:
    """The same box drawn in a picture ten times wider and four times higher than the map."""
    image = torch.arange(25.0).view(1, 1, 5, 5)
    got = roi_max(image, [torch.tensor([[10.0, 4, 30, 12]])], (50, 20), output_size=4)
    assert got.tolist() == [[13.5]]


@pytest.mark.parametrize("output_size", [1, 3, 7])
def test_roi_max_against_the_slow_reference(output_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 8, 11, generator=generator)
    size_px = (456, 256)
    boxes = []
    for count in (4, 3):
        corner = torch.rand(count, 2, 2, generator=generator) * torch.tensor([456.0, 256.0])
        boxes.append(torch.cat([corner.amin(1), corner.amax(1)], dim=1))
    boxes[0][0] = torch.tensor([0.0, 0.0, 456.0, 256.0])
    got = roi_max(maps, boxes, size_px, output_size=output_size)
    expected = [
        slow_roi_max(maps[i], box.tolist(), size_px, output_size)
        for i in range(2)
        for box in boxes[i]
    ]
    assert got.shape == (7, 3)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_boxes_without_area_give_zeros() -> None:
    maps = torch.full((1, 2, 4, 4), -3.0)
    boxes = torch.tensor([[0.0, 0, 0, 0], [1, 1, 3, 3], [2, 1, 2, 3], [3, 3, 1, 1]])
    got = roi_max(maps, [boxes], (4, 4), sampling_ratio=2)
    assert got.tolist() == [[0, 0], [-3, -3], [0, 0], [0, 0]]


def test_no_boxes_give_no_rows() -> None:
    maps = torch.ones(2, 3, 4, 4)
    got = roi_max(maps, [torch.zeros(0, 4), torch.tensor([[0.0, 0, 4, 4]])], (4, 4))
    assert got.tolist() == [[1, 1, 1]]
    assert roi_max(maps, [torch.zeros(0, 4)] * 2, (4, 4)).shape == (0, 3)


def test_roi_max_passes_gradients() -> None:
    maps = torch.randn(1, 2, 4, 4, requires_grad=True)
    roi_max(maps, [torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])], (4, 4)).sum().backward()
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())
    assert float(maps.grad.abs().sum()) > 0


def test_roi_max_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="got boxes of 1 images, expected 2"):
        roi_max(torch.zeros(2, 1, 4, 4), [torch.zeros(0, 4)], (4, 4))
    with pytest.raises(ValueError, match="got image size 0×4"):
        roi_max(torch.zeros(1, 1, 4, 4), [torch.zeros(0, 4)], (0, 4))


def test_step_times() -> None:
    times = torch.arange(8.0) / 2  # 0, 0.5, … 3.5
    assert step_times(times, 4).tolist() == [0.25, 1.25, 2.25, 3.25]
    assert step_times(times, 8).tolist() == times.tolist()
    # 3 shares of 8 frames: 0-2, 3-4, 5-7
    assert step_times(times, 3).tolist() == [0.5, 1.75, 3.0]
    with pytest.raises(ValueError, match="got 9 map steps for a clip of 8 frames"):
        step_times(times, 9)


MEDIAN: Any = "median"


def ramp_map() -> Tensor:
    """(T=2, H=5, W=5, C=2): a ramp, its negative; the second step 100 larger."""
    ramp = torch.arange(25.0).view(5, 5)
    one = torch.stack([ramp, -ramp], dim=-1)
    return torch.stack([one, one + 100])


BOXES = torch.tensor([[1.0, 1, 3, 3], [0, 0, 0, 0], [1, 1, 3, 3]])


def test_mean_over_time_by_hand() -> None:
    got = align_objects(ramp_map(), BOXES, (5, 5), output_size=4)
    # bins run from 4.5 to 13.5; the mean over time adds 50; the negative ramp's largest is -4.5
    assert got.tolist() == [[63.5, 45.5], [0, 0], [63.5, 45.5]]


def test_max_over_time_by_hand() -> None:
    got = align_objects(ramp_map(), BOXES, (5, 5), time="max", output_size=4)
    assert got.tolist() == [[113.5, 95.5], [0, 0], [113.5, 95.5]]


def test_nearest_step_by_hand() -> None:
    got = align_objects(
        ramp_map(),
        BOXES,
        (5, 5),
        time="nearest",
        # steps stand for 0.5 s and 2.5 s, so the border lies at 1.5 s
        object_times_seconds=torch.tensor([1.6, 0.0, -9.0]),
        clip_times_seconds=torch.tensor([0.0, 1.0, 2.0, 3.0]),
        output_size=4,
    )
    assert got.tolist() == [[113.5, 95.5], [0, 0], [13.5, -4.5]]


def test_equally_near_steps_take_the_earlier() -> None:
    got = align_objects(
        ramp_map(),
        BOXES[:1],
        (5, 5),
        time="nearest",
        object_times_seconds=torch.tensor([1.5]),
        clip_times_seconds=torch.tensor([0.0, 1.0, 2.0, 3.0]),
        output_size=4,
    )
    assert got.tolist() == [[13.5, -4.5]]


@pytest.mark.parametrize("time", ["mean", "max"])
def test_align_objects_against_the_slow_reference(time: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    verb_map = torch.randn(4, 8, 8, 3, generator=generator)
    boxes = torch.tensor([[10.0, 20, 300, 250], [400, 5, 456, 256], [0, 0, 456, 256]])
    got = align_objects(verb_map, boxes, (456, 256), time=time)
    pooled = verb_map.mean(0) if time == "mean" else verb_map.amax(0)
    maps = pooled.permute(2, 0, 1)
    expected = [slow_roi_max(maps, box.tolist(), (456, 256), 7) for box in boxes]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_maps_are_widened() -> None:
    verb_map = ramp_map()
    half = align_objects(verb_map.half(), BOXES, (5, 5), output_size=4)
    assert half.dtype == torch.float32
    assert torch.equal(half, align_objects(verb_map, BOXES, (5, 5), output_size=4))


def test_align_objects_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"expected \(T, H, W, C\) and \(n, 4\)"):
        align_objects(torch.zeros(5, 5, 2), BOXES, (5, 5))
    with pytest.raises(ValueError, match=r"expected \(T, H, W, C\) and \(n, 4\)"):
        align_objects(ramp_map(), BOXES[0], (5, 5))
    with pytest.raises(ValueError, match="got time='median'"):
        align_objects(ramp_map(), BOXES, (5, 5), time=MEDIAN)
    with pytest.raises(ValueError, match="needs object_times_seconds and clip_times_seconds"):
        align_objects(ramp_map(), BOXES, (5, 5), time="nearest")
    with pytest.raises(ValueError, match=r"got object times of shape \(2,\), expected \(3,\)"):
        align_objects(
            ramp_map(),
            BOXES,
            (5, 5),
            time="nearest",
            object_times_seconds=torch.zeros(2),
            clip_times_seconds=torch.arange(4.0),
        )


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("time", ["mean", "nearest"])
def test_cuda_agrees_with_the_cpu(time: Any) -> None:
    verb_map = torch.randn(4, 8, 8, 16)
    boxes = torch.tensor([[10.0, 20, 300, 250], [0, 0, 0, 0], [400, 5, 456, 256]])
    times: dict[str, Any] = {
        "object_times_seconds": torch.tensor([0.1, 1.0, 2.9]),
        "clip_times_seconds": torch.arange(64) / 20,
    }
    cpu = align_objects(verb_map, boxes, (456, 256), time=time, **times)
    cuda = align_objects(
        verb_map.cuda(),
        boxes,
        (456, 256),
        time=time,
        **times,
    )
    torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-4, atol=1e-5)
