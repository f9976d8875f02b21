"""How a whole frame becomes what a network sees: resized, then perhaps cropped.

The papers' second stage resizes the whole frame to a square and crops nothing, so that boxes
anywhere in the frame meet the map. Publishers of checkpoints test with a resize that keeps the
aspect and a crop from the centre; there boxes are first brought into what the crop shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # it loads torch, which sizes do not need
    from extractors.transforms import Pixels

__all__ = ["Geometry", "square"]


@dataclass(frozen=True)
class Geometry:
    """A resize and a crop from the centre.

    Attributes:
        resize_px: (height, width), aspect not kept; or one number, the length of the shorter side,
            aspect kept (the longer side is rounded down, as torchvision does).
        crop_px: side of the square cut out of the middle, or None.
    """

    resize_px: int | tuple[int, int]
    crop_px: int | None = None

    def __post_init__(self) -> None:
        sides = (self.resize_px,) if isinstance(self.resize_px, int) else self.resize_px
        if min(sides) < 1 or not (self.crop_px is None or 1 <= self.crop_px <= min(sides)):
            raise ValueError(
                f"got resize_px {self.resize_px} and crop_px {self.crop_px}, expected sides of 1 "
                "or more and a crop no larger"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the pixels, for cache keys."""
        from extractors.transforms import RESIZE

        return {"resize_px": self.resize_px, "crop_px": self.crop_px, "method": RESIZE}

    def scaled_size_px(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width between the resize and the crop of a frame of this size."""
        if not isinstance(self.resize_px, int):
            return self.resize_px
        short, long = sorted((height_px, width_px))
        longer = int(self.resize_px * long / short)
        return (self.resize_px, longer) if height_px <= width_px else (longer, self.resize_px)

    def apply(self, frame: Pixels) -> Pixels:
        """Resize and crop a frame.

        Args:
            frame: (H, W, C) uint8; C is 3 for RGB, 2 for flow. Flow may also be float32.

        Returns:
            (H', W', C) of the same dtype, contiguous.
        """
        from extractors.transforms import resize_frame

        scaled = resize_frame(frame, self.scaled_size_px(*frame.shape[:2]))
        if self.crop_px is None:
            return scaled
        top, left = self._corner(*scaled.shape[:2])
        return np.ascontiguousarray(
            scaled[top : top + self.crop_px, left : left + self.crop_px]  # (crop, crop, C)
        )

    def region_xyxy_px(self, height_px: int, width_px: int) -> tuple[float, float, float, float]:
        """The part of a frame of this size that is seen: left, top, right, bottom in its pixels."""
        if self.crop_px is None:
            return 0.0, 0.0, float(width_px), float(height_px)
        height, width = self.scaled_size_px(height_px, width_px)
        top, left = self._corner(height, width)
        x, y = width_px / width, height_px / height
        return left * x, top * y, (left + self.crop_px) * x, (top + self.crop_px) * y

    def _corner(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Top and left of the crop, rounded as torchvision's CenterCrop does."""
        crop = self.crop_px or 0
        return round((height_px - crop) / 2), round((width_px - crop) / 2)


def square(size_px: int) -> Geometry:
    """The papers' second stage: the whole frame, resized to a square."""
    return Geometry((size_px, size_px))
