"""How a network is run for features: float32, no gradients, the same numbers every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.base import check_dtype


@contextmanager
def float32_inference() -> Iterator[None]:
    """Inference mode with true float32 convolutions.

    TF32 rounds inputs to 10 bits and algorithm search may pick another algorithm for another
    batch size: both would make a row depend on how it was batched.
    """
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), exact:
        yield


def resolve_device(device: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if CUDA is asked for and there is none (never falls back to the CPU).
    """
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"got device {device!r} but no CUDA device is available; use 'cpu'")
    return resolved


def to_tensor(frame: NDArray[np.uint8]) -> Tensor:
    """The frame as a tensor; copied only where torch cannot share it (read-only, flipped)."""
    return torch.from_numpy(np.require(frame, requirements=("C", "W")))


def to_array(features: Tensor, dtype: str) -> NDArray[Any]:
    """Bring float32 features to the CPU as numpy in the storage dtype.

    Raises:
        ValueError: if `dtype` is none of `FLOAT_DTYPES`.
        OverflowError: if a value is not finite, or too large for `dtype`.
    """
    check_dtype(dtype)
    stored = getattr(torch, dtype)
    limit = torch.finfo(stored).max
    if features.numel():
        largest = float(features.abs().amax())  # NaN if any value is
        if not largest <= limit:
            raise OverflowError(
                f"got a feature of magnitude {largest:g}, expected at most {limit:g} for {dtype}; "
                "check the weights, or store bfloat16 or float32"
            )
    features = features.to(stored).cpu()
    if stored is torch.bfloat16:  # numpy itself has none
        return features.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return features.numpy()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory is full."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
