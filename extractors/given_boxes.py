"""Object features at boxes from a file: a 2-D ResNet's map, RoIAligned at each box.

For detections somebody else made (boxes published with a data set, hand-drawn ones), and for small
work: a network cut after an early stage is cheap. The 2-D network can be trained on boxes with
class labels as a `BoxClassifier`, whose checkpoint the extractor then loads.

Guesses where the papers are silent (they take features from their detector only):
- frames are resized to a short side of 256 px, the height of the official EPIC-KITCHENS frames.
- the map after the third of four stages (16 pixels a cell), as detectors without a pyramid use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from extractors.base import GivenBoxes, Preprocessing
from extractors.inference import to_tensor
from extractors.objects import ObjectExtractor, check_choice
from extractors.roi import roi_max
from extractors.weights import create_network

LAYERS = ("layer1", "layer2", "layer3", "layer4")
BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101")

_IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), source="torchvision, ImageNet"
)


@dataclass(frozen=True)
class GivenBoxesOptions:
    """Architecture options.

    Attributes:
        backbone: one of `BACKBONES`: torchvision's ResNets by name, and "resnet10", one basic block
            a stage, for small work.
        layer: the stage whose map is used, one of `LAYERS`.
        short_side_px: frames are resized, keeping their shape, to this length of the shorter side.
    """

    backbone: str = "resnet50"
    layer: str = "layer3"
    short_side_px: int = 256

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("layer", self.layer, LAYERS)
        if self.short_side_px < 1:
            raise ValueError(f"got short_side_px={self.short_side_px}, expected 1 or more")

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages up to `layer`."""
        return LAYERS[: LAYERS.index(self.layer) + 1]

    @property
    def replaceable(self) -> tuple[str, ...]:
        """Parts of a checkpoint of the whole ResNet that need not fit the cut network."""
        return ("fc", *LAYERS[len(self.stages) :])


class BoxClassifier(nn.Module):
    """Backbone map → RoIAlign → max over bins → classes, in torchvision's ResNet key layout.

    Resizing and normalisation are part of the network, so that training and extraction cannot
    differ in them.

    Args:
        options: backbone, cut and frame size.
        num_classes: rows of the classifier `fc`; None leaves it out.

    Attributes:
        channels: C of `box_features`.
    """

    def __init__(self, options: GivenBoxesOptions, num_classes: int | None = None) -> None:
        super().__init__()
        whole = _build_resnet(options.backbone)
        self._stages = options.stages
        self._short_side_px = options.short_side_px
        self.conv1, self.bn1, self.maxpool = whole.conv1, whole.bn1, whole.maxpool
        for stage in self._stages:
            self.add_module(stage, getattr(whole, stage))
        expansion = 4 if hasattr(whole.layer1[0], "conv3") else 1
        self.channels = 64 * 2 ** (len(self._stages) - 1) * expansion
        self.fc = None if num_classes is None else nn.Linear(self.channels, num_classes)
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", _column(_IMAGENET.mean), persistent=False)
        self.register_buffer("_std", _column(_IMAGENET.std), persistent=False)

    def box_features(self, frames: Sequence[Tensor], boxes_xyxy_px: Sequence[Tensor]) -> Tensor:
        """One vector per box.

        Args:
            frames: B tensors (H, W, 3) uint8 RGB; frames of one size run as one batch.
            boxes_xyxy_px: B tensors (n, 4), native-frame pixels.

        Returns:
            (sum of n, channels) float, frames one after the other.

        Raises:
            ValueError: if there are not as many boxes as frames.
        """
        if len(frames) != len(boxes_xyxy_px):
            raise ValueError(f"got boxes of {len(boxes_xyxy_px)} frames, expected {len(frames)}")
        of_size: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(frames):
            of_size.setdefault((frame.shape[1], frame.shape[0]), []).append(index)
        per_frame: dict[int, Tensor] = {}
        for size_px, group in of_size.items():
            boxes = [boxes_xyxy_px[i] for i in group]
            pooled = roi_max(self.maps(torch.stack([frames[i] for i in group])), boxes, size_px)
            per_frame.update(zip(group, pooled.split([len(b) for b in boxes]), strict=True))
        return torch.cat([per_frame[i] for i in range(len(frames))])

    def forward(self, frames: Sequence[Tensor], boxes_xyxy_px: Sequence[Tensor]) -> Tensor:
        """As `box_features`, classified: (sum of n, num_classes) logits.

        Raises:
            ValueError: if the network was built without a classifier.
        """
        if self.fc is None:
            raise ValueError("this network has no classifier; build it with num_classes")
        return self.fc(self.box_features(frames, boxes_xyxy_px))

    def maps(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 → (B, C, H', W')."""
        height_px, width_px = frames.shape[1:3]
        scale = self._short_side_px / min(height_px, width_px)
        size = (max(1, round(height_px * scale)), max(1, round(width_px * scale)))
        x = frames.to(self._mean.device).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        if size != (height_px, width_px):
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        x = self.maxpool(self.bn1(self.conv1((x - self._mean) / self._std)).relu_())
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        return x


class GivenBoxesExtractor(ObjectExtractor):
    """A `BoxClassifier` without its classifier as a frame extractor."""

    name = "given_boxes"
    VERSION = 1
    Options: ClassVar[type[GivenBoxesOptions]] = GivenBoxesOptions

    def _create(self, weights: str | Path | None, seed: int | None) -> nn.Module:
        if not self.needs_boxes:
            raise ValueError("got no boxes, expected some: given_boxes finds none of its own")
        return create_network(
            lambda: BoxClassifier(self.options),
            weights=weights,
            seed=seed,
            replaceable=self.options.replaceable,
        )

    def _channels(self) -> int:
        return int(self.network.channels)

    def _backbone_of(self, network: Any) -> Callable[[Tensor], Any]:
        maps: Callable[[Tensor], Any] = network.maps
        return maps

    @classmethod
    def preprocessing(cls, options: GivenBoxesOptions) -> Preprocessing:
        return _IMAGENET

    def _objects(
        self, frames: Sequence[NDArray[np.uint8]], given: Sequence[GivenBoxes] | None
    ) -> list[tuple[GivenBoxes, Tensor]]:
        objects = list(given or ())
        maps = self._maps(torch.stack([to_tensor(frame) for frame in frames]))
        boxes = [torch.from_numpy(found.boxes_xyxy_px) for found in objects]
        height_px, width_px = frames[0].shape[:2]
        features = roi_max(maps, boxes, (width_px, height_px))
        return list(zip(objects, features.split([len(b) for b in boxes]), strict=True))


def _build_resnet(name: str) -> Any:
    from torchvision.models import resnet

    if name == "resnet10":
        return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    return getattr(resnet, name)(weights=None)


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
