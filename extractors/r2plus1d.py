"""R(2+1)D, in the parameter layouts of moabitcoin/ig65m-pytorch and of torchvision.

"A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018,
https://arxiv.org/abs/1711.11248: a residual network whose 3 × 3 × 3 convolutions are each a
1 × 3 × 3 one, batch norm, ReLU and a 3 × 1 × 1 one. The planes between the two are as many as give
the pair the parameters of the whole. The stem keeps all frames, the later strides halve time and
space alike: 8 frames and 16 pixels a cell.

The two layouts differ where a block changes its width. Caffe2, from which the IG-65M weights come,
counts the planes of each convolution from its own channels; torchvision takes the first one's for
both. Their batch norms have another epsilon, too.

Guesses where the sources leave something open:
- running statistics move by 0.1 in training, in Caffe2's words a momentum of 0.9. The port writes
  that 0.9 into PyTorch's batch norms, where it means nearly the opposite. It plays no part in
  features.
- IG-65M's test geometry, which the port leaves to its caller: its own tool resizes the shorter side
  to 128, and its table says 112 × 112.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from extractors.base import Preprocessing
from extractors.clip_network import ClipNetwork, Network3D
from extractors.geometry import Geometry

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BATCH_NORM_EPS = {"ig65m": 1e-3, "torchvision": 1e-5}  # by layout
_STEM_PLANES = 45

_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
PREPROCESSING = {
    "ig65m": Preprocessing(_MEAN, _STD, "ig65m-pytorch, extract", Geometry(128, 112)),
    "torchvision": Preprocessing(
        _MEAN, _STD, "torchvision, R2Plus1D_18_Weights", Geometry((128, 171), 112)
    ),
}


def planes_between(in_channels: int, channels: int) -> int:
    """Planes with which 1×3×3 and 3×1×1 have no more parameters than 3×3×3 (section 3.5)."""
    return in_channels * channels * 27 // (in_channels * 9 + 3 * channels)


class Conv2Plus1D(nn.Sequential):
    """A 1×3×3 convolution, batch norm, ReLU, a 3×1×1 convolution."""

    def __init__(self, in_channels: int, channels: int, between: int, stride: int, eps: float):
        super().__init__(
            nn.Conv3d(in_channels, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(between, eps=eps),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class Block(nn.Module):
    """Two convolutions with batch norm, added to a (projected) shortcut.

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the block, over time and space.
        layout: "ig65m" or "torchvision".
    """

    def __init__(self, in_channels: int, channels: int, stride: int, layout: str) -> None:
        super().__init__()
        eps = _BATCH_NORM_EPS[layout]
        first = planes_between(in_channels, channels)
        second = first if layout == "torchvision" else planes_between(channels, channels)
        self.conv1 = nn.Sequential(
            Conv2Plus1D(in_channels, channels, first, stride, eps),
            nn.BatchNorm3d(channels, eps=eps),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            Conv2Plus1D(channels, channels, second, 1, eps), nn.BatchNorm3d(channels, eps=eps)
        )
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride, bias=False),
                nn.BatchNorm3d(channels, eps=eps),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv2(self.conv1(x)) + shortcut).relu_()


class R2Plus1D(Network3D):
    """R(2+1)D of one depth.

    Args:
        depth: 18 or 34.
        layout: "ig65m" or "torchvision".
        width: channels of the first stage; 64 is the published network.
        num_classes: rows of the classifier; None leaves it out.

    Raises:
        ValueError: if the depth or layout is unknown, or a number is not positive.
    """

    def __init__(
        self,
        depth: int = 34,
        *,
        layout: str = "ig65m",
        width: int = 64,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        _check(depth, layout, width, 1 if num_classes is None else num_classes)
        eps = _BATCH_NORM_EPS[layout]
        between = max(1, _STEM_PLANES * width // 64)
        self.stem = nn.Sequential(
            nn.Conv3d(3, between, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(between, eps=eps),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width, eps=eps),
            nn.ReLU(inplace=True),
        )
        previous = width
        for stage, blocks in enumerate(BLOCKS[depth]):
            layers = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Block(previous, width * 2**stage, stride, layout))
                previous = width * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.channels = previous
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Last, so that a seed gives the same features with and without a classifier.
        self.fc = None if num_classes is None else nn.Linear(self.channels, num_classes)

    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C): one cell for every 8 frames and 16 pixels, begun ones included."""
        return -(-frames // 8), -(-size_px // 16), -(-size_px // 16), self.channels

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised → (B, C, ⌈T/8⌉, ⌈H/16⌉, ⌈W/16⌉), never negative."""
        x = self.stem(x)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def _check(depth: int, layout: str, width: int, num_classes: int) -> None:
    if depth not in BLOCKS:
        raise ValueError(f"got depth {depth}, expected {' or '.join(map(str, BLOCKS))}")
    if layout not in _BATCH_NORM_EPS:
        raise ValueError(f"got layout {layout!r}, expected {' or '.join(_BATCH_NORM_EPS)}")
    if min(width, num_classes) < 1:
        raise ValueError(f"got width {width} and num_classes {num_classes}, expected 1 or more")


@dataclass(frozen=True)
class R2Plus1DOptions:
    """Architecture options in a configuration.

    Attributes:
        depth, layout, width: as in `R2Plus1D`.
        num_classes: rows of the checkpoint's classifier; only logits need it. IG-65M has 359 (32
            frames) or 487 (8 frames), Kinetics 400.
    """

    depth: int = 34
    layout: str = "ig65m"
    width: int = 64
    num_classes: int = 359

    def __post_init__(self) -> None:
        _check(self.depth, self.layout, self.width, self.num_classes)


class R2Plus1DExtractor(ClipNetwork):
    """R(2+1)D as a clip extractor; at 32 frames of 128 px: a map of 4×8×8×512."""

    name = "r2plus1d"
    VERSION = 1
    Options: ClassVar[type[R2Plus1DOptions]] = R2Plus1DOptions
    alternatives: ClassVar[dict[str, Any]] = {
        "depth": tuple(BLOCKS),
        "layout": tuple(PREPROCESSING),
    }

    @classmethod
    def build(cls, options: R2Plus1DOptions, num_classes: int | None) -> R2Plus1D:
        return R2Plus1D(
            options.depth, layout=options.layout, width=options.width, num_classes=num_classes
        )

    @classmethod
    def preprocessing(cls, options: R2Plus1DOptions) -> Preprocessing:
        return PREPROCESSING[options.layout]
