"""RAFT optical flow as torchvision computes it, with weights in torchvision's layout.

"RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020,
https://arxiv.org/abs/2003.12039. Guesses: 12 updates, torchvision's default. Frames whose sides are
no multiples of 8, or below 128 px, are padded with their edges, as much on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.optical_flow import raft_large, raft_small

from extractors.flow import FlowEstimator, Frames
from extractors.inference import (
    check_precision,
    is_out_of_memory,
    network_inference,
    resolve_device,
)
from extractors.transforms import FLOW_BOUND_PX
from extractors.weights import create_network

__all__ = ["RAFTFlow", "RAFTOptions"]

_MODELS = {"large": raft_large, "small": raft_small}
_SIDE_MULTIPLE_PX = 8
_LEAST_SIDE_PX = 128  # four levels of correlations at an eighth of the size


@dataclass(frozen=True)
class RAFTOptions:
    """`model` is "large" or "small"; `iterations` are updates of the field."""

    model: str = "large"
    iterations: int = 12

    def __post_init__(self) -> None:
        if self.model not in _MODELS or self.iterations < 1:
            raise ValueError(
                f"got model {self.model!r} and {self.iterations} iterations for raft, expected "
                f"{' or '.join(_MODELS)}, and 1 or more"
            )


class RAFTFlow(FlowEstimator):
    """RAFT; pairs of one size go through it together, on a CPU one by one.

    Args:
        options: of the method.
        weights: checkpoint file, or None with a seed.
        seed: seed of random weights, or None with a file.
        bound_px: flow is clipped to ±this.
        batch_size: pairs at a time, but on a CPU, where the last digits would depend on it; halved
            for good when memory runs out.
        device: "cpu", "cuda" or "cuda:N".
        precision: one of `PRECISIONS`.

    Raises:
        ValueError: the checkpoint does not fit, or the device does not do what is asked.
    """

    name: ClassVar[str] = "raft"
    VERSION: ClassVar[int] = 1
    Options: ClassVar[type[Any]] = RAFTOptions
    needs_weights: ClassVar[bool] = True

    def __init__(
        self,
        options: RAFTOptions,
        *,
        weights: str | Path | None,
        seed: int | None,
        bound_px: float = FLOW_BOUND_PX,
        batch_size: int = 8,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        super().__init__(bound_px=bound_px)
        if batch_size < 1:
            raise ValueError(f"got batch_size {batch_size}, expected 1 or more")
        self.device = resolve_device(device)
        check_precision(precision, self.device)
        network = create_network(_MODELS[options.model], weights=weights, seed=seed, replaceable=())
        self.network = network.to(self.device).eval()
        self._options = options
        self._batch_size = 1 if self.device.type == "cpu" else batch_size
        self._precision = precision

    @classmethod
    def library(cls) -> str:
        """Name and version of torchvision."""
        return f"torchvision {version('torchvision')}"

    def _estimate(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
        fields: list[NDArray[np.float32]] = []
        for _, group in groupby(zip(first, second, strict=True), key=lambda pair: pair[0].shape):
            pairs = list(group)
            while pairs:
                size = min(self._batch_size, len(pairs))
                try:
                    fields += self._batch(pairs[:size])
                except Exception as error:
                    if size == 1 or not is_out_of_memory(error):
                        raise
                    self._batch_size = size // 2
                    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
                else:
                    del pairs[:size]
        return fields

    def _batch(
        self, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    ) -> list[NDArray[np.float32]]:
        height_px, width_px = pairs[0][0].shape[:2]
        left, right = _margins(width_px)
        top, bottom = _margins(height_px)
        with network_inference(self._precision, self.device):
            stacked = torch.from_numpy(
                np.stack([np.stack(side) for side in zip(*pairs, strict=True)])
            )
            pixels = stacked.to(self.device).permute(0, 1, 4, 2, 3)  # (2, n, 3, H, W)
            x = pixels.float().div_(255).sub_(0.5).div_(0.5)
            padded = [F.pad(side, (left, right, top, bottom), mode="replicate") for side in x]
            updates: list[Tensor] = self.network(*padded, num_flow_updates=self._options.iterations)
            field = updates[-1].float()[:, :, top : top + height_px, left : left + width_px]
            return list(field.permute(0, 2, 3, 1).cpu().numpy())  # n × (H, W, 2)


def _margins(side_px: int) -> tuple[int, int]:
    """By how much a side is padded before and after it."""
    padded = max(-(-side_px // _SIDE_MULTIPLE_PX) * _SIDE_MULTIPLE_PX, _LEAST_SIDE_PX)
    return (padded - side_px) // 2, padded - side_px - (padded - side_px) // 2
