"""What every extractor looks like from outside: its inputs, its outputs and what it promises.

Two kinds exist. A *clip extractor* sees a whole clip and returns one space-time map. A *frame
extractor* sees single native frames and returns the top-K objects of each. Both promise that a
row's result does not depend on the other rows of the batch: to the bit on a CPU, at an equal number
of threads; on CUDA apart from rounding in the last digits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from extractors.geometry import Geometry

FLOAT_DTYPES = ("float16", "bfloat16", "float32")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class OutputSpec:
    """One named output of an extractor, described for one row (no batch axis).

    Attributes:
        dims: a name for each axis.
        shape: the length of each axis; () is one number.
        dtype: numpy's name of the element type.
        units: what the numbers count, "" for plain activations.
        description: one sentence for readers of the store.
        attributes: anything else worth storing beside the array (JSON values).
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str = ""
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.dims) != len(self.shape):
            raise ValueError(f"got {len(self.dims)} dims for shape {self.shape}, expected one each")
        if min(self.shape, default=1) < 1:
            raise ValueError(f"got shape {self.shape}, expected every axis to be 1 or longer")


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network input: ``(value / 255 - mean) / std`` per channel.

    Attributes:
        mean: of each channel, on the 0..1 scale: three for RGB, two for flow.
        std: divisor of each channel, on the 0..1 scale.
        source: where the numbers come from.
        geometry: the resize and crop with which the weights' publisher tests; None if it has none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    geometry: Geometry | None = None


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes of one frame that come from a file rather than from a detector.

    Attributes:
        boxes_xyxy_px: (n, 4) float32, native-frame pixels.
        scores: (n,) float32, higher is kept first.
        classes: (n,) int32.
        frame_size_px: width and height of the frame they were drawn in, if known.
        source: of which frame and from where, for messages: "video a at 3.5 s in boxes.csv".
        lines: (n,) int64, of that file, where boxes have lines; for messages.
    """

    boxes_xyxy_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    frame_size_px: tuple[int, int] | None = None
    source: str = ""
    lines: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.boxes_xyxy_px.ndim != 2 or self.boxes_xyxy_px.shape[1] != 4:
            raise ValueError(f"got boxes of shape {self.boxes_xyxy_px.shape}, expected (n, 4)")
        n = self.boxes_xyxy_px.shape[0]
        for name, values in (("scores", self.scores), ("classes", self.classes)):
            if values.shape != (n,):
                raise ValueError(f"got {name} of shape {values.shape} for {n} boxes, expected {n}")


class Extractor(ABC):
    """What clip and frame extractors share.

    Attributes:
        name: the registered name.
        VERSION: raised by hand whenever the same settings give other numbers.
        Options: frozen dataclass of the architecture's options with their defaults.
        outputs: every output by name, for one row.
        device: where the network runs.
    """

    name: ClassVar[str]
    VERSION: ClassVar[int]
    Options: ClassVar[type[Any]]

    outputs: Mapping[str, OutputSpec]
    device: torch.device

    @classmethod
    @abstractmethod
    def preprocessing(cls, options: Any) -> Preprocessing:
        """The pixel normalisation that networks with these options were trained with."""

    @classmethod
    def settings(cls, options: Any, precision: str = "float32") -> dict[str, Any]:
        """Everything but weights and sizes that decides the numbers, as plain JSON values.

        Raises:
            ValueError: if the precision is none of `PRECISIONS`.
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"got precision {precision!r}, expected one of {', '.join(PRECISIONS)}"
            )
        pixels = cls.preprocessing(options)
        return {
            "extractor": cls.name,
            "version": cls.VERSION,
            "architecture": asdict(options),
            "preprocessing": {"mean": list(pixels.mean), "std": list(pixels.std)},
            "precision": precision,
        }


class Pending(Protocol):
    """A batch that a device may still be working on."""

    def collect(self) -> dict[str, NDArray[Any]]:
        """Wait for its arrays."""


class _Finished:
    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def collect(self) -> dict[str, NDArray[Any]]:
        return self._arrays


