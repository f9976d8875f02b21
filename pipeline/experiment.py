"""A config made concrete: segments, clips, videos with their identities, and the stages' keys.

Nothing here decodes a video or builds a network; files are hashed at most once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from extractors.video import reader_identity
from pipeline.boxes import BoxTable
from pipeline.boxes_store import check_boxes, load_boxes
from pipeline.clip_table import ClipTable
from pipeline.clips import Clip, make_clips
from pipeline.config import ExperimentConfig
from pipeline.config_base import WeightedConfig
from pipeline.config_data import FlowVideosConfig, VideosConfig
from pipeline.config_flow import FlowConfig
from pipeline.config_stages import ClipStageConfig, ObjectsConfig
from pipeline.datasets import flow_config, load_dataset, videos_config
from pipeline.errors import AnnotationError, ConfigError
from pipeline.head_check import check_head
from pipeline.identity import MEMO_NAME, IdentityMemo
from pipeline.known import Known
from pipeline.segments import Dataset
from pipeline.stage_flow import flow_source
from pipeline.stages import AlignedStage, ClipStage, ObjectsStage, Stage, VideoStage
from pipeline.videos import Video, absent, locate_flow, locate_video

__all__ = [
    "Experiment",
    "MissingVideo",
    "clips_of",
    "given_boxes",
    "locate",
    "missing_videos",
    "resolve",
    "stage_keys",
]


@dataclass(frozen=True)
class MissingVideo:
    """A video that is not there, or cannot be read as a file, and what hangs on it."""

    video: Video
    reason: str
    count: int
    unit: str = "clips"


@dataclass(frozen=True)
class Experiment:
    """Everything a command needs to know before it touches store or videos.

    ``videos`` and ``identities`` are by source: the video's id, and that of its official flow.
    ``clips`` are those whose video is known; ``missing_videos`` are the others', and flow.
    """

    config: ExperimentConfig
    dataset: Dataset
    videos: dict[str, Video]
    identities: dict[str, str]
    clips: Sequence[Clip]
    missing_videos: Sequence[MissingVideo]
    aligned: AlignedStage
    memo: IdentityMemo
    known: Known

    @cached_property
    def table(self) -> ClipTable:
        """The clips as stages name their rows."""
        return ClipTable(self.clips, self.identities)

    @property
    def video_stages(self) -> dict[str, VideoStage]:
        """The stages that read videos, by name."""
        return {stage.name: stage for stage in self.aligned.upstream}

    @property
    def stages(self) -> dict[str, Stage]:
        """All stages, by name."""
        return {**self.video_stages, self.aligned.name: self.aligned}


def resolve(config: ExperimentConfig, *, rehash: bool = False) -> Experiment:
    """Read labels, find videos, hash what is new, and name the stages.

    Raises:
        AnnotationError: labels or boxes are not valid.
        ConfigError: weights or boxes are absent, or a network does not take its options.
    """
    known = Known(config.store.path)
    check_head(config, known)
    memo = IdentityMemo(config.store.path / MEMO_NAME, rehash=rehash)
    dataset, where = load_dataset(config.data), videos_config(config.data)
    boxes = given_boxes(config.stages.objects)
    # Before hours of hashing: weights that are not there.
    aligned = _stages(config, where, memo, known, boxes)
    clips = clips_of(config, dataset)
    videos = locate(config, dataset)
    check_boxes(boxes, dataset)
    identities, reasons = _identify(videos, memo)
    return Experiment(
        config=config,
        dataset=dataset,
        videos=videos,
        identities=identities,
        clips=[clip for clip in clips if clip.segment.video_id in identities],
        missing_videos=missing_videos(clips, videos, reasons),
        aligned=aligned,
        memo=memo,
        known=known,
    )


def clips_of(config: ExperimentConfig, dataset: Dataset) -> list[Clip]:
    """Every moment to look at, of videos that are missing as well."""
    views = config.views
    return make_clips(
        dataset.segments, train_views=views.train, test_views=views.test, seed=views.seed
    )


def locate(config: ExperimentConfig, dataset: Dataset) -> dict[str, Video]:
    """The videos, and official flow where a stage reads it, by source; none is looked at.

    Raises:
        AnnotationError, ConfigError: nobody can tell where they are.
    """
    videos = _locate(dataset, videos_config(config.data))
    flows = (config.stages.verb.flow, config.stages.noun.flow)
    if any(flow is not None and not flow.computed for flow in flows):
        videos |= _locate_flow(dataset, flow_config(config.data), videos)
    return videos


def missing_videos(
    clips: Sequence[Clip], videos: Mapping[str, Video], reasons: Mapping[str, str]
) -> list[MissingVideo]:
    """Those that are missing for a reason, by source, each with its clips."""
    count = Counter(clip.segment.video_id for clip in clips)
    return [
        MissingVideo(videos[source], reason, count[videos[source].video_id])
        for source, reason in reasons.items()
    ]


def _locate(dataset: Dataset, where: VideosConfig) -> dict[str, Video]:
    videos: dict[str, Video] = {}
    located: dict[tuple[str, ...], Video] = {}
    for segment in dataset.segments:
        place = segment.place
        if place in located:
            continue
        video = located[place] = locate_video(segment, where, dataset.promised_seconds)
        known = videos.setdefault(segment.video_id, video)
        if known.path != video.path:
            raise AnnotationError(
                f"segment {segment.segment_id!r}: got video {segment.video_id!r} at {video.path}, "
                f"and at {known.path} before; one video_id must mean one video"
            )
    return videos


def _locate_flow(
    dataset: Dataset, where: FlowVideosConfig | None, videos: dict[str, Video]
) -> dict[str, Video]:
    if where is None:
        raise ConfigError(
            "data.flow: a stage has flow method folders and nothing says where they are; give "
            "data.flow.root and data.flow.pattern"
        )
    located: dict[tuple[str, ...], Video] = {}
    for segment in dataset.segments:
        if segment.place not in located:
            located[segment.place] = locate_flow(segment, where, videos[segment.video_id])
    return {flow_source(segment.video_id): located[segment.place] for segment in dataset.segments}


def _identify(
    videos: dict[str, Video], memo: IdentityMemo
) -> tuple[dict[str, str], dict[str, str]]:
    """Content digests by source, and why others have none; stamps the videos."""
    identities, reasons = {}, {}
    for source_id, video in list(videos.items()):
        try:
            identities[source_id] = _identity(video, memo)
            videos[source_id] = replace(video, stamp=memo.stamp(video.path))
        except FileNotFoundError:
            reasons[source_id] = absent(video)
        except OSError as error:
            reasons[source_id] = f"{video.path}: cannot be read: {error.strerror or error}"
    return identities, reasons


def _identity(video: Video, memo: IdentityMemo) -> str:
    """Content; frames at another rate are another video."""
    digest = memo.digest(video.path)
    if video.frame_rate_fps is None:
        return digest
    stride = f"/{video.stride}" if video.kind == "flow" else ""
    return f"{digest}@{video.frame_rate_fps:g}fps{stride}"


def stage_keys(config: ExperimentConfig) -> dict[str, str]:
    """Stage → key, from settings and weights alone: labels, boxes and videos may be gone.

    Weights that are gone as well keep the digest they had.

    Raises:
        ConfigError: weights are absent and were never seen, or a network's options do not fit.
    """
    memo, known = IdentityMemo(config.store.path / MEMO_NAME), Known(config.store.path)
    aligned = _stages(config, videos_config(config.data), memo, known, boxes=None)
    return {stage.name: stage.key for stage in (*aligned.upstream, aligned)}


def _stages(
    config: ExperimentConfig,
    where: VideosConfig,
    memo: IdentityMemo,
    known: Known,
    boxes: BoxTable | None,
) -> AlignedStage:
    reading = _reading_settings(where)
    sections = config.stages

    aligned = AlignedStage(
        config=sections.aligned,
        verb=_clip_stage("verb", sections.verb, memo, reading),
        noun=_clip_stage("noun", sections.noun, memo, reading),
        objects=ObjectsStage(
            config=sections.objects,
            window_seconds=sections.aligned.global_window_seconds,
            weights=_weights_settings(sections.objects, memo, "stages.objects.weights"),
            reading=reading,
            boxes=boxes,
        ),
    )
    for stage in aligned.upstream:  # a network option that does not exist is found out here
        stage.take_key(known.recall("stage key", stage.about, partial(getattr, stage, "key")))
    return aligned


def _clip_stage(
    name: str, section: ClipStageConfig, memo: IdentityMemo, reading: dict[str, Any]
) -> ClipStage:
    flow = section.flow
    flow_weights = None
    if flow is not None and flow.weights is not None:
        flow_weights = _weights_settings(flow, memo, f"stages.{name}.flow.weights")
    return ClipStage(
        name,
        section,
        _weights_settings(section, memo, f"stages.{name}.weights"),
        reading if flow is None or flow.computed else reader_identity("flow"),
        flow_weights,
    )


def _reading_settings(where: VideosConfig) -> dict[str, Any]:
    return reader_identity(where.reader if where.kind == "file" else "frames")


def _weights_settings(
    section: WeightedConfig | FlowConfig, memo: IdentityMemo, key: str
) -> dict[str, Any]:
    path = section.checkpoint
    if path is None:
        return {"random": section.weights_seed}
    try:
        return {"sha256": memo.sha256(path)}
    except OSError as error:
        raise ConfigError(
            f"{key}: {path}: {error.strerror or error}; give a checkpoint file, or the word "
            "random with weights_seed"
        ) from error


def given_boxes(section: ObjectsConfig) -> BoxTable | None:
    """The table of boxes that a config names, if any."""
    return None if section.boxes is None else load_boxes(section.boxes)
