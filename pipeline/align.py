"""The ``aligned`` stage: stored maps and objects → the rows that heads train from.

For one clip: RoIAlign of the verb map at the local objects' boxes (eq 3.2 of the SAOA chapter), and
of the noun map where a head aligns it locally too (table 3.2), global average pooling of both maps
(eq 3.1, 3.3, 3.6), and the object features of the whole window in order of time, padded per frame
to K.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extractors.roi import align_objects
from pipeline.rows import DerivedRow
from pipeline.stages import AlignedStage, ClipStage
from stores.base import ArraySpec

__all__ = ["Stored", "aligned_outputs", "read_by"]

# Arrays by stage and output: maps (T, H, W, C), objects (M, K, ...) with frames in order of time.
Stored = Mapping[str, Mapping[str, npt.NDArray[Any]]]

_BOXES = ("boxes_xyxy_px", "frame_size_px")
# Output → what it is made from.
_READS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "verb_gap": {"verb": ("map",)},
    "noun_gap": {"noun": ("map",)},
    "verb_roi": {"verb": ("map",), "objects": _BOXES},
    "noun_roi": {"noun": ("map",), "objects": _BOXES},
    "object_features": {"objects": ("features",)},
    "object_mask": {"objects": ("count", "scores")},
    "object_boxes_xyxy_px": {"objects": ("boxes_xyxy_px",)},
    "object_scores": {"objects": ("scores",)},
    "frame_size_px": {"objects": ("frame_size_px",)},
}


def read_by(outputs: Iterable[str]) -> dict[str, list[str]]:
    """What aligned outputs are made from: stage → its outputs; stages that are not needed lack."""
    needed: dict[str, dict[str, None]] = {}
    for output in outputs:
        for stage, names in _READS[output].items():
            needed.setdefault(stage, {}).update(dict.fromkeys(names))
    return {stage: list(names) for stage, names in needed.items()}


def aligned_outputs(
    stage: AlignedStage,
    row: DerivedRow,
    stored: Stored,
    specs: Mapping[str, ArraySpec],
) -> dict[str, npt.NDArray[Any]]:
    """The outputs that ``specs`` names, of one row; nothing else is computed.

    Args:
        stored: what `read_by` asks for, of this row.
        specs: of the outputs wanted.

    Raises:
        OverflowError: a value that the dtype of its output cannot hold; names output and clip.
    """
    stored = {
        name: {output: _widened(values) for output, values in arrays.items()}
        for name, arrays in stored.items()
    }
    return {
        name: _cast(_output(name, stage, row, stored), spec, f"{name} of clip {row.info.clip_id}")
        for name, spec in specs.items()
    }


def _output(name: str, stage: AlignedStage, row: DerivedRow, stored: Stored) -> npt.NDArray[Any]:
    match name:
        case "verb_gap" | "noun_gap":
            clip_map = stored[name.removesuffix("_gap")]["map"]
            mean: npt.NDArray[np.float32] = clip_map.mean(axis=(0, 1, 2), dtype=np.float32)
            return mean
        case "verb_roi":
            return _roi(stage, stage.verb, row, stored)
        case "noun_roi":
            return _roi(stage, stage.noun, row, stored)
        case "object_mask":
            K = stored["objects"]["scores"].shape[1]
            return (np.arange(K) < stored["objects"]["count"][:, None]).reshape(-1)
        case "frame_size_px":
            size_px: npt.NDArray[np.int32] = stored["objects"][name][0]
            return size_px
        case _:
            of_frames = stored["objects"][name.removeprefix("object_")]  # (M, K, ...)
            return of_frames.reshape(-1, *of_frames.shape[2:])


def _roi(
    stage: AlignedStage, seen_by: ClipStage, row: DerivedRow, stored: Stored
) -> npt.NDArray[np.float32]:
    """(N_local, C) of the map of the stage ``seen_by``."""
    boxes = stored["objects"]["boxes_xyxy_px"]
    M, K = boxes.shape[:2]
    skip = (stage.num_frames - stage.num_local_frames) // 2 * K
    local = slice(skip, skip + stage.num_local_frames * K)
    width_px, height_px = map(int, stored["objects"]["frame_size_px"][0])
    seen = seen_by.geometry.region_xyxy_px(height_px, width_px)
    roi: npt.NDArray[np.float32] = align_objects(
        torch.from_numpy(stored[seen_by.name]["map"]),
        torch.from_numpy(_within(boxes.reshape(M * K, 4)[local], seen)),
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


def _widened(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
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
