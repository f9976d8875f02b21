"""Stages with settings of one's choice, for tests of keys and of the rows they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.align import aligned_outputs, read_by
from pipeline.boxes import BoxFile
from pipeline.clip_table import ClipTable
from pipeline.clips import Clip
from pipeline.config_stages import AlignedConfig, ClipStageConfig, ObjectsConfig
from pipeline.rows import DerivedRow
from pipeline.segments import Segment
from pipeline.stages import AlignedStage, ClipStage, ObjectsStage, Stage
from stores.base import ArraySpec, FeatureReader, Row
from stores.row_keys import key_texts

WEIGHTS = {"sha256": "ab" * 32}
READING = {"reader": "pyav", "policy": "1", "av": "14.0"}
IDENTITIES = {"P01_01": "11" * 32, "P01_02": "22" * 32, "copy": "11" * 32}


def make_clip(
    video_id: str = "P01_01",
    segment_id: str = "7",
    *,
    centre_us: int = 10_100_000,
    view: int = 0,
    stop_seconds: float = 12.0,
) -> Clip:
    segment = Segment(segment_id, video_id, "P01", 9.0, stop_seconds, 0, 0, "train")
    return Clip(segment, view, centre_us)


def clip_table(*clips: Clip) -> ClipTable:
    """Clips of the videos of `IDENTITIES`."""
    return ClipTable(clips, IDENTITIES)


def keys_of(
    stage: Stage, clip: Clip, identities: Mapping[str, str] = IDENTITIES
) -> tuple[str, ...]:
    """The rows that one clip needs."""
    naming = stage.naming(ClipTable([clip], identities))
    return tuple(key_texts(naming.keys[naming.numbers[0]]))


def key_of(stage: Stage, clip: Clip, identities: Mapping[str, str] = IDENTITIES) -> str:
    """The one row that a clip needs."""
    (key,) = keys_of(stage, clip, identities)
    return key


def make_clip_stage(
    name: str = "verb",
    *,
    weights_settings: dict[str, Any] = WEIGHTS,
    reading: dict[str, Any] = READING,
    **config: Any,
) -> ClipStage:
    settings = {"network": {"name": "resnet3d"}, "weights": "w.pt", **config}
    return ClipStage(name, ClipStageConfig.model_validate(settings), weights_settings, reading)


def make_objects_stage(
    *,
    weights_settings: dict[str, Any] = WEIGHTS,
    reading: dict[str, Any] = READING,
    box_file: BoxFile | None = None,
    window_seconds: float = 6.0,
    **config: Any,
) -> ObjectsStage:
    settings = {"detector": {"name": "faster_rcnn"}, "weights": "w.pt", **config}
    if box_file is not None:
        settings |= {"detector": {"name": "given_boxes"}, "boxes": box_file.path}
    return ObjectsStage(
        ObjectsConfig.model_validate(settings), window_seconds, weights_settings, reading, box_file
    )


def make_aligned_stage(
    *,
    verb: ClipStage | None = None,
    noun: ClipStage | None = None,
    objects: ObjectsStage | None = None,
    **config: Any,
) -> AlignedStage:
    settings = AlignedConfig.model_validate(config)
    return AlignedStage(
        settings,
        verb or make_clip_stage("verb"),
        noun or make_clip_stage("noun"),
        objects or make_objects_stage(window_seconds=settings.global_window_seconds),
    )


def align_row(
    stage: AlignedStage,
    row: DerivedRow,
    readers: Mapping[str, FeatureReader],
    specs: Mapping[str, ArraySpec],
) -> Row:
    """One aligned row from rows that are read for it alone."""
    stored = {
        name: dict(readers[name].read(row.upstream[name], outputs))
        for name, outputs in read_by(specs).items()
    }
    for name in stored.keys() - {"objects"}:
        stored[name] = {"map": stored[name]["map"][0]}
    return Row(row.key, aligned_outputs(stage, row, stored, specs), row.info)
