"""Faster R-CNN from detectron2: the top K objects of a frame and their RoIAlign features.

The papers' detector is detectron2's kind of network, ResNeXt-101-FPN trained on Visual Genome and
EPIC-KITCHENS. Any config of a generalized R-CNN with standard or C4 heads will do, given weights
that fit it. Frames are prepared as detectron2's predictor does: its own resizing on 8-bit pixels,
the config's order of channels, mean and deviation.

Guesses where the papers are silent:
- an object's feature is RoIAligned at its final box by the detector's own pooling layer, and
  max-pooled over the bins (option `features`).
- thresholds are the config's: score 0.05 and non-maximum suppression at 0.5 unless it says more.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import GivenBoxes, Preprocessing
from extractors.detectron2_config import DetectorConfig, Detectron2Options, load_config
from extractors.objects import ObjectExtractor, clip_to_frame
from extractors.weights import create_network

# Parts that checkpoints may have and the network does not: other tasks, and constants that older
# versions of detectron2 stored.
_SPARE = (
    "roi_heads.mask_head",
    "roi_heads.keypoint_head",
    "proposal_generator.anchor_generator",
    "pixel_mean",
    "pixel_std",
)


class Detectron2Extractor(ObjectExtractor):
    """A detectron2 detector as a frame extractor. Classes count from 0, without background.

    Only frames of one size run as a batch: detectron2 pads the frames of a batch to a common size,
    and the padding would change the features of the smaller ones.
    """

    name = "detectron2"
    VERSION = 1
    Options: ClassVar[type[Detectron2Options]] = Detectron2Options

    def _create(self, weights: str | Path | None, seed: int | None) -> nn.Module:
        self._config = load_config(self.options)
        network: Any = create_network(
            lambda: build_detector(self._config, self.top_k),
            weights=weights,
            seed=seed,
            replaceable=_SPARE,
        )
        if network.proposal_generator is None and not self.needs_boxes:
            raise ValueError(
                f"got {self.options.config}, which finds no boxes of its own; give boxes"
            )
        self._pool = _Pool(network.roi_heads)
        return network

    def _channels(self) -> int:
        if self.options.features == "box_head":
            return self._pool.hidden_channels
        shapes = self.network.backbone.output_shape()
        return int(shapes[self.network.roi_heads.in_features[0]].channels)

    @classmethod
    def preprocessing(cls, options: Detectron2Options) -> Preprocessing:
        config = load_config(options)
        order = slice(None, None, -1 if config.input_format == "BGR" else 1)
        return Preprocessing(
            mean=tuple(value / 255 for value in config.pixel_mean[order]),
            std=tuple(value / 255 for value in config.pixel_std[order]),
            source="the detectron2 config",
        )

    @classmethod
    def settings(cls, options: Any, precision: str = "float32") -> dict[str, Any]:
        """As every extractor's; the config with its content, wherever its files lie."""
        config = load_config(options)
        return {
            **super().settings(options, precision),
            "architecture": {"features": options.features, "config": config.settings},
            "library": f"detectron2 {config.version}",
        }

    def _objects(
        self, frames: Sequence[NDArray[np.uint8]], given: Sequence[GivenBoxes] | None
    ) -> list[tuple[GivenBoxes, Tensor]]:
        images = self.network.preprocess_image([{"image": self._image(f)} for f in frames])
        maps = self._maps(images.tensor)
        if given is None:
            boxes, objects = self._detect(images, maps, frames)
        else:
            objects = list(given)
            boxes = [self._resized_boxes(o, frames[0], images.image_sizes[0]) for o in objects]
        features = self._pool(maps, boxes, hidden=self.options.features == "box_head")
        return list(zip(objects, features.split([len(b) for b in boxes]), strict=True))

    def _image(self, frame: NDArray[np.uint8]) -> Tensor:
        """(3, H, W) float32, resized, in the network's order of channels."""
        from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform

        size = frame.shape[:2]
        limits = self._config.min_size_px, self._config.max_size_px
        if limits[0]:
            resized = ResizeShortestEdge.get_output_shape(*size, *limits)
            frame = ResizeTransform(*size, *resized).apply_image(frame)
        if self._config.input_format == "BGR":
            frame = frame[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32))

    def _resized_boxes(
        self, objects: GivenBoxes, frame: NDArray[np.uint8], size: tuple[int, int]
    ) -> Tensor:
        """Boxes (n, 4) of the native frame in the resized one."""
        y, x = (resized / native for resized, native in zip(size, frame.shape[:2], strict=True))
        boxes = torch.from_numpy(objects.boxes_xyxy_px) * torch.tensor([x, y, x, y])
        return boxes.to(self.device)

    def _detect(
        self, images: Any, maps: dict[str, Tensor], frames: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[Tensor], list[GivenBoxes]]:
        """Boxes (n, 4) in the resized frames, and the objects in the native ones."""
        from detectron2.modeling.postprocessing import detector_postprocess

        proposals, _ = self.network.proposal_generator(images, maps, None)
        found, _ = self.network.roi_heads(images, maps, proposals, None)
        boxes, objects = [], []
        for instances, frame in zip(found, frames, strict=True):
            instances.resized = instances.pred_boxes.tensor.clone()
            native = detector_postprocess(instances, *frame.shape[:2])  # drops empty boxes
            native = native[native.scores.argsort(descending=True, stable=True)[: self.top_k]]
            boxes.append(native.resized)
            objects.append(
                GivenBoxes(
                    clip_to_frame(native.pred_boxes.tensor.cpu().numpy(), frame),
                    native.scores.cpu().numpy(),
                    native.pred_classes.cpu().numpy().astype(np.int32),
                )
            )
        return boxes, objects


