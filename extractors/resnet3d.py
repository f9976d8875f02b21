"""3-D residual networks of Hara et al., in the parameter layout of the published checkpoints.

"Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018,
https://arxiv.org/abs/1711.09577. A 2-D ResNet with every kernel inflated to three axes; the stem
keeps all frames, the later strides halve time and space alike: 16 frames and 32 pixels a cell.

Covered are shortcuts with a projection (type B of the paper). The 2018 checkpoints of depth 18 and
34 have parameter-free shortcuts (type A) and do not fit; the 2020 ones of all depths do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from extractors.base import Preprocessing
from extractors.clip_network import ClipNetwork, Network3D
from extractors.geometry import Geometry

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_BOTTLENECK_FROM_DEPTH = 50

# The authors changed the input scaling between their two releases, and a checkpoint gives poor
# features under the other's: 2018 (Kinetics-400) subtracts ActivityNet's mean from values 0..255
# and divides by nothing; 2020 (Kinetics-700 and merged sets) standardises values 0..1.
PREPROCESSING = {
    "kinetics_2020": Preprocessing(
        mean=(0.4345, 0.4051, 0.3775),
        std=(0.2768, 0.2713, 0.2737),
        source="3D-ResNets-PyTorch, defaults of the 2020 release (r3d*_200ep.pth)",
        geometry=Geometry(112, 112),
    ),
    "activitynet_2018": Preprocessing(
        mean=(114.7748 / 255, 107.7354 / 255, 99.4750 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        source="3D-ResNets-PyTorch, defaults of the CVPR 2018 release (resnet-*-kinetics.pth)",
        geometry=Geometry(112, 112),
    ),
}


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Residual block: convolutions with batch norm, added to a (projected) shortcut.

    Args:
        in_channels: of the input.
        channels: of the inner convolutions.
        stride: of the block, over time and space.
        bottleneck: 1×1×1, 3×3×3, 1×1×1 with 4 × `channels` at the end, instead of two 3×3×3.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        out_channels = channels * 4 if bottleneck else channels
        self.conv1 = _conv(in_channels, channels, *((1, 1) if bottleneck else (3, stride)))
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = _conv(channels, channels, 3, stride if bottleneck else 1)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = _conv(channels, out_channels, 1) if bottleneck else None
        self.bn3 = nn.BatchNorm3d(out_channels) if bottleneck else None
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(in_channels, out_channels, 1, stride), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        if self.conv3 is not None and self.bn3 is not None:
            out = self.bn3(self.conv3(out.relu_()))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (out + shortcut).relu_()


class ResNet3D(Network3D):
    """ResNet-3D of one depth.

    Args:
        depth: 10, 18, 34, 50, 101, 152 or 200.
        width: channels of the first stage; 64 is the published network.
        in_channels: 3 for RGB.
        num_classes: rows of the classifier; None leaves it out.

    Raises:
        ValueError: if the depth is unknown or a number is not positive.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        width: int = 64,
        in_channels: int = 3,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        _check_size(depth, width)
        if min(in_channels, 1 if num_classes is None else num_classes) < 1:
            raise ValueError(
                f"got in_channels={in_channels}, num_classes={num_classes}, expected 1 or more"
            )
        bottleneck = depth >= _BOTTLENECK_FROM_DEPTH
        expansion = 4 if bottleneck else 1
        self.channels = width * 8 * expansion
        self.conv1 = nn.Conv3d(
            in_channels, width, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        previous = width
        for stage, blocks in enumerate(BLOCKS[depth]):
            channels = width * 2**stage
            layers = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Block(previous, channels, stride, bottleneck=bottleneck))
                previous = channels * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self._initialise()
        # Last, so that a seed gives the same features with and without a classifier.
        self.fc = None if num_classes is None else nn.Linear(self.channels, num_classes)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C): one cell for every 16 frames and 32 pixels, begun ones included."""
        return -(-frames // 16), -(-size_px // 32), -(-size_px // 32), self.channels

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) normalised → (B, C, ⌈T/16⌉, ⌈H/32⌉, ⌈W/32⌉), never negative."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu_())
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def _check_size(depth: int, width: int) -> None:
    if depth not in BLOCKS:
        raise ValueError(f"got depth {depth}, expected one of {', '.join(map(str, BLOCKS))}")
    if width < 1:
        raise ValueError(f"got width {width}, expected 1 or more")


@dataclass(frozen=True)
class ResNet3DOptions:
    """Architecture options in a configuration.

    Attributes:
        depth, width: as in `ResNet3D`.
        num_classes: rows of the checkpoint's classifier; only logits need it. 400 for Kinetics-400,
            700 for Kinetics-700 (K), 1039 and more for merged sets (KM, KS, KMS).
        preprocessing: a name of `PREPROCESSING`.
    """

    depth: int = 50
    width: int = 64
    num_classes: int = 400
    preprocessing: str = "kinetics_2020"

    def __post_init__(self) -> None:
        _check_size(self.depth, self.width)
        if self.num_classes < 1:
            raise ValueError(f"got num_classes {self.num_classes}, expected 1 or more")
        if self.preprocessing not in PREPROCESSING:
            raise ValueError(
                f"got preprocessing {self.preprocessing!r}, "
                f"expected one of {', '.join(PREPROCESSING)}"
            )


class ResNet3DExtractor(ClipNetwork):
    """ResNet-3D as a clip extractor; at 64 frames of 256 px, depth 50: a map of 4×8×8×2048."""

    name = "resnet3d"
    VERSION = 1
    Options: ClassVar[type[ResNet3DOptions]] = ResNet3DOptions
    alternatives: ClassVar[dict[str, Any]] = {"depth": tuple(BLOCKS)}

    @classmethod
    def build(cls, options: ResNet3DOptions, num_classes: int | None) -> ResNet3D:
        return ResNet3D(options.depth, width=options.width, num_classes=num_classes)

    @classmethod
    def preprocessing(cls, options: ResNet3DOptions) -> Preprocessing:
        return PREPROCESSING[options.preprocessing]
