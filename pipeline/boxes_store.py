"""Boxes from a store: what a detector found in another run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.boxes import BoxedVideo, BoxFile, BoxTable
from pipeline.config_stages import BoxStoreConfig
from pipeline.errors import AnnotationError, ConfigError
from pipeline.segments import Dataset
from stores.base import FeatureStore, RowInfo, Store
from stores.registry import open_store

__all__ = ["BoxStore", "check_boxes", "load_boxes"]

PER_BOX = ("boxes_xyxy_px", "scores", "classes")
PER_FRAME = ("count", "frame_size_px")
ROWS_AT_ONCE = 4096

Arrays = dict[str, npt.NDArray[Any]]


def load_boxes(boxes: Path | BoxStoreConfig) -> BoxTable:
    """The boxes that ``stages.objects.boxes`` names.

    Raises:
        AnnotationError: the file, or what the store holds, is not valid.
        ConfigError: there is no such store, stage or key.
    """
    return BoxStore(boxes) if isinstance(boxes, BoxStoreConfig) else BoxFile(boxes)


def check_boxes(boxes: BoxTable | None, dataset: Dataset) -> None:
    """Boxes that do not know a video: another spelling more often than an empty room.

    Raises:
        AnnotationError: names such videos.
    """
    if boxes is None:
        return
    without = sorted({s.video_id for s in dataset.segments} - set(boxes.video_ids()))
    if without:
        shown = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
        raise AnnotationError(
            f"{boxes.path}: got no {boxes.entry} for {len(without):,} labelled videos ({shown}), "
            "expected boxes for every video; check how the ids are spelt"
        )


class BoxStore(BoxTable):
    """Boxes, scores and classes of one generation of a stage ``objects``.

    Rows say which video and time they are of; of two rows that say the same, as after a video was
    replaced, the later counts. A time without a row is a frame without objects.

    Raises:
        AnnotationError: a row is damaged, or has more boxes than it can hold.
        ConfigError: there is no such store, stage or key, or several keys would do.
    """

    entry: ClassVar[str] = "row"

    def __init__(self, config: BoxStoreConfig) -> None:
        try:
            with open_store(config.store) as store:
                generation = _find(store, config)
                keys = generation.keys()
                frames = _frames_by_video(generation.infos(keys))
                blocks = [
                    _read(generation, keys[first : first + ROWS_AT_ONCE], config.store)
                    for first in range(0, len(keys), ROWS_AT_ONCE)
                ]
        except (OSError, LookupError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"stages.objects.boxes: {config.store}: {reason}") from error
        names = (*PER_BOX, *PER_FRAME) if blocks else ()
        arrays = {name: np.concatenate([block[name] for block in blocks]) for name in names}
        super().__init__(
            config.store,
            {video: _boxed_video(of_video, arrays) for video, of_video in frames.items()},
        )


def _find(store: Store, config: BoxStoreConfig) -> FeatureStore:
    held = [info.key for info in store.generations() if info.stage == config.stage]
    wanted = [key for key in held if key.startswith(config.key or "")]
    if len(wanted) != 1:
        asked = "" if config.key is None else f" under a key that starts with {config.key}"
        shown = ", ".join(key[:12] for key in held) or "none"
        raise ValueError(
            f"got {len(wanted)} generations of stage {config.stage!r}{asked}, expected one; "
            f"give stages.objects.boxes.key: the store has {shown}"
        )
    generation = store.generation(config.stage, wanted[0])
    absent = [name for name in (*PER_BOX, *PER_FRAME) if name not in generation.specs]
    if absent:
        raise ValueError(
            f"got stage {config.stage!r} without {', '.join(absent)}, expected rows of objects"
        )
    return generation


def _frames_by_video(infos: Sequence[RowInfo]) -> dict[str, dict[int, int]]:
    """Video → time in microseconds → number of the row."""
    frames: dict[str, dict[int, int]] = defaultdict(dict)
    for row, info in enumerate(infos):
        frames[info.video_id][round(info.first_seconds * 1e6)] = row
    return frames


def _read(generation: FeatureStore, keys: Sequence[str], path: Path) -> Arrays:
    """The boxes of some rows, without their padding, one row after the other."""
    rows = generation.read(keys, (*PER_BOX, *PER_FRAME))
    count, places = rows["count"], rows["scores"].shape[1]
    for row in np.flatnonzero((count < 0) | (count > places))[:1]:
        (info,) = generation.infos([keys[int(row)]])
        raise AnnotationError(
            f"{path}: got {count[row]} boxes in row {info.clip_id}, expected 0 to {places}; "
            "was it written by Symbio?"
        )
    real = np.arange(places) < count[:, None]
    return {name: rows[name][real] if name in PER_BOX else rows[name] for name in rows}


def _boxed_video(frames: Mapping[int, int], arrays: Arrays) -> BoxedVideo:
    """The frames of one video, time → number of the row, out of the arrays of all rows."""
    times_us = np.array(sorted(frames), dtype=np.int64)
    rows = np.array([frames[int(time)] for time in times_us])
    count = arrays["count"].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(count[rows])])
    first = (np.cumsum(count) - count)[rows]  # of each frame's boxes, among those of all rows
    chosen = np.repeat(first - starts[:-1], count[rows]) + np.arange(starts[-1])
    return BoxedVideo(
        times_us,
        starts,
        arrays["boxes_xyxy_px"][chosen].astype(np.float32, copy=False),
        arrays["scores"][chosen].astype(np.float32, copy=False),
        arrays["classes"][chosen].astype(np.int32, copy=False),
        frame_sizes_px=arrays["frame_size_px"][rows],
    )
