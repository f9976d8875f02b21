"""The ``aligned`` stage: stored maps and objects → the rows that heads train from.

For one clip: RoIAlign of the verb map at the local objects' boxes (eq 3.2 of the SAOA chapter),
global average pooling of both maps (eq 3.1, 3.3, 3.6), and the object features of the whole window
in order of time, padded per frame to K.
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
from pipeline.stages import AlignedStage
from stores.base import ArraySpec, FeatureReader, FeatureStore, Row

__all__ = ["align_row", "readable_rows"]

Arrays = Mapping[str, npt.NDArray[Any]]


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
    maps = {name: _read(readers[name], row.upstream[name])["map"][0] for name in ("verb", "noun")}
    objects = _read(readers["objects"], row.upstream["objects"])  # each (M, K, …)
    values = _align(stage, row, maps, objects)
    clamped = CLAMPED in row.info.flags or any(
        CLAMPED in info.flags
        for name, keys in row.upstream.items()
        for info in readers[name].infos(keys)
    )
    return Row(
        key=row.key,
        arrays={
            name: _cast(values[name], spec, f"{name} of clip {row.info.clip_id}")
            for name, spec in specs.items()
        },
        info=replace(row.info, flags=CLAMPED if clamped else ""),
    )


def _align(
    stage: AlignedStage, row: DerivedRow, maps: Arrays, objects: Arrays
) -> dict[str, npt.NDArray[Any]]:
    M, K, C1 = objects["features"].shape
    skip = (stage.num_frames - stage.num_local_frames) // 2 * K
    local = slice(skip, skip + stage.num_local_frames * K)
    boxes = objects["boxes_xyxy_px"].reshape(M * K, 4)
    width_px, height_px = map(int, objects["frame_size_px"][0])
    seen = stage.verb.geometry.region_xyxy_px(height_px, width_px)
    roi = align_objects(
        torch.from_numpy(maps["verb"]),  # (T, H, W, Cv)
        torch.from_numpy(_within(boxes[local], seen)),
        (seen[2] - seen[0], seen[3] - seen[1]),
        time=stage.config.map_time,
        output_size=stage.config.output_size,
        object_times_seconds=_seconds(np.repeat(row.object_times_us, K)[local]),
        clip_times_seconds=_seconds(row.times_us),
    )
    return {
        "verb_gap": maps["verb"].mean(axis=(0, 1, 2), dtype=np.float32),
        "noun_gap": maps["noun"].mean(axis=(0, 1, 2), dtype=np.float32),
        "verb_roi": roi.numpy(),
        "object_features": objects["features"].reshape(M * K, C1),
        "object_mask": (np.arange(K) < objects["count"][:, None]).reshape(M * K),
        "object_boxes_xyxy_px": boxes,
        "object_scores": objects["scores"].reshape(M * K),
        "frame_size_px": objects["frame_size_px"][0],
    }


def _within(
    boxes_xyxy_px: npt.NDArray[np.float32], seen: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    """Boxes in pixels of the part of the frame that the map shows; what lies outside is cut off."""
    left, top, right, bottom = seen
    corner = np.array([left, top, left, top], dtype=np.float32)
    size = np.array([right - left, bottom - top] * 2, dtype=np.float32)
    within: npt.NDArray[np.float32] = np.clip(boxes_xyxy_px - corner, 0, size)
    return within


def _read(reader: FeatureReader, keys: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Rows in dtypes that torch takes from numpy: bfloat16 is widened."""
    arrays = reader.read(keys)
    return {
        name: array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        for name, array in arrays.items()
    }


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
