"""The ``aligned`` stage: stored maps and objects → the rows that heads train from.

For one clip: RoIAlign of the verb map at the local objects' boxes (eq 3.2 of the SAOA chapter), and
of the noun map where a head aligns it locally too (table 3.2), global average pooling of both maps
(eq 3.1, 3.3, 3.6), and the object features of the whole window in order of time, padded per frame
to K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extractors.roi import align_objects
from pipeline.rows import CLAMPED, DerivedRow
from pipeline.stages import AlignedStage, ClipStage
from stores.base import ArraySpec, FeatureReader, FeatureStore, Row

__all__ = ["OBJECT_OUTPUTS", "align_row", "aligned_outputs", "readable_rows", "widened"]

Arrays = Mapping[str, npt.NDArray[Any]]
OBJECT_OUTPUTS = ("features", "boxes_xyxy_px", "scores", "count", "frame_size_px")


def readable_rows(
    rows: Sequence[DerivedRow], readers: Mapping[str, FeatureReader]
) -> list[DerivedRow]:
    """The rows all of whose upstream rows are stored."""
    missing = {
        name: set(reader.missing(dict.fromkeys(key for row in rows for key in row.upstream[name])))
        for name, reader in readers.items()
    }
    return [
        row
        for row in rows
        if not any(key in missing[name] for name, keys in row.upstream.items() for key in keys)
    ]


def align_row(
    stage: AlignedStage,
    row: DerivedRow,
    readers: Mapping[str, FeatureStore],
    specs: Mapping[str, ArraySpec],
) -> Row:
    """Make one row; every row it is made from must be stored.

    Raises:
        OverflowError: a value that the dtype of its output cannot hold; names output and clip.
    """
    maps = {
        name: widened(readers[name].read(row.upstream[name], ["map"])["map"])[0]
        for name in ("verb", "noun")
    }
    stored = readers["objects"].read(row.upstream["objects"], OBJECT_OUTPUTS)
    objects = {name: widened(values) for name, values in stored.items()}
    clamped = CLAMPED in row.info.flags or any(
        CLAMPED in info.flags
        for name, keys in row.upstream.items()
        for info in readers[name].infos(keys)
    )
    return Row(
        key=row.key,
        arrays=aligned_outputs(stage, row, maps, objects, specs),
        info=replace(row.info, flags=CLAMPED if clamped else ""),
    )


def aligned_outputs(
    stage: AlignedStage,
    row: DerivedRow,
    maps: Arrays,
    objects: Arrays,
    specs: Mapping[str, ArraySpec],
) -> dict[str, npt.NDArray[Any]]:
    """The outputs that ``specs`` names, of one row; nothing else is computed.

    Args:
        maps: of ``verb`` and ``noun``, (T, H, W, C) each, as far as an output is made from them.
        objects: outputs of the stage ``objects``, (M, K, ...) each, frames in order of time.
        specs: of the outputs wanted.

    Raises:
        OverflowError: a value that the dtype of its output cannot hold; names output and clip.
    """
    values = {name: _output(name, stage, row, maps, objects) for name in specs}
    return {
        name: _cast(values[name], spec, f"{name} of clip {row.info.clip_id}")
        for name, spec in specs.items()
    }


def _output(
    name: str, stage: AlignedStage, row: DerivedRow, maps: Arrays, objects: Arrays
) -> npt.NDArray[Any]:
    match name:
        case "verb_gap" | "noun_gap":
            mean: npt.NDArray[np.float32] = maps[name[:4]].mean(axis=(0, 1, 2), dtype=np.float32)
            return mean
        case "verb_roi":
            return _roi(stage, stage.verb, row, maps["verb"], objects)
        case "noun_roi":
            return _roi(stage, stage.noun, row, maps["noun"], objects)
        case "object_mask":
            K = objects["features"].shape[1]
            return (np.arange(K) < objects["count"][:, None]).reshape(-1)
        case "frame_size_px":
            size: npt.NDArray[np.int32] = objects[name][0]
            return size
        case _:
            of_frames = objects[name.removeprefix("object_")]  # (M, K, ...)
            return of_frames.reshape(-1, *of_frames.shape[2:])


def _roi(
    stage: AlignedStage,
    seen_by: ClipStage,
    row: DerivedRow,
    clip_map: npt.NDArray[Any],
    objects: Arrays,
) -> npt.NDArray[np.float32]:
    """(N_local, C) of a map (T, H, W, C) of the stage ``seen_by``."""
    M, K = objects["boxes_xyxy_px"].shape[:2]
    skip = (stage.num_frames - stage.num_local_frames) // 2 * K
    local = slice(skip, skip + stage.num_local_frames * K)
    width_px, height_px = map(int, objects["frame_size_px"][0])
    seen = seen_by.geometry.region_xyxy_px(height_px, width_px)
    roi: npt.NDArray[np.float32] = align_objects(
        torch.from_numpy(clip_map),
        torch.from_numpy(_within(objects["boxes_xyxy_px"].reshape(M * K, 4)[local], seen)),
        (seen[2] - seen[0], seen[3] - seen[1]),
        time=stage.config.map_time,
        output_size=stage.config.output_size,
        object_times_seconds=_seconds(np.repeat(row.times_us["objects"], K)[local]),
        clip_times_seconds=_seconds(row.times_us[seen_by.name]),
    ).numpy()
    return roi


def _within(
    boxes_xyxy_px: npt.NDArray[np.float32], seen: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    """Boxes in pixels of the part of the frame that the map shows; what lies outside is cut off."""
    left, top, right, bottom = seen
    corner = np.array([left, top, left, top], dtype=np.float32)
    size = np.array([right - left, bottom - top] * 2, dtype=np.float32)
    within: npt.NDArray[np.float32] = np.clip(boxes_xyxy_px - corner, 0, size)
    return within


def widened(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A stored array in a dtype that torch takes from numpy: bfloat16 becomes float32."""
    return stored.astype(np.float32) if stored.dtype.name == "bfloat16" else stored


def _cast(values: npt.NDArray[Any], spec: ArraySpec, what: str) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        cast = values.astype(spec.numpy_dtype)
    if not np.isfinite(cast).all():
        raise OverflowError(
            f"got {what} with a value of {np.abs(values).max():g}, expected what {spec.dtype} can "
            "hold; set stages.aligned.dtype: float32"
        )
    return cast


def _seconds(times_us: npt.NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(times_us / 1e6)
