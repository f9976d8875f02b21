"""RoIAlign: one feature vector per box from a 2-D or a clip's feature map.

The papers max-pool the RoIAlign bins to one vector per object (SAP, section 3; the map that local
alignment reads is the clip's own, equation 3.2 and section 3.2.2 of the thesis chapter on SAOA).

Guesses where the papers are silent, all arguments with these defaults:
- bins: 7×7, samples per bin adapted to the box (``sampling_ratio=0``), as usual for RoIAlign.
- half-pixel correct sampling (``aligned=True``); torchvision's own default is False.
- how a 2-D box meets the time axis of a clip map: the map is averaged over time first.
- for "nearest": each map step stands for an equal share of the clip's frames, just as each map
  cell stands for an equal share of the picture, and its time is the middle of that share.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import roi_align

TimePooling = Literal["mean", "max", "nearest"]


def roi_max(
    maps: Tensor,
    boxes_xyxy_px: Sequence[Tensor],
    image_size_px: tuple[float, float],
    *,
    output_size: int = 7,
    sampling_ratio: int = 0,
) -> Tensor:
    """RoIAlign and max over the bins.

    Args:
        maps: (B, C, H, W) float; H and W cover the whole image.
        boxes_xyxy_px: B tensors (n, 4), image pixels; boxes without area, such as padding, are
            allowed.
        image_size_px: (width, height) of the images the boxes are drawn in. The map need not have
            the image's aspect ratio.
        output_size: bins per side.
        sampling_ratio: samples per bin and side; 0 adapts it to the box.

    Returns:
        (sum of n, C) in the dtype of `maps`, images one after the other; zeros for boxes without
        area.

    Raises:
        ValueError: if the numbers of maps and boxes disagree, or the image has no area.
    """
    if len(boxes_xyxy_px) != maps.shape[0]:
        raise ValueError(f"got boxes of {len(boxes_xyxy_px)} images, expected {maps.shape[0]}")
    width_px, height_px = image_size_px
    if width_px <= 0 or height_px <= 0:
        raise ValueError(f"got image size {width_px}×{height_px}, expected positive numbers")
    H, W = maps.shape[2:]
    scale = torch.tensor(
        [W / width_px, H / height_px, W / width_px, H / height_px], device=maps.device
    )
    boxes = [b.to(maps.device, torch.float32) for b in boxes_xyxy_px]
    cells = [(b * scale).to(maps.dtype) for b in boxes]
    bins = roi_align(
        maps, cells, output_size, sampling_ratio=sampling_ratio, aligned=True
    )  # (n, C, bins, bins)
    every = torch.cat(boxes)
    has_area = (every[:, 2] > every[:, 0]) & (every[:, 3] > every[:, 1])
    return torch.where(has_area[:, None], bins.amax(dim=(2, 3)), 0.0)


def step_times(clip_times_seconds: Tensor, steps: int) -> Tensor:
    """The time each step of a clip's map stands for.

    Args:
        clip_times_seconds: (F,) times of the clip's frames, ascending.
        steps: T of the map, at most F.

    Returns:
        (T,) mean time of each of T equal shares of the frames (shares differ by one frame where T
        does not divide F).

    Raises:
        ValueError: if there are more steps than frames.
    """
    F = clip_times_seconds.shape[0]
    if not 1 <= steps <= F:
        raise ValueError(f"got {steps} map steps for a clip of {F} frames, expected 1 to {F}")
    edges = [round(step * F / steps) for step in range(steps + 1)]
    return torch.stack([clip_times_seconds[a:b].mean() for a, b in pairwise(edges)])


def align_objects(
    clip_map: Tensor,
    boxes_xyxy_px: Tensor,
    frame_size_px: tuple[float, float],
    *,
    time: TimePooling = "mean",
    object_times_seconds: Tensor | None = None,
    clip_times_seconds: Tensor | None = None,
    output_size: int = 7,
) -> Tensor:
    """Local alignment: a clip map's feature at each object's box (RoIAlign(f_v, l) of eq 3.2).

    Args:
        clip_map: (T, H, W, C) float, covering the whole native frame. Half precision is widened:
            give float32 or float16.
        boxes_xyxy_px: (n, 4) native-frame pixels; zero rows are padding.
        frame_size_px: (width, height) of the native frame.
        time: "mean" or "max" over T before the boxes are applied, or the "nearest" step in time.
        object_times_seconds: (n,) time of each object's frame; only for "nearest".
        clip_times_seconds: (F,) times of the clip's frames; only for "nearest".
        output_size: bins per side.

    Returns:
        (n, C) float32; padded rows are zero.

    Raises:
        ValueError: if a shape is wrong, `time` is unknown, or "nearest" lacks the times.
    """
    if clip_map.ndim != 4 or boxes_xyxy_px.ndim != 2 or boxes_xyxy_px.shape[1] != 4:
        raise ValueError(
            f"got a map of shape {tuple(clip_map.shape)} and boxes of shape "
            f"{tuple(boxes_xyxy_px.shape)}, expected (T, H, W, C) and (n, 4)"
        )
    maps = clip_map.float().permute(0, 3, 1, 2)  # (T, C, H, W)
    if time == "nearest":
        return _align_nearest(
            maps,
            boxes_xyxy_px,
            frame_size_px,
            object_times_seconds,
            clip_times_seconds,
            output_size,
        )
    if time not in ("mean", "max"):
        raise ValueError(f"got time={time!r}, expected 'mean', 'max' or 'nearest'")
    pooled = maps.mean(dim=0) if time == "mean" else maps.amax(dim=0)
    return roi_max(pooled[None], [boxes_xyxy_px], frame_size_px, output_size=output_size)


def _align_nearest(
    maps: Tensor,
    boxes_xyxy_px: Tensor,
    frame_size_px: tuple[float, float],
    object_times_seconds: Tensor | None,
    clip_times_seconds: Tensor | None,
    output_size: int,
) -> Tensor:
    """Each box on the map step nearest in time; the earlier of two equally near."""
    n = boxes_xyxy_px.shape[0]
    if object_times_seconds is None or clip_times_seconds is None:
        raise ValueError("time='nearest' needs object_times_seconds and clip_times_seconds")
    if object_times_seconds.shape != (n,):
        raise ValueError(
            f"got object times of shape {tuple(object_times_seconds.shape)}, expected ({n},)"
        )
    centres = step_times(clip_times_seconds, maps.shape[0])
    distance = (object_times_seconds[:, None] - centres[None, :]).abs()  # (n, T)
    step = distance.argmin(dim=1).to(maps.device)
    of_step = [(step == t).nonzero()[:, 0] for t in range(maps.shape[0])]
    boxes = boxes_xyxy_px.to(maps.device)
    pooled = roi_max(maps, [boxes[i] for i in of_step], frame_size_px, output_size=output_size)
    out = torch.empty_like(pooled)
    out[torch.cat(of_step)] = pooled
    return out
