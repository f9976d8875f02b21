"""The clip extractor for any 3-D network: normalise, run the features, store the map.

A network family is a subclass that says how to build its network; all the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import ClipExtractor, OutputSpec, check_dtype
from extractors.inference import float32_inference, resolve_device, to_array
from extractors.transforms import normalize_clip
from extractors.weights import create_network


class Network3D(nn.Module):
    """What a 3-D network offers: its map before pooling, and how large that map is."""

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) float → (B, C, T', H', W')."""

    @abstractmethod
    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C) for square clips of this size."""


class ClipNetwork(ClipExtractor):
    """A 3-D network as a clip extractor.

    Args:
        options: an instance of the class's `Options`.
        weights: checkpoint file, or None with a seed.
        seed: seed of random weights, or None with a file.
        frames: T of the clips.
        size_px: height and width of the clips.
        dtype: of the stored map; the network itself runs in float32.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: if a setting is out of range, or the file does not fit the options.

    Attributes:
        replaceable: the classifier's submodules, which a checkpoint may lack or have otherwise.
    """

    replaceable: ClassVar[tuple[str, ...]] = ("fc",)

    def __init__(
        self,
        options: Any,
        *,
        weights: str | Path | None,
        seed: int | None,
        frames: int,
        size_px: int,
        dtype: str = "float16",
        device: str = "cpu",
    ) -> None:
        if frames < 1 or size_px < 1:
            raise ValueError(f"got {frames} frames of {size_px} px, expected 1 or more of each")
        check_dtype(dtype)
        self.device = resolve_device(device)
        network = create_network(
            lambda: self.build(options, None),
            weights=weights,
            seed=seed,
            replaceable=self.replaceable,
        )
        self.network = network.to(self.device).eval()
        self.frames = frames
        self.size_px = size_px
        self._dtype = dtype
        self._pixels = self.preprocessing(options)
        self.outputs = {
            "map": OutputSpec(
                ("time", "y", "x", "channel"),
                self.network.map_shape(frames, size_px),
                dtype,
                "",
                "space-time map before global pooling",
            )
        }

    @classmethod
    @abstractmethod
    def build(cls, options: Any, num_classes: int | None) -> Network3D:
        """The bare network: without a classifier for None, else with one of `num_classes`."""

    def __call__(self, clips: Tensor) -> dict[str, NDArray[Any]]:
        expected = (self.frames, self.size_px, self.size_px, 3)
        if clips.ndim != 5 or clips.shape[1:] != expected or clips.dtype != torch.uint8:
            raise ValueError(
                f"got clips of shape {tuple(clips.shape)} and dtype {clips.dtype}, "
                f"expected (B, {', '.join(map(str, expected))}) uint8"
            )
        with float32_inference():
            x = normalize_clip(clips.to(self.device), self._pixels.mean, self._pixels.std)
            maps = self.network.forward_features(x)  # (B, C, T', H', W')
            return {"map": to_array(maps.permute(0, 2, 3, 4, 1).contiguous(), self._dtype)}
