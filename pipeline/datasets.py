"""Label files → segments: which reader a kind of data set has.

To add a data set, write a function that returns a `Dataset` in ``pipeline/dataset_<kind>.py``,
give it a config model in ``pipeline/config_data.py`` and name both in `load_dataset`.
"""

from __future__ import annotations

from dataclasses import replace

from heads.protocols import Protocol
from pipeline.config_data import (
    CsvData,
    DataConfig,
    EgteaData,
    Epic55Data,
    Epic100Data,
    FlowVideosConfig,
    OnlyConfig,
    ToyKitchenData,
    VideosConfig,
)
from pipeline.dataset_csv import load_csv
from pipeline.dataset_egtea import load_egtea
from pipeline.dataset_epic55 import load_epic55
from pipeline.dataset_epic100 import load_epic100
from pipeline.errors import AnnotationError
from pipeline.segments import Dataset

__all__ = ["flow_config", "load_dataset", "videos_config"]


def load_dataset(data: DataConfig) -> Dataset:
    """Read and check the labels of one data set.

    Raises:
        AnnotationError: a file or column is absent, a value cannot be, or a split is empty; names
            file and line.
    """
    match data:
        case CsvData():
            return _only(load_csv(data), data.only)
        case Epic55Data():
            found = load_epic55(data.annotations, splits=data.splits, train_on=data.train_on)
            return _only(found, data.only)
        case Epic100Data():
            found = load_epic100(data.annotations, splits=data.splits, train_on=data.train_on)
            return _only(found, data.only)
        case EgteaData():
            found = load_egtea(data.annotations, split=data.split, clips=data.clips)
            return _only(found, data.only)
        case ToyKitchenData():
            return _load_toy_kitchen(data)


def _load_toy_kitchen(data: ToyKitchenData) -> Dataset:
    """Render it where it is not there yet; its labels are written as EPIC-55's are."""
    from pipeline.toy_kitchen import render_toy_kitchen

    render_toy_kitchen(
        data.folder,
        seed=data.seed,
        num_train_segments=data.train_segments,
        num_val_segments=data.val_segments,
    )
    return replace(load_epic55(data.folder), protocol=Protocol("plain"))


def videos_config(data: DataConfig) -> VideosConfig:
    """Where the videos of a data set lie."""
    if isinstance(data, ToyKitchenData):
        return VideosConfig(root=data.folder, pattern="{participant_id}/{video_id}.MP4")
    return data.videos


def flow_config(data: DataConfig) -> FlowVideosConfig | None:
    """Where the official flow of a data set lies, if anywhere."""
    return None if isinstance(data, ToyKitchenData) else data.flow


def _only(dataset: Dataset, only: OnlyConfig) -> Dataset:
    """Keep what the config asks for; an id that names nothing is an error."""
    segments = list(dataset.segments)
    for key, ids in (("video_id", only.video_ids), ("segment_id", only.segment_ids)):
        if not ids:
            continue
        wanted = set(ids)
        absent = wanted - {getattr(segment, key) for segment in segments}
        if absent:
            raise AnnotationError(
                f"data.only.{key}s: no segment has {key} {', '.join(sorted(absent))}"
            )
        segments = [segment for segment in segments if getattr(segment, key) in wanted]
    return replace(dataset, segments=segments)