def build_detector(config: DetectorConfig, detections: int) -> Any:
    """A detector without weights that keeps at least `detections` of a frame.

    Raises:
        ValueError: if the network cannot be built, such as for parts that are not registered or
            want detectron2's compiled code where there is none, or is no R-CNN that features can
            be taken from.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # detectron2 is older than what it imports
        try:
            detector: Any = config.build()
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(
                f"detectron2 cannot build this config's network: {type(error).__name__}: {error}"
            ) from error
    heads: Any = getattr(detector, "roi_heads", None)
    if not hasattr(heads, "box_pooler") and not hasattr(heads, "res5"):
        raise ValueError(
            f"got a {type(detector).__name__} with {type(heads).__name__}, expected a detectron2 "
            "config of a Faster R-CNN (GeneralizedRCNN with StandardROIHeads or Res5ROIHeads)"
        )
    for predictor in _each(heads.box_predictor):
        if 0 <= predictor.test_topk_per_image < detections:
            predictor.test_topk_per_image = detections
    return detector


class _Pool:
    """The pooling layer and the box head of detectron2's two kinds of heads.

    Standard heads (FPN, C5) pool and then run a box head; of a cascade, the last. C4 heads run the
    backbone's fifth stage on the bins and classify from its mean.
    """

    def __init__(self, heads: Any) -> None:
        self._heads = heads
        self._is_c4 = hasattr(heads, "res5")
        self.hidden_channels = int(_each(heads.box_predictor)[-1].cls_score.in_features)

    def __call__(self, maps: dict[str, Tensor], boxes: list[Tensor], *, hidden: bool) -> Tensor:
        """(sum of n, C1) at boxes (n, 4) of the resized frames."""
        from detectron2.structures import Boxes

        pooler = self._heads.pooler if self._is_c4 else self._heads.box_pooler
        levels = [maps[name] for name in self._heads.in_features]
        bins = pooler(levels, [Boxes(of_frame) for of_frame in boxes])  # (n, C, bins, bins)
        if not hidden:
            return bins.amax(dim=(2, 3))
        if self._is_c4:
            return self._heads.res5(bins).mean(dim=(2, 3))
        return _each(self._heads.box_head)[-1](bins).flatten(1)


def _each(modules: Any) -> list[Any]:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]
