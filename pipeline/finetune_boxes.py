"""Stage one for the 2-D network behind given boxes: classify the boxes of training frames.

Boxes carry class ids (``noun_class``); the frames are spread evenly over each video's boxed times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extractors.base import GivenBoxes
from extractors.given_boxes import BoxClassifier, GivenBoxesExtractor
from extractors.objects import select_boxes
from extractors.registry import parse_options
from extractors.weights import create_network
from pipeline.boxes import BoxTable
from pipeline.config_data import VideosConfig
from pipeline.config_stages import ObjectsConfig
from pipeline.config_training import BoxFinetuneConfig
from pipeline.errors import AnnotationError, ConfigError
from pipeline.finetune import Batch
from pipeline.promises import check_length
from pipeline.segments import Dataset, Segment
from pipeline.videos import Video, locate_video

__all__ = ["BoxTask", "create_box_network"]

MIB = 2**20


def create_box_network(
    stage: ObjectsConfig, settings: BoxFinetuneConfig, num_classes: int
) -> BoxClassifier:
    """The stage's 2-D network with a classifier, and the weights training starts from.

    Raises:
        ConfigError: not a given-boxes stage, or an option or the checkpoint does not fit.
    """
    if stage.detector.name != GivenBoxesExtractor.name:
        raise ConfigError(
            f"finetune.objects: got detector {stage.detector.name}, expected given_boxes; train "
            "a detector with its own tools and give its checkpoint as stages.objects.weights"
        )
    try:
        options = parse_options(GivenBoxesExtractor, stage.detector.options)
        return create_network(
            lambda: BoxClassifier(options, num_classes),
            weights=settings.checkpoint,
            seed=settings.weights_seed,
        )
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"finetune.objects, stages.objects.detector: {error}") from error


class BoxTask:
    """Batches of whole frames with their boxes; labels are those of the boxes, concatenated.

    Raises:
        ConfigError: no boxed training frames, or frames that exceed the memory cap.
        AnnotationError: a box class out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        videos: VideosConfig,
        boxes: BoxTable,
        settings: BoxFinetuneConfig,
    ) -> None:
        self._settings = settings
        self._num_classes = len(dataset.noun_names)
        self._budget = settings.cache_mib * MIB
        self._boxes, self._videos = boxes, videos
        self._train = self._load(dataset, dataset.split("train"))
        if not self._train:
            raise ConfigError(f"{boxes.path}: no boxes in any training video")
        self._val = self._load(dataset, dataset.split("val"))

    def train_batches(self, epoch: int) -> Iterable[Batch]:
        """Frames in a new random order."""
        generator = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._train), generator=generator).tolist()
        return self._batches([self._train[i] for i in order])

    def validation_batches(self) -> Iterable[Batch] | None:
        """Frames of the validation videos."""
        return self._batches(self._val) if self._val else None

    def logits(self, network: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
        """(frames, boxes) → (boxes of all frames, classes)."""
        logits: Tensor = network(*arguments)
        return logits

    def _batches(self, frames: Sequence[tuple[Tensor, GivenBoxes]]) -> Iterator[Batch]:
        for start in range(0, len(frames), self._settings.batch_size):
            chosen = frames[start : start + self._settings.batch_size]
            images = [image for image, _ in chosen]
            boxes = [torch.from_numpy(given.boxes_xyxy_px) for _, given in chosen]
            labels = np.concatenate([given.classes for _, given in chosen])
            yield (images, boxes), torch.from_numpy(labels.astype(np.int64))

    def _load(
        self, dataset: Dataset, segments: Sequence[Segment]
    ) -> list[tuple[Tensor, GivenBoxes]]:
        found: list[tuple[Tensor, GivenBoxes]] = []
        located = {
            segment.video_id: locate_video(segment, self._videos, dataset.promised_seconds)
            for segment in segments
        }
        for video in located.values():
            found += self._load_video(video)
        return found

    def _load_video(self, video: Video) -> list[tuple[Tensor, GivenBoxes]]:
        times = self._boxes.times_us(video.video_id)
        if not len(times):
            return []
        spread = np.linspace(0, len(times) - 1, min(len(times), self._settings.frames_per_video))
        chosen = times[np.unique(spread.round().astype(np.int64))]
        with video.open() as reader:
            check_length(video, reader)
            indices, outside = reader.index_at(chosen / 1e6)
            # Boxes after the last frame have no picture to be learnt from.
            indices, chosen = indices[~outside], chosen[~outside]
            frames = {
                index: torch.from_numpy(frame) for index, frame in reader.frames(np.unique(indices))
            }
        self._budget -= sum(frame.numel() for frame in frames.values())
        if self._budget < 0:
            raise ConfigError(
                "finetune.objects: the frames exceed cache_mib "
                f"{self._settings.cache_mib:,}; lower frames_per_video or raise cache_mib"
            )
        pairs = zip(indices, chosen, strict=True)
        return [
            (frames[int(index)], self._checked(video, int(time), frames[int(index)]))
            for index, time in pairs
        ]

    def _checked(self, video: Video, time_us: int, frame: Tensor) -> GivenBoxes:
        given = self._boxes.at(video.video_id, time_us)
        wrong = given.classes[(given.classes < 0) | (given.classes >= self._num_classes)]
        if len(wrong):
            raise AnnotationError(
                f"{self._boxes.path}: got noun_class {wrong[0]} in video {video.video_id} at "
                f"{time_us / 1e6:g} s, expected 0 to {self._num_classes - 1}"
            )
        return select_boxes(given, frame.numpy(), len(given.scores), label=given.source)
