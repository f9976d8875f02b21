"""Clips of computed flow as the input of a network: frames in, flow made, the network run on it.

Flow i of a clip whose frames are at t_i goes from t_(i − span + 1) to t_(i + 1): with a span of 1
from each frame to the next, with 3 as the official images of EPIC-KITCHENS (at a stride of 2).
So F flow frames need F + span RGB frames, span − 1 before the clip and one after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from extractors.base import ClipExtractor, OutputSpec, Pending, Preprocessing
from extractors.flow import FlowEstimator
from extractors.geometry import Geometry
from extractors.transforms import FLOW_BOUND_PX

__all__ = ["FlowClipExtractor", "FlowClips"]

MEMO_NBYTES = 512 * 2**20

Field = NDArray[np.float32]


class FlowClips:
    """Turns clips of frames into clips of flow; overlapping clips share what they have in common.

    Args:
        estimator: the method.
        geometry: how fields become what the network sees.
        span: clip strides from the first frame of a pair to the second.
        memo_nbytes: fields kept for clips to come; the oldest go first.
    """

    def __init__(
        self,
        estimator: FlowEstimator,
        *,
        geometry: Geometry,
        span: int = 1,
        memo_nbytes: int = MEMO_NBYTES,
    ) -> None:
        if span < 1:
            raise ValueError(f"got span {span}, expected 1 or more")
        self.estimator = estimator
        self.span = span
        self._geometry = geometry
        self._memo: OrderedDict[bytes, Field] = OrderedDict()
        self._room_nbytes = memo_nbytes

    def __call__(self, frames: NDArray[np.uint8]) -> Field:
        """One clip.

        Args:
            frames: (F + span, H, W, 3) uint8 RGB.

        Returns:
            (F, H', W', 2) float32: flow in units of which `FLOW_BOUND_PX` stand for the bound.

        Raises:
            ValueError: too few frames, or frames that are none.
            OverflowError: flow that is not finite.
        """
        if len(frames) <= self.span:
            raise ValueError(f"got {len(frames)} frames for a span of {self.span}, expected more")
        digests = [blake2b(frame.tobytes(), digest_size=16).digest() for frame in frames]
        shape = repr(frames.shape[1:]).encode()
        keys = [a + b + shape for a, b in zip(digests, digests[self.span :], strict=False)]
        fields = {key: self._memo[key] for key in keys if key in self._memo}
        todo = {key: i for i, key in enumerate(keys) if key not in fields}
        made = self.estimator(
            [frames[i] for i in todo.values()], [frames[i + self.span] for i in todo.values()]
        )
        scale = np.float32(FLOW_BOUND_PX / self.estimator.bound_px)
        for key, field in zip(todo, made, strict=True):
            fields[key] = self._geometry.apply(field) * scale
        clip = np.stack([fields[key] for key in keys])
        self._remember(fields)
        return clip

    def _remember(self, fields: Mapping[bytes, Field]) -> None:
        for key, field in fields.items():
            if key not in self._memo:
                self._memo[key] = field
                self._room_nbytes -= field.nbytes
            self._memo.move_to_end(key)
        while self._room_nbytes < 0:
            _, oldest = self._memo.popitem(last=False)
            self._room_nbytes += oldest.nbytes


class FlowClipExtractor(ClipExtractor):
    """A network over flow that takes clips of frames; flow is made in `prepare`.

    Args:
        network: a network with 2 channels.
        flow: makes its input.

    Raises:
        ValueError: a network over RGB.
    """

    def __init__(self, network: ClipExtractor, flow: FlowClips) -> None:
        if network.channels != 2:
            raise ValueError(
                f"got a network with {network.channels} channels, expected 2: one over flow"
            )
        self._network = network
        self._flow = flow
        self.frames = network.frames
        self.size_px = network.size_px
        self.channels = network.channels
        self.device = network.device
        self.outputs: Mapping[str, OutputSpec] = network.outputs

    @classmethod
    def preprocessing(cls, options: Any) -> Preprocessing:
        raise NotImplementedError("ask the network's own class")

    def prepare(self, frames: NDArray[np.uint8]) -> Field:
        """(F + span, H, W, 3) uint8 RGB → (F, S, S, 2) float32 flow."""
        return self._flow(frames)

    def __call__(self, clips: Tensor) -> dict[str, NDArray[Any]]:
        return self._network(clips)

    def launch(self, clips: Tensor) -> Pending:
        return self._network.launch(clips)
