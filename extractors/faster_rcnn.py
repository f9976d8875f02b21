"""Faster R-CNN from torchvision: the top K objects of a frame and their RoIAlign features.

The papers use the output of the RoIAlign layer as the object's feature. Their detector (ResNeXt-101
FPN, trained on Visual Genome and EPIC-KITCHENS) was never published; here any torchvision builder
and any checkpoint in its layout will do.

Guesses where the papers are silent:
- an object's feature is RoIAligned at its final box, on the level and with the sampling of the
  detector's own pooling layer, and max-pooled over the bins (option `features`).
- a score threshold of 0.05 and non-maximum suppression at 0.5 before the top K are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.transform import resize_boxes

from extractors.base import GivenBoxes, Preprocessing
from extractors.inference import to_tensor
from extractors.objects import (
    FEATURES,
    ObjectExtractor,
    check_choice,
    check_detector_numbers,
    clip_to_frame,
)
from extractors.weights import create_network

BUILDERS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)

_IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), source="torchvision, ImageNet"
)


@dataclass(frozen=True)
class FasterRCNNOptions:
    """Architecture options of the detector.

    Attributes:
        builder: one of `BUILDERS`.
        num_classes: rows of the classifier, background included; must be the checkpoint's.
        features: "roi_max", RoIAlign max-pooled (the papers), or "box_head", the hidden layer the
            detector classifies from.
        score_threshold: detections below it are dropped.
        nms_threshold: overlap above which the weaker of two boxes of a class is dropped.
        min_size_px, max_size_px: limits of the frame the detector resizes to; None takes the
            builder's.
        batch_norm_eps: of every batch norm; torchvision's COCO weights of `fasterrcnn_resnet50_fpn`
            want 0.0, networks trained from other weights 1e-5; None takes the builder's.
    """

    builder: str = "fasterrcnn_resnet50_fpn"
    num_classes: int = 91
    features: str = "roi_max"
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    min_size_px: int | None = None
    max_size_px: int | None = None
    batch_norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("builder", self.builder, BUILDERS)
        check_choice("features", self.features, FEATURES)
        if self.num_classes < 2:
            raise ValueError(f"got num_classes={self.num_classes}, expected background and a class")
        check_detector_numbers(
            self.score_threshold, self.nms_threshold, self.min_size_px, self.max_size_px
        )


def build_detector(options: FasterRCNNOptions, detections: int = 100) -> nn.Module:
    """A torchvision Faster R-CNN without downloaded weights, as such trainable.

    Args:
        options: the architecture.
        detections: how many of the best detections of a frame are kept.
    """
    from torchvision.models import detection

    sizes = {"min_size": options.min_size_px, "max_size": options.max_size_px}
    detector: nn.Module = getattr(detection, options.builder)(
        weights=None,
        weights_backbone=None,
        num_classes=options.num_classes,
        box_score_thresh=float(options.score_threshold),
        box_nms_thresh=float(options.nms_threshold),
        box_detections_per_img=detections,
        **{name: size for name, size in sizes.items() if size is not None},
    )
    if options.batch_norm_eps is not None:
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = float(options.batch_norm_eps)
    return detector


class FasterRCNNExtractor(ObjectExtractor):
    """Faster R-CNN as a frame extractor. Classes are the detector's label ids, 0 = background.

    Only frames of one size run as a batch: torchvision pads the frames of a batch to a common
    size, and the padding would change the features of the smaller ones.
    """

    name = "faster_rcnn"
    VERSION = 1
    Options: ClassVar[type[FasterRCNNOptions]] = FasterRCNNOptions

    def _create(self, weights: str | Path | None, seed: int | None) -> nn.Module:
        return create_network(
            lambda: build_detector(self.options, self.top_k),
            weights=weights,
            seed=seed,
            replaceable=(),
        )

    def _channels(self) -> int:
        if self.options.features == "box_head":
            return int(self.network.roi_heads.box_predictor.cls_score.in_features)
        return int(self.network.backbone.out_channels)

    @classmethod
    def preprocessing(cls, options: FasterRCNNOptions) -> Preprocessing:
        return _IMAGENET

    def _objects(
        self, frames: Sequence[NDArray[np.uint8]], given: Sequence[GivenBoxes] | None
    ) -> list[tuple[GivenBoxes, Tensor]]:
        pixels = [to_tensor(frame).to(self.device).permute(2, 0, 1) / 255 for frame in frames]
        images, _ = self.network.transform(pixels)
        maps = self._maps(images.tensors)
        # The pooling layer remembers the scales of the first frame it ever sees.
        self.network.roi_heads.box_roi_pool.scales = None
        if given is None:
            boxes, objects = self._detect(images, maps, frames)
        else:
            objects = list(given)
            native, resized = frames[0].shape[:2], images.image_sizes[0]
            boxes = [
                resize_boxes(torch.from_numpy(o.boxes_xyxy_px).to(self.device), native, resized)
                for o in objects
            ]
        features = self._features(maps, boxes, images.image_sizes)
        return list(zip(objects, features.split([len(b) for b in boxes]), strict=True))

    def _detect(
        self, images: Any, maps: dict[str, Tensor], frames: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[Tensor], list[GivenBoxes]]:
        """Boxes (n, 4) in the resized frames, and the objects in the native ones."""
        proposals, _ = self.network.rpn(images, maps)
        found, _ = self.network.roi_heads(maps, proposals, images.image_sizes)
        boxes = [detections["boxes"] for detections in found]
        sizes = [frame.shape[:2] for frame in frames]
        found = self.network.transform.postprocess(found, images.image_sizes, sizes)
        # Resizing back may round to a little beyond the right and lower edge.
        return boxes, [
            GivenBoxes(
                clip_to_frame(detections["boxes"].cpu().numpy(), frame),
                detections["scores"].cpu().numpy(),
                detections["labels"].cpu().numpy().astype(np.int32),
            )
            for detections, frame in zip(found, frames, strict=True)
        ]

    def _features(
        self, maps: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """(sum of n, C1) at boxes (n, 4) of the resized frames."""
        hidden = self.options.features == "box_head"
        pooled = self.network.roi_heads.box_roi_pool(maps, boxes, image_sizes)  # (n, C, 7, 7)
        return self.network.roi_heads.box_head(pooled) if hidden else pooled.amax((2, 3))
