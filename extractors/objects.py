"""What the detectors share: which boxes are kept, which frames run together, how rows are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import (
    FrameExtractor,
    GivenBoxes,
    check_dtype,
    check_frames,
    object_outputs,
)
from extractors.inference import (
    check_precision,
    network_inference,
    resolve_device,
    to_array,
)

Frame = NDArray[np.uint8]

FEATURES = ("roi_max", "box_head")
MAX_ASPECT = 64  # a longer strip would be resized to no height, or to gigabytes of width
MIN_LIMIT_PX = MAX_ASPECT  # so that the shorter side keeps a pixel


class ObjectExtractor(FrameExtractor):
    """A network that finds objects, or describes given ones; a subclass says which and how.

    Args:
        options: an instance of the class's `Options`.
        weights: checkpoint file, or None with a seed.
        seed: seed of random weights, or None with a file.
        top_k: K, objects kept per frame.
        dtype: of the stored features.
        device: "cpu", "cuda" or "cuda:N".
        given: whether boxes are given with the frames instead of being found.
        precision: in which the backbone runs, one of `PRECISIONS`; boxes, scores and features are
            made of its maps in float32.
        compile: whether to compile the backbone, which takes a minute or more for the first
            frames. Results agree within 1e-4 of their magnitude.

    Raises:
        ValueError: if a setting is out of range, or the file does not fit the options.
    """

    def __init__(
        self,
        options: Any,
        *,
        weights: str | Path | None,
        seed: int | None,
        top_k: int,
        dtype: str = "float16",
        device: str = "cpu",
        given: bool = False,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        check_dtype(dtype)
        self.device = resolve_device(device)
        check_precision(precision, self.device)
        self.options = options
        self.top_k = top_k
        self.needs_boxes = given
        self._dtype = dtype
        self._precision = precision
        self.network: Any = self._create(weights, seed).to(self.device).eval()
        self.outputs = object_outputs(top_k, self._channels(), dtype)
        self._backbone = self._backbone_of(self.network)
        if compile:
            self._backbone = torch.compile(self._backbone)

    @abstractmethod
    def _create(self, weights: str | Path | None, seed: int | None) -> nn.Module:
        """The network with its weights."""

    @abstractmethod
    def _channels(self) -> int:
        """C1 of the features."""

    def _backbone_of(self, network: Any) -> Callable[[Tensor], Any]:
        """What gives the maps, or the map, of a batch of frames."""
        backbone: Callable[[Tensor], Any] = network.backbone
        return backbone

    @abstractmethod
    def _objects(
        self, frames: Sequence[Frame], given: Sequence[GivenBoxes] | None
    ) -> list[tuple[GivenBoxes, Tensor]]:
        """The top K objects of each frame and their features (n, C1).

        Args:
            frames: of one size.
            given: at most K checked boxes of each frame, if the extractor takes them.
        """

    def _maps(self, pixels: Tensor) -> Any:
        """The backbone's map, or maps by name, in float32."""
        with network_inference(self._precision, self.device, fixed_shapes=False):
            maps = self._backbone(pixels)
        if isinstance(maps, Tensor):
            return maps.float()
        return {name: values.float() for name, values in maps.items()}

    def __call__(
        self, frames: Sequence[Frame], boxes: Sequence[GivenBoxes] | None = None
    ) -> dict[str, NDArray[Any]]:
        check_frames(frames, boxes, needs_boxes=self.needs_boxes)
        for index, frame in enumerate(frames):
            check_aspect(frame, label=f"frame {index}")
        given = boxes and [
            select_boxes(of_frame, frame, self.top_k, label=f"frame {index}")
            for index, (frame, of_frame) in enumerate(zip(frames, boxes, strict=True))
        ]
        rows: dict[int, dict[str, NDArray[Any]]] = {}
        with network_inference("float32", self.device, fixed_shapes=False):
            for group in together(frames, self.device):
                chosen = [given[i] for i in group] if given is not None else None
                found = self._objects([frames[i] for i in group], chosen)
                for index, (objects, features) in zip(group, found, strict=True):
                    values = to_array(features, self._dtype)
                    rows[index] = pack_objects(values, objects, frames[index], self.top_k)
        ordered = [rows[index] for index in range(len(frames))]
        return {name: np.stack([row[name] for row in ordered]) for name in self.outputs}