class ClipExtractor(Extractor):
    """A network over clips.

    Attributes:
        frames: T, frames per clip.
        size_px: height and width of the (already resized) clip.
        channels: of the clip: 3 for RGB, 2 for flow.
    """

    frames: int
    size_px: int
    channels: int = 3

    def prepare(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """A clip's decoded frames, (n, H, W, C) uint8, made into one row of `clips`."""
        return frames

    def launch(self, clips: Tensor) -> Pending:
        """Start a batch as for `__call__`; `collect` of what is returned gives its arrays.

        On CUDA this returns before the device is done. Errors in results are raised by `collect`.
        """
        return _Finished(self(clips))

    @abstractmethod
    def __call__(self, clips: Tensor) -> dict[str, NDArray[Any]]:
        """Extract a batch.

        Args:
            clips: (B, T, H, W, C) uint8, T = `frames`, H = W = `size_px`, on any device. Flow may
                also be float32 pixels, clipped to the bound of flow images.

        Returns:
            Those of `map` (B, T', H', W', C'), `pooled` (B, C') and `logits` (B, classes) that
            `outputs` names.

        Raises:
            ValueError: if the clips have another shape or dtype.
            OverflowError: if a value is not finite, or too large for the output dtype.
        """


class FrameExtractor(Extractor):
    """A network over single native frames that gives the features of up to K objects.

    Attributes:
        top_k: K, rows per frame; rows from `count` on are zero.
        needs_boxes: whether the boxes must be given with the frames, instead of being found.
    """

    top_k: int
    needs_boxes: bool

    @abstractmethod
    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], boxes: Sequence[GivenBoxes] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Extract a batch.

        Args:
            frames: B arrays (H, W, 3) uint8 RGB; sizes may differ.
            boxes: B `GivenBoxes`, one per frame, if `needs_boxes`; otherwise None.

        Returns:
            The arrays of `object_outputs`, each with B in front.

        Raises:
            ValueError: if frames or boxes are malformed, or their numbers disagree.
            OverflowError: if a value is not finite, or too large for the output dtype.
        """


def check_dtype(dtype: str) -> None:
    """Raise ValueError unless features can be stored in this dtype."""
    if dtype not in FLOAT_DTYPES:
        raise ValueError(f"got dtype {dtype!r}, expected one of {', '.join(FLOAT_DTYPES)}")


def check_frames(
    frames: Sequence[NDArray[np.uint8]], boxes: Sequence[GivenBoxes] | None, *, needs_boxes: bool
) -> None:
    """Raise ValueError unless frames (and boxes, where needed) are what `FrameExtractor` takes."""
    if not frames:
        raise ValueError("got no frames, expected at least one")
    for index, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
            raise ValueError(
                f"got frame {index} of shape {frame.shape} and dtype {frame.dtype}, "
                "expected (H, W, 3) uint8"
            )
    if not needs_boxes and boxes is not None:
        raise ValueError("got boxes, expected none: this extractor finds its own")
    if needs_boxes and (boxes is None or len(boxes) != len(frames)):
        got = "no boxes" if boxes is None else f"boxes of {len(boxes)} frames"
        raise ValueError(f"got {got}, expected one GivenBoxes for each of {len(frames)} frames")


def object_outputs(top_k: int, channels: int, dtype: str) -> dict[str, OutputSpec]:
    """Outputs of every frame extractor: the top K objects of one frame and how many are real."""
    if top_k < 1:
        raise ValueError(f"got top_k={top_k}, expected 1 or more")
    check_dtype(dtype)
    frame = {"box_frame": "native frame, x right, y down, origin at the top left corner"}
    return {
        "features": OutputSpec(
            ("object", "channel"), (top_k, channels), dtype, "", "one feature vector per object"
        ),
        "boxes_xyxy_px": OutputSpec(
            ("object", "xyxy"), (top_k, 4), "float32", "px", "left, top, right, bottom", frame
        ),
        "scores": OutputSpec(("object",), (top_k,), "float32", "", "confidence, best first"),
        "classes": OutputSpec(("object",), (top_k,), "int32", "", "class id of each object"),
        "count": OutputSpec((), (), "int32", "", "real objects; rows from here on are zero"),
        "frame_size_px": OutputSpec(
            ("width_height",), (2,), "int32", "px", "width and height of the native frame"
        ),
    }
