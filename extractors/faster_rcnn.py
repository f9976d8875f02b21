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

from extractors.base import (
    FrameExtractor,
    GivenBoxes,
    Preprocessing,
    check_frames,
    object_outputs,
    pack_objects,
)
from extractors.inference import float32_inference, resolve_device, to_array, to_tensor
from extractors.weights import create_network

BUILDERS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
FEATURES = ("roi_max", "box_head")

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
        for name, value, allowed in (
            ("builder", self.builder, BUILDERS),
            ("features", self.features, FEATURES),
        ):
            if value not in allowed:
                raise ValueError(f"got {name} {value!r}, expected one of {', '.join(allowed)}")
        if self.num_classes < 2:
            raise ValueError(f"got num_classes={self.num_classes}, expected background and a class")
        if not (0 <= self.score_threshold <= 1 and 0 <= self.nms_threshold <= 1):
            raise ValueError(
                f"got score_threshold={self.score_threshold}, nms_threshold={self.nms_threshold}, "
                "expected numbers from 0 to 1"
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


class FasterRCNNExtractor(FrameExtractor):
    """Faster R-CNN as a frame extractor. Classes are the detector's label ids, 0 = background.

    Frames run one at a time: torchvision pads the frames of a batch to a common size, and the
    padding would change the features of the smaller ones.
    """

    name = "faster_rcnn"
    VERSION = 1
    Options: ClassVar[type[FasterRCNNOptions]] = FasterRCNNOptions
    needs_boxes = False

    def __init__(
        self,
        options: FasterRCNNOptions,
        *,
        weights: str | Path | None,
        seed: int | None,
        top_k: int,
        dtype: str = "float16",
        device: str = "cpu",
    ) -> None:
        self.device = resolve_device(device)
        detector = create_network(
            lambda: build_detector(options, top_k), weights=weights, seed=seed, replaceable=()
        )
        self.detector: Any = detector.to(self.device).eval()
        self.top_k = top_k
        self._options = options
        self._dtype = dtype
        self.outputs = object_outputs(top_k, self._channels(), dtype)

    @classmethod
    def preprocessing(cls, options: FasterRCNNOptions) -> Preprocessing:
        return _IMAGENET

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], boxes: Sequence[GivenBoxes] | None = None
    ) -> dict[str, NDArray[Any]]:
        check_frames(frames, boxes, needs_boxes=self.needs_boxes)
        with float32_inference():
            rows = [self._detect(frame) for frame in frames]
        return {name: np.stack([row[name] for row in rows]) for name in self.outputs}

    def _channels(self) -> int:
        if self._options.features == "roi_max":
            return int(self.detector.backbone.out_channels)
        return int(self.detector.roi_heads.box_predictor.cls_score.in_features)

    def _detect(self, frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        image = to_tensor(frame).to(self.device).permute(2, 0, 1).float() / 255
        images, _ = self.detector.transform([image])
        maps = self.detector.backbone(images.tensors)
        proposals, _ = self.detector.rpn(images, maps)
        # The pooling layer remembers the scales of the first frame it ever sees.
        self.detector.roi_heads.box_roi_pool.scales = None
        detections, _ = self.detector.roi_heads(maps, proposals, images.image_sizes)
        features = self._features(maps, detections[0]["boxes"], images.image_sizes)
        size = [tuple(image.shape[-2:])]
        found = self.detector.transform.postprocess(detections, images.image_sizes, size)[0]
        native = GivenBoxes(
            clip_to_frame(found["boxes"].cpu().numpy(), frame),
            found["scores"].cpu().numpy(),
            found["labels"].cpu().numpy().astype(np.int32),
        )
        return pack_objects(to_array(features, self._dtype), native, frame, self.top_k)

    def _features(
        self, maps: dict[str, Tensor], boxes: Tensor, image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """(n, C1) at boxes (n, 4) of the resized frame."""
        if len(boxes) == 0:
            return torch.zeros(0, self._channels(), device=boxes.device)
        bins = self.detector.roi_heads.box_roi_pool(maps, [boxes], image_sizes)  # (n, C, 7, 7)
        if self._options.features == "roi_max":
            return bins.amax(dim=(2, 3))
        return self.detector.roi_heads.box_head(bins)


def clip_to_frame(
    boxes_xyxy_px: NDArray[np.float32], frame: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Undo the rounding error of the detector's resize at the frame's right and lower edge."""
    height_px, width_px = frame.shape[:2]
    limits = np.array([width_px, height_px, width_px, height_px], dtype=np.float32)
    return np.clip(boxes_xyxy_px, 0, limits)
