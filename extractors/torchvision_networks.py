"""torchvision's video classification models as 3-D networks, under their own parameter names.

The networks are torchvision's own modules, run as its `forward` runs them.

Guesses where torchvision leaves something open:
- the map of MViT is its tokens after the last norm, laid out on their grid, without the class
  token. MViT classifies from the class token, and that is what its pooled features are here.
- S3D's pooled features are the mean over the windows of 2 × 7 × 7 cells that it classifies.
- random weights are drawn as torchvision draws them, though S3D's signal all but dies out so.
- in training, dropout before the classifier and stochastic depth stay as torchvision has them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from extractors.clip_network import Network3D


class TorchvisionNetwork(Network3D):
    """A torchvision model, its parts under their own names.

    Args:
        model: the model, with a classifier.
        num_classes: rows of the classifier; None removes it.

    Attributes:
        last: name of the part that gives the logits.
        steps, pixels: frames and pixels a side, the least that the network takes.
        fixed: whether it takes no others.
    """

    last: ClassVar[str]
    steps = 1
    pixels = 1
    fixed: ClassVar[bool] = False

    def __init__(self, model: nn.Module, num_classes: int | None) -> None:
        super().__init__()
        for name, part in model.named_children():
            self.add_module(name, part)
        head = self.get_submodule(self.last)
        if num_classes is None:
            setattr(self, self.last, None)
        elif isinstance(head, nn.Sequential):  # after a dropout
            head[-1] = _with_rows(head[-1], num_classes)
        else:
            setattr(self, self.last, _with_rows(head, num_classes))

    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C) for square clips of this size.

        Raises:
            ValueError: if the network does not take this size.
        """
        self.check_size(frames, size_px, size_px)
        return self.cells(frames, size_px)

    @abstractmethod
    def cells(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C) for square clips of a size that fits."""

    def check_size(self, frames: int, height_px: int, width_px: int) -> None:
        """Raise ValueError unless the network takes clips of this size."""
        got, least = (frames, height_px, width_px), (self.steps, self.pixels, self.pixels)
        enough = all(g >= n for g, n in zip(got, least, strict=True))
        if not enough or (self.fixed and got != least):
            raise ValueError(
                f"got clips of {frames} frames of {height_px} x {width_px} px, expected "
                f"{'exactly' if self.fixed else 'at least'} {self.steps} frames of "
                f"{self.pixels} x {self.pixels} px: {type(self).__name__} takes no others"
            )

    def part(self, name: str, x: Tensor) -> Tensor:
        """Run one of torchvision's modules.

        Raises:
            ValueError: if it is the classifier and the network was built without.
        """
        if getattr(self, name) is None:
            raise ValueError("this network has no classifier; build it with num_classes")
        out: Tensor = self.get_submodule(name)(x)
        return out

    def classify(self, maps: Tensor) -> Tensor:
        return self.part(self.last, self.pool_map(maps))


class VideoResNet(TorchvisionNetwork):
    """R3D, MC3 and R(2+1)D of 18 layers."""

    last = "fc"

    def cells(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """One cell for 16 pixels and for as many frames as the strides come to."""
        stride = 1
        for stage in range(1, 5):
            shortcut = self.get_submodule(f"layer{stage}.0").downsample
            if isinstance(shortcut, nn.Sequential) and isinstance(shortcut[0], nn.Conv3d):
                stride *= shortcut[0].stride[0]
        side = -(-size_px // 16)
        return -(-frames // stride), side, side, 512

    def forward_features(self, x: Tensor) -> Tensor:
        for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
            x = self.part(name, x)
        return x


class S3D(TorchvisionNetwork):
    """Separable 3-D Inception. Its windows of 2 × 7 × 7 cells want 14 frames of 224 px."""

    last = "classifier"
    steps = 14
    pixels = 224

    def cells(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """A cell for 8 frames and 32 pixels; all but the last halving count begun ones."""
        side = -(-size_px // 16) // 2
        return -(-frames // 4) // 2, side, side, 1024

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_size(*x.shape[2:])
        return self.part("features", x)

    def pool_map(self, maps: Tensor) -> Tensor:
        return self.part("avgpool", maps).mean(dim=(2, 3, 4))

    def classify(self, maps: Tensor) -> Tensor:
        return self.part("classifier", self.part("avgpool", maps)).mean(dim=(2, 3, 4))


class Swin3D(TorchvisionNetwork):
    """Video Swin transformers, of any size: 2 frames and 32 pixels a cell."""

    last = "head"

    def cells(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """Begun cells count."""
        side = -(-size_px // 32)
        return -(-frames // 2), side, side, _length(self.get_submodule("norm"))

    def forward_features(self, x: Tensor) -> Tensor:
        for name in ("patch_embed", "pos_drop", "features", "norm"):
            x = self.part(name, x)  # (B, T', H', W', C)
        return x.permute(0, 4, 1, 2, 3)


class MViT(TorchvisionNetwork):
    """Multiscale vision transformers; their positions are of one size of clip.

    The class token leaves the network beside the map, so what is made from a pass starts from all
    tokens: `pool_map` and `classify` take those.
    """

    last = "head"
    fixed = True

    def __init__(self, model: nn.Module, num_classes: int | None) -> None:
        super().__init__(model, num_classes)
        positions: Any = self.get_submodule("pos_encoding")
        stride: Any = self.get_submodule("conv_proj").stride
        self._patches = (positions.temporal_size, *positions.spatial_size)
        self.steps, self.pixels = self._patches[0] * stride[0], self._patches[1] * stride[1]
        self._grid = self._patches
        for block in self._blocks():
            if block.attn.pool_q is not None:
                self._grid = tuple(
                    -(-cells // step)
                    for cells, step in zip(self._grid, block.attn.pool_q.pool.stride, strict=True)
                )

    def _blocks(self) -> Any:
        return self.get_submodule("blocks")

    def cells(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        time, rows, columns = self._grid
        return time, rows, columns, _length(self.get_submodule("norm"))

    def forward_hidden(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) → (B, 1 + T'·H'·W', C), the class token first."""
        self.check_size(*x.shape[2:])
        x = self.part("conv_proj", x).flatten(2).transpose(1, 2)
        x = self.part("pos_encoding", x)
        patches = self._patches
        for block in self._blocks():
            x, patches = block(x, patches)
        return self.part("norm", x)

    def hidden_map(self, hidden: Tensor) -> Tensor:
        return hidden[:, 1:].transpose(1, 2).unflatten(2, self._grid)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.hidden_map(self.forward_hidden(x))

    def pool_map(self, maps: Tensor) -> Tensor:
        """(B, 1 + T'·H'·W', C), what `forward_hidden` gives → (B, C), the class token."""
        return maps[:, 0]


def _with_rows(layer: nn.Module, rows: int) -> nn.Module:
    """The classifier, or a new one if that has another number of rows."""
    if isinstance(layer, nn.Conv3d):
        same = layer.out_channels == rows
        return layer if same else nn.Conv3d(layer.in_channels, rows, 1)
    if isinstance(layer, nn.Linear):
        return layer if layer.out_features == rows else nn.Linear(layer.in_features, rows)
    raise TypeError(f"got a classifier that ends in {type(layer).__name__}")


def _length(norm: nn.Module) -> int:
    length: Any = norm.normalized_shape
    return int(length[0])