def pack_objects(
    features: NDArray[Any], found: GivenBoxes, frame: NDArray[np.uint8], top_k: int
) -> dict[str, NDArray[Any]]:
    """Pad one frame's objects with zero rows to K.

    Args:
        features: (n, C1), n at most `top_k`, best score first.
        found: the same n objects.
        frame: (H, W, 3), for its size.
        top_k: K.

    Returns:
        The arrays of `object_outputs` for one row.
    """
    n = features.shape[0]

    def padded(values: NDArray[Any]) -> NDArray[Any]:
        rows = np.zeros((top_k, *values.shape[1:]), dtype=values.dtype)
        rows[:n] = values
        return rows

    height_px, width_px = frame.shape[:2]
    return {
        "features": padded(features),
        "boxes_xyxy_px": padded(found.boxes_xyxy_px.astype(np.float32)),
        "scores": padded(found.scores.astype(np.float32)),
        "classes": padded(found.classes.astype(np.int32)),
        "count": np.array(n, dtype=np.int32),
        "frame_size_px": np.array([width_px, height_px], dtype=np.int32),
    }


def together(frames: Sequence[Frame], device: torch.device) -> list[list[int]]:
    """Positions of the frames, grouped as they go through the network.

    Frames of one size make a batch. On a CPU each goes alone: libraries choose their kernels by the
    length of the batch there, and the last digits with them.
    """
    if device.type == "cpu":
        return [[index] for index in range(len(frames))]
    of_size: dict[tuple[int, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        of_size.setdefault(tuple(frame.shape), []).append(index)
    return list(of_size.values())


def check_aspect(frame: Frame, *, label: str) -> None:
    """Raise ValueError for a strip of a frame."""
    height_px, width_px = frame.shape[:2]
    if max(height_px, width_px) > MAX_ASPECT * min(height_px, width_px):
        raise ValueError(
            f"got {label} of {width_px}×{height_px} px, expected a longer side of at most "
            f"{MAX_ASPECT} times the shorter"
        )


def select_boxes(given: GivenBoxes, frame: Frame, top_k: int, *, label: str) -> GivenBoxes:
    """The best `top_k` boxes by score (earlier first where equal), clipped to the frame.

    Args:
        given: boxes in pixels of `frame`.
        frame: (H, W, 3), for its size.
        top_k: K.
        label: names the frame in errors, where the boxes do not say where they are from.

    Raises:
        ValueError: if a box or score is not finite, inverted or without area, or lies outside the
            frame, or if the boxes were drawn in a frame of another size.
    """
    label = given.source or label
    height_px, width_px = frame.shape[:2]
    if given.frame_size_px not in (None, (width_px, height_px)):
        width, height = given.frame_size_px
        raise ValueError(
            f"got boxes of a {width}×{height} frame for {label}, expected boxes in pixels of a "
            f"frame of {width_px}×{height_px} px; was it another version of the video?"
        )
    boxes = given.boxes_xyxy_px.astype(np.float32)
    clipped = clip_to_frame(boxes, frame)
    for problem, bad in (
        ("not finite", ~(np.isfinite(boxes).all(axis=1) & np.isfinite(given.scores))),
        ("inverted or empty", (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)),
        (
            f"outside the {width_px}×{height_px} frame",
            (clipped[:, 2:] <= clipped[:, :2]).any(axis=1),
        ),
    ):
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            line = "" if given.lines is None else f", line {given.lines[index]}"
            raise ValueError(
                f"got box {index} of {label}{line}: {boxes[index].tolist()} with score "
                f"{float(given.scores[index])}, which is {problem}; expected finite "
                "left < right and top < bottom in native-frame pixels"
            )
    return best(GivenBoxes(clipped, given.scores, given.classes), top_k)


def best(objects: GivenBoxes, top_k: int) -> GivenBoxes:
    """The `top_k` objects with the highest scores, best first, earlier first where equal."""
    order = np.argsort(-objects.scores, kind="stable")[:top_k]
    return GivenBoxes(objects.boxes_xyxy_px[order], objects.scores[order], objects.classes[order])


def clip_to_frame(boxes_xyxy_px: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Boxes (n, 4) cut at the edges of a frame (H, W, 3)."""
    height_px, width_px = frame.shape[:2]
    limits = np.array([width_px, height_px, width_px, height_px], dtype=np.float32)
    return np.clip(boxes_xyxy_px, 0, limits)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless an option is one of the words allowed."""
    if value not in allowed:
        raise ValueError(f"got {name} {value!r}, expected one of {', '.join(allowed)}")


def check_detector_numbers(
    score_threshold: float | None,
    nms_threshold: float | None,
    min_size_px: int | None,
    max_size_px: int | None,
) -> None:
    """Raise ValueError unless thresholds and frame limits make sense; None is the default."""
    if not all(t is None or 0 <= t <= 1 for t in (score_threshold, nms_threshold)):
        raise ValueError(
            f"got score_threshold={score_threshold}, nms_threshold={nms_threshold}, "
            "expected numbers from 0 to 1"
        )
    for name, value, least in (
        ("min_size_px", min_size_px, 1),
        ("max_size_px", max_size_px, MIN_LIMIT_PX),
    ):
        if value is not None and value < least:
            raise ValueError(f"got {name}={value}, expected {least} or more")
