"""Stage one for VerbNet and NounNet: clips of segments, cross-entropy on one label.

Frames are first resized to the upper end of the scale range, squared as in extraction, so that
training and testing see the same aspect; a random scale and crop follow. That the papers' "side" is
that of a square is a guess, and so is one scale and crop per clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from extractors.base import Preprocessing
from extractors.clip_network import Network3D
from extractors.geometry import square
from extractors.registry import CLIP_EXTRACTORS, parse_options
from extractors.transforms import center_crop, normalize_clip, random_scale_crop
from extractors.video import VideoError
from extractors.weights import create_network
from pipeline.clips import Clip, clip_times_us, make_clips, training_clip
from pipeline.config_data import VideosConfig
from pipeline.config_stages import ClipConfig, ClipStageConfig
from pipeline.config_training import ClipFinetuneConfig
from pipeline.decode_pass import FrameRequest, decode_all
from pipeline.errors import ConfigError
from pipeline.finetune import Batch
from pipeline.promises import check_length, check_segment
from pipeline.rows import VideoRow
from pipeline.segments import Dataset as Segments
from pipeline.segments import Segment
from pipeline.videos import Video, locate_video

__all__ = ["ClipTask", "create_clip_network"]

MIB = 2**20
Target = Literal["verb", "noun"]


def create_clip_network(
    stage: ClipStageConfig, settings: ClipFinetuneConfig, num_classes: int, name: str
) -> tuple[Network3D, Preprocessing]:
    """The stage's network with a new classifier, and the normalisation of its pixels.

    Raises:
        ConfigError: an option or the checkpoint training starts from does not fit, or the network
            is one over flow.
    """
    if stage.flow is not None:
        raise ConfigError(
            f"stages.{name}.flow: got method {stage.flow.method}, expected none: networks over "
            "optical flow are not trained here; give their checkpoint as weights"
        )
    try:
        extractor: Any = CLIP_EXTRACTORS.resolve(stage.network.name)
        options = parse_options(extractor, stage.network.options)
        network = create_network(
            lambda: extractor.build(options, num_classes),
            weights=settings.checkpoint,
            seed=settings.weights_seed,
            replaceable=extractor.replaceable,
        )
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"finetune.{name}, stages.{name}.network: {error}") from error
    return network, extractor.preprocessing(options)


@dataclass(frozen=True)
class _Look:
    """How clips are taken from videos."""

    clip: ClipConfig
    side_px: int


class _ClipDataset(Dataset[Tensor | VideoError]):
    """One decoded clip per item: (T, side, side, 3) uint8. Runs in worker processes.

    An error travels as a value: a loader would bury it under a worker's traceback.
    """

    def __init__(self, clips: Sequence[Clip], videos: dict[str, Video], look: _Look) -> None:
        self._clips, self._videos, self._look = clips, videos, look

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Tensor | VideoError:
        clip = self._clips[index]
        try:
            return _decode(self._videos[clip.segment.video_id], [clip], self._look)[0]
        except VideoError as error:
            return error


class ClipTask:
    """Batches of augmented training clips and centre-cropped validation clips.

    Args:
        dataset: the segments.
        videos: where their videos are.
        stage: clip sampling.
        settings: of the training.
        target: which label.
        pixels: the network's normalisation.

    Raises:
        ConfigError: no training segments, or cached clips that exceed the memory cap.
    """

    def __init__(
        self,
        dataset: Segments,
        videos: VideosConfig,
        stage: ClipStageConfig,
        settings: ClipFinetuneConfig,
        target: Target,
        pixels: Preprocessing,
    ) -> None:
        self._settings, self._target, self._pixels = settings, target, pixels
        self._train, self._val = dataset.split("train"), dataset.split("val")
        if not self._train:
            raise ConfigError("finetune: split 'train' has no segments")
        self._videos = {
            segment.video_id: locate_video(segment, videos, dataset.promised_seconds)
            for segment in (*self._train, *self._val)
        }
        self._train_look = _Look(stage.clip, settings.scale_range_px[1])
        self._test_look = _Look(stage.clip, settings.test_resize_px)
        self._cached: list[list[Tensor]] | None = None
        self._cached_val: list[Tensor] | None = None
        if settings.cached_views:
            self._check_cache(stage.clip.frames)
        # Before the first epoch, and before workers that inherit what opening a file found out.
        for video in self._videos.values():
            video.open().close()

    def train_batches(self, epoch: int) -> Iterable[Batch]:
        """Shuffled batches of randomly scaled and cropped clips."""
        generator = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._train), generator=generator).tolist()
        size = self._settings.batch_size
        clips = self._train_clips(epoch, order, generator)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            crops = [
                random_scale_crop(
                    next(clips),
                    crop_px=self._settings.crop_px,
                    scale_range_px=self._settings.scale_range_px,
                    generator=generator,
                )
                for _ in chosen
            ]
            yield (torch.stack(crops),), self._labels([self._train[i] for i in chosen])

    def validation_batches(self) -> Iterable[Batch] | None:
        """The centre crop of each validation segment's middle clip."""
        return self._validation() if self._val else None

    def logits(self, network: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
        """(B, T, H, W, 3) uint8 clips → (B, classes)."""
        (clips,) = arguments
        logits: Tensor = network(normalize_clip(clips, self._pixels.mean, self._pixels.std))
        return logits

    def _validation(self) -> Iterator[Batch]:
        size = self._settings.batch_size
        clips = iter(self._val_clips())
        for start in range(0, len(self._val), size):
            chosen = self._val[start : start + size]
            crops = [center_crop(next(clips), self._settings.crop_px) for _ in chosen]
            yield (torch.stack(crops),), self._labels(chosen)

    def _labels(self, segments: Sequence[Segment]) -> Tensor:
        return torch.tensor([getattr(s, f"{self._target}_class") for s in segments])

    def _train_clips(
        self, epoch: int, order: Sequence[int], generator: torch.Generator
    ) -> Iterator[Tensor]:
        """One clip per segment, in the given order."""
        views = self._settings.cached_views
        if views:
            if self._cached is None:
                self._cached = self._decode_all(self._train, views, self._train_look)
            for index in order:
                view = int(torch.randint(views, (), generator=generator))
                yield self._cached[index][view]
            return
        # A view of its own for each epoch: an endless supply of seeded centres.
        clips = [
            training_clip(self._train[index], epoch, seed=self._settings.seed) for index in order
        ]
        yield from self._load(clips, self._train_look)

    def _val_clips(self) -> Iterable[Tensor]:
        if self._settings.cached_views:
            if self._cached_val is None:
                decoded = self._decode_all(self._val, 1, self._test_look)
                self._cached_val = [views[0] for views in decoded]
            return self._cached_val
        clips = make_clips(self._val, train_views=1, seed=self._settings.seed)
        return self._load(clips, self._test_look)

    def _load(self, clips: Sequence[Clip], look: _Look) -> Iterator[Tensor]:
        loader = DataLoader(
            _ClipDataset(clips, self._videos, look),
            batch_size=None,
            num_workers=self._settings.workers,
        )
        for item in loader:
            if isinstance(item, VideoError):
                raise item
            yield item

    def _decode_all(
        self, segments: Sequence[Segment], views: int, look: _Look
    ) -> list[list[Tensor]]:
        """All clips of all segments, one pass per video: [segment][view]."""
        clips = make_clips(segments, train_views=views, seed=self._settings.seed)
        by_video: dict[str, list[Clip]] = {}
        for clip in clips:
            by_video.setdefault(clip.segment.video_id, []).append(clip)
        decoded: dict[str, Tensor] = {}
        for video_id, wanted in by_video.items():
            tensors = _decode(self._videos[video_id], wanted, look)
            decoded.update(zip((clip.clip_id for clip in wanted), tensors, strict=True))
        found: dict[str, list[Tensor]] = {}
        for clip in clips:
            found.setdefault(clip.segment.segment_id, []).append(decoded[clip.clip_id])
        return [found[segment.segment_id] for segment in segments]

    def _check_cache(self, frames: int) -> None:
        settings = self._settings
        clips = len(self._train) * settings.cached_views + len(self._val)
        needed = clips * frames * settings.scale_range_px[1] ** 2 * 3 / MIB
        if needed > settings.cache_mib:
            raise ConfigError(
                f"finetune.{self._target}: {clips:,} cached clips need {needed:,.0f} MiB, more "
                f"than cache_mib {settings.cache_mib:,}; cached_views: 0 decodes anew each epoch"
            )


def _decode(video: Video, clips: Sequence[Clip], look: _Look) -> list[Tensor]:
    """Clips of one video in their order, each (T, side, side, 3) uint8."""
    with video.open() as reader:
        check_length(video, reader)
        for clip in clips:
            check_segment(video, reader, clip.segment.start_seconds, clip.segment.stop_seconds)
        requests = [
            FrameRequest("clip", _row(clip, position, look.clip), square(look.side_px))
            for position, clip in enumerate(clips)
        ]
        frames = {item.row.view: np.stack(item.frames) for item in decode_all(reader, requests)}
    return [torch.from_numpy(frames[position]) for position in range(len(clips))]


def _row(clip: Clip, position: int, sampling: ClipConfig) -> VideoRow:
    segment = clip.segment
    return VideoRow(
        key="",
        video_id=segment.video_id,
        segment_id=segment.segment_id,
        view=position,
        clip_id=clip.clip_id,
        times_us=clip_times_us(clip.centre_us, **sampling.model_dump()),
        needed_from_seconds=segment.start_seconds,
        needed_to_seconds=segment.stop_seconds,
    )
