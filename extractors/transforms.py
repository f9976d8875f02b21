"""Frames and clips made ready for a network: resizing, normalising, cropping for training.

The SAOA papers resize frames to 256×256 without keeping the aspect; in training a
side drawn uniformly from [224, 288] is followed by a random crop of 224. Guesses where the paper
are silent: bilinear interpolation with antialiasing, whole-pixel sides and offsets, one draw per
clip so that all its frames move together, and no mirroring, since they name none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

# How `resize_frame` makes pixels, for cache keys; another word whenever it makes others.
RESIZE = "bilinear antialiased uint8"

# Flow beyond this many pixels is clipped, in the published flow images as in computed flow.
FLOW_BOUND_PX = 20.0

__all__ = [
    "FLOW_BOUND_PX",
    "RESIZE",
    "center_crop",
    "normalize_clip",
    "random_scale_crop",
    "resize_frame",
]


Pixels = TypeVar("Pixels", NDArray[np.uint8], NDArray[np.float32])


def resize_frame(frame: Pixels, size_px: int | tuple[int, int]) -> Pixels:
    """Resize a frame, without keeping its aspect.

    Args:
        frame: (H, W, C) uint8; C is 3 for RGB, 2 for flow. Flow may also be float32.
        size_px: height and width of the result; one number for a square.

    Returns:
        (height, width, C) of the same dtype, contiguous.

    Raises:
        ValueError: for anything else.
    """
    is_flow = frame.ndim == 3 and frame.shape[2] == 2
    if not (is_flow or (frame.ndim == 3 and frame.shape[2] == 3)) or not (
        frame.dtype == np.uint8 or (is_flow and frame.dtype == np.float32)
    ):
        raise ValueError(
            f"got {frame.dtype} {frame.shape}, expected a uint8 frame (H, W, 3), or flow (H, W, 2)"
        )
    size = (size_px, size_px) if isinstance(size_px, int) else size_px
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame)
    pixels = np.ascontiguousarray(frame)
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch shares memory only with arrays that may be written
    return _resize(torch.from_numpy(pixels)[None], size)[0].numpy()


def normalize_clip(
    clips: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Turn stored pixels into what a network takes, on the device where they are.

    Args:
        clips: (B, T, H, W, C) uint8, C = 3 for RGB, 2 for flow; or, for flow only, float32 pixels
            already clipped to ±`FLOW_BOUND_PX`, which stand for 0…1.
        mean: of each of the C channels, for values scaled to 0…1.
        std: of each channel, for values scaled to 0…1.
        memory_format: of the result; `torch.channels_last_3d` keeps the order of the pixels.

    Returns:
        (B, C, T, H, W) float32: (clips / 255 - mean) / std.

    Raises:
        ValueError: for clips of another shape or dtype, or if `std` is not above 0.
    """
    channels = len(mean)
    pixels = clips.dtype == torch.uint8 or (clips.dtype == torch.float32 and channels == 2)
    if clips.ndim != 5 or clips.shape[-1] != channels or not pixels:
        raise ValueError(
            f"got {clips.dtype} {tuple(clips.shape)}, expected uint8 clips "
            f"(B, T, H, W, {channels}); float32 is for flow, with two channels"
        )
    if channels not in (2, 3) or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"got mean {mean} and std {std}, expected three values each for RGB or two for flow, "
            "std above 0"
        )
    steps, zero = (255.0, 0.0) if clips.dtype == torch.uint8 else (2 * FLOW_BOUND_PX, 0.5)
    scale = _per_channel([1 / (steps * s) for s in std], clips.device)
    offset = _per_channel([(zero - m) / s for m, s in zip(mean, std, strict=True)], clips.device)
    channels_first = clips.permute(0, 4, 1, 2, 3)  # (B, C, T, H, W)
    values = channels_first.to(torch.float32, memory_format=memory_format, copy=True)
    # One pass over memory: on a GPU that is all that this costs.
    return torch.addcmul(offset, values, scale, out=values)


def random_scale_crop(
    clip: Tensor,
    *,
    crop_px: int,
    scale_range_px: tuple[int, int],
    generator: torch.Generator,
    flip: bool = False,
) -> Tensor:
    """Scale a clip's shorter side to a random length, keeping the aspect, and crop at random.

    Args:
        clip: (T, H, W, 3) uint8.
        crop_px: side of the square to cut out.
        scale_range_px: least and greatest length of the shorter side, both possible.
        generator: source of all random numbers.
        flip: also mirror every other clip, left to right.

    Returns:
        (T, crop_px, crop_px, 3) uint8, contiguous.
    """
    H, W = _clip_size(clip)
    least, greatest = scale_range_px
    if not 0 < crop_px <= least <= greatest:
        raise ValueError(
            f"got crop_px {crop_px} and scale_range_px {scale_range_px}, "
            "expected crop <= least <= greatest"
        )
    side = _draw(least, greatest, generator)
    shorter = min(H, W)
    height, width = round(H * side / shorter), round(W * side / shorter)
    scaled = clip if (height, width) == (H, W) else _resize(clip, (height, width))
    top = _draw(0, height - crop_px, generator)
    left = _draw(0, width - crop_px, generator)
    cropped = scaled[:, top : top + crop_px, left : left + crop_px]  # (T, crop, crop, 3)
    if flip and _draw(0, 1, generator):
        cropped = cropped.flip(2)
    return cropped.contiguous()


def center_crop(clip: Tensor, crop_px: int) -> Tensor:
    """Cut out the square in the middle.

    Args:
        clip: (T, H, W, 3) uint8, no side shorter than `crop_px`.

    Returns:
        (T, crop_px, crop_px, 3) uint8, contiguous; of an odd margin, the larger half is at the
        bottom or right.
    """
    H, W = _clip_size(clip)
    if not 0 < crop_px <= min(H, W):
        raise ValueError(f"got crop_px {crop_px}, expected 1 to {min(H, W)}; resize the clip first")
    top, left = (H - crop_px) // 2, (W - crop_px) // 2
    return clip[:, top : top + crop_px, left : left + crop_px].contiguous()


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """(1, C, 1, 1, 1) on the device."""
    column = torch.tensor(values).view(1, -1, 1, 1, 1)
    if device.type != "cuda":
        return column
    return column.pin_memory().to(device, non_blocking=True)  # else it would wait for the device


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    channels_first = frames.permute(0, 3, 1, 2)  # (T, 3, H, W)
    resized = interpolate(
        channels_first, size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.permute(0, 2, 3, 1).contiguous()


def _draw(least: int, greatest: int, generator: torch.Generator) -> int:
    """A whole number from `least` to `greatest`, both possible."""
    return int(torch.randint(least, greatest + 1, (), generator=generator))


def _clip_size(clip: Tensor) -> tuple[int, int]:
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8:
        raise ValueError(
            f"got {clip.dtype} {tuple(clip.shape)}, expected a uint8 clip (T, H, W, 3)"
        )
    _, H, W, _ = clip.shape
    return H, W
