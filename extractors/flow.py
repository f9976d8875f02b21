"""Optical flow between frames: one interface for every method, and the code of flow images.

The official flow images of EPIC-KITCHENS are TV-L1 flow, clipped to a bound and written as 8 bits,
one grey image a direction; networks such as I3D take flow divided by the bound. Facts about the
official images, measured on P01_01 by warping frames with them (a mean error of 0.17 grey levels,
0.31 for the next best reading), which agree with the settings their authors name (stride 2,
dilation 3, bound 25):

- image j of a 60-fps video is the flow from RGB frame 2j − 5 to 2j + 1, a tenth of a second; the
  first three are shorter: frame 1 to 3, 2 to 5 and 3 to 7.
- a value v stands for v / 255 · 50 − 25 pixels of 456×256 frames. I3D's own flow has a bound of 20.

Guesses where the papers, which say "optical flow" and no more, are silent:
- the network sees v / 255 · 2 − 1, whatever the bound.
- flow is computed on frames whose shorter side is 256 px with their aspect kept (the longer side
  rounded down), as the official images are.
- the field is then resized as any frame is, and its values are not scaled along: a motion of 4 px
  in a 456×256 image stays 4 in the 256×256 one, as happens to official images. Bilinear and
  antialiased in float32, clipped before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from extractors.transforms import FLOW_BOUND_PX

__all__ = ["OFFICIAL_BOUND_PX", "FlowEstimator", "decode_flow", "encode_flow"]

OFFICIAL_BOUND_PX = 25.0  # of EPIC's flow images

Frames = Sequence[NDArray[np.uint8]]


class FlowEstimator(ABC):
    """Flow from each of some frames to its partner.

    Args:
        bound_px: flow is clipped to ±this.

    Attributes:
        name: the registered name.
        VERSION: raised by hand whenever the same settings give other numbers.
        Options: frozen dataclass of the method's options with their defaults.
        needs_weights: whether it is a network.

    Raises:
        ValueError: a bound that is not above 0.
    """

    name: ClassVar[str]
    VERSION: ClassVar[int]
    Options: ClassVar[type[Any]]
    needs_weights: ClassVar[bool]

    def __init__(self, *, bound_px: float = FLOW_BOUND_PX) -> None:
        if not 0 < bound_px < float("inf"):
            raise ValueError(f"got bound_px {bound_px}, expected a number above 0")
        self.bound_px = bound_px

    @classmethod
    @abstractmethod
    def library(cls) -> str:
        """Name and version of what computes the flow.

        Raises:
            ValueError: it is not installed; says how to install it.
        """

    @classmethod
    def settings(cls, options: Any, *, bound_px: float, precision: str) -> dict[str, Any]:
        """Everything but weights and frames that decides the numbers, as plain JSON values."""
        return {
            "method": cls.name,
            "version": cls.VERSION,
            "options": asdict(options),
            "bound_px": bound_px,
            "precision": precision if cls.needs_weights else "float32",
            "library": cls.library(),
        }

    def __call__(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
        """Flow of each pair; a pair's flow does not depend on the others.

        Args:
            first: n frames (H, W, 3) uint8 RGB; sizes may differ between pairs.
            second: their n partners, of the same sizes.

        Returns:
            n fields (H, W, 2) float32: by how many pixels what is at a place in the first frame has
            moved right and down in the second, clipped to the bound.

        Raises:
            ValueError: frames that are no frames, or partners of another number or size.
            OverflowError: flow that is not finite.
        """
        _check_pairs(first, second)
        fields = self._estimate(first, second)
        for field in fields:
            if not np.isfinite(field).all():
                raise OverflowError(
                    f"got flow of {self.name} that is not finite; check its weights and precision"
                )
        return [np.clip(field, -self.bound_px, self.bound_px) for field in fields]

    @abstractmethod
    def _estimate(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
        """`__call__` before clipping; the pairs are checked."""


def encode_flow(pixels: NDArray[np.floating[Any]], bound_px: float) -> NDArray[np.uint8]:
    """Flow as 8 bits: −bound is 0 and bound is 255; what lies outside is clipped.

    Args:
        pixels: any shape.
        bound_px: above 0.
    """
    scaled = (np.asarray(pixels, dtype=np.float64) / bound_px + 1) * (255 / 2)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def decode_flow(values: NDArray[np.uint8], bound_px: float) -> NDArray[np.float32]:
    """Pixels of flow in 8 bits: v / 255 · 2 · bound − bound, wrong by at most bound / 255."""
    return (values.astype(np.float64) * (2 * bound_px / 255) - bound_px).astype(np.float32)


def _check_pairs(first: Frames, second: Frames) -> None:
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} first and {len(second)} second frames, expected pairs")
    for position, (a, b) in enumerate(zip(first, second, strict=True)):
        for frame in (a, b):
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
                raise ValueError(
                    f"got a frame of shape {frame.shape} and dtype {frame.dtype} in pair "
                    f"{position}, expected (H, W, 3) uint8"
                )
        if a.shape != b.shape:
            raise ValueError(
                f"got frames of shapes {a.shape} and {b.shape} in pair {position}, expected one"
            )
