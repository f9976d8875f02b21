"""How a network is run for features: precision, device and memory layout; features to numpy.

The switches of torch used here hold for the whole process, so that networks of different precision
run one after the other, never at the same time in two threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.base import PRECISIONS, check_dtype

__all__ = [
    "Stored",
    "check_precision",
    "clips_at_once",
    "is_out_of_memory",
    "memory_format_3d",
    "network_inference",
    "resolve_device",
    "to_array",
    "to_tensor",
]

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_TF32_FROM_CAPABILITY = (8, 0)

# What allocators say that have no error class of their own: torch's on the CPU, oneDNN, CUDA's
# libraries.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "_STATUS_ALLOC_FAILED",
)


@contextmanager
def network_inference(
    precision: str, device: torch.device, *, fixed_shapes: bool = True
) -> Iterator[None]:
    """Inference mode in one precision.

    "float32" is exact: cuDNN's convolutions would otherwise round their inputs to TF32's 10 bits
    on their own accord. "tf32" allows just that, to convolutions and matrix products. "bfloat16"
    and "float16" are `torch.autocast`: parameters stay float32, and torch decides operation by
    operation what is safe in half precision.

    An error for want of memory leaves without the tensors it arose among, so that a smaller batch
    finds their memory free, even while the error is being handled.

    Args:
        precision: one of `PRECISIONS`.
        device: where the network is.
        fixed_shapes: few shapes come again and again, which makes it worth while for cuDNN to try
            all its algorithms on each. They differ in the last digits only.

    Raises:
        ValueError: see `check_precision`.
    """
    check_precision(precision, device)
    tf32 = precision == "tf32"
    dtype = _AUTOCAST.get(precision)
    cast = torch.autocast(device.type, dtype, enabled=dtype is not None)
    convolutions = torch.backends.cudnn.flags(
        enabled=True, benchmark=fixed_shapes, deterministic=True, allow_tf32=tf32
    )
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.inference_mode(), convolutions, cast:
            yield
    except Exception as error:
        if is_out_of_memory(error):
            _release(error)
        raise
    finally:
        torch.set_float32_matmul_precision(products)


def _release(error: BaseException | None) -> None:
    """Empty the frames that an error came through; they hold the tensors of a whole pass."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__context__


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what the device cannot do, rather than give rows of other numbers.

    The device "meta", on which nothing runs, stands for one that is not at hand yet.

    Raises:
        ValueError: if the precision is none of `PRECISIONS`, or the device cannot run it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and not _has_tf32(device):
        raise ValueError(
            f"got precision 'tf32' on {device}, expected a CUDA device of capability "
            f"{'.'.join(map(str, _TF32_FROM_CAPABILITY))} or newer; use float32 or bfloat16"
        )


def _has_tf32(device: torch.device) -> bool:
    if device.type == "meta":
        return True
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= _TF32_FROM_CAPABILITY


def memory_format_3d(precision: str, device: torch.device) -> torch.memory_format:
    """The layout in which 3-D networks and their input run fastest; numbers agree within 1e-5.

    On CPUs channels-last spares oneDNN its reordering round each convolution. Time against the
    other layout, float32 and bfloat16, one thread: ResNet3D-50 0.92 and 0.74, I3D 0.60 and 0.41,
    S3D 0.88 and 0.32, R(2+1)D-34 1.05 and 0.60, transformers 1. On CUDA the tensor cores work on
    channels-last, so the other layout costs transposes; exact float32 does not use them.
    """
    exact_cuda = device.type == "cuda" and precision == "float32"
    return torch.contiguous_format if exact_cuda else torch.channels_last_3d


def resolve_device(device: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if CUDA is asked for and there is none (never falls back to the CPU).
    """
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"got device {device!r} but no CUDA device is available; use 'cpu'")
    return resolved


def clips_at_once(device: torch.device) -> int | None:
    """How many clips go through a network together for their numbers to be always the same.

    On a CPU, libraries choose their kernels by the length of the batch, and the last digits with
    them. Pairs are as fast as longer batches; a clip alone is as fast where there is one thread,
    for which matrix products tell the two places of a pair apart.

    Returns:
        None for as many as there are: on CUDA the last digits may differ.
    """
    if device.type != "cpu":
        return None
    return 2 if torch.get_num_threads() > 1 else 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help: memory of the device or of the machine ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words.lower() in text.lower() for words in _OUT_OF_MEMORY
    )


def to_tensor(frame: NDArray[np.uint8]) -> Tensor:
    """The frame as a tensor; copied only where torch cannot share it (read-only, flipped)."""
    return torch.from_numpy(np.require(frame, requirements=("C", "W")))


class Stored:
    """Features on their way to numpy: cast and checked on the device, perhaps still computing.

    Args:
        features: of any float dtype.
        dtype: to store them in, one of `FLOAT_DTYPES`.

    Raises:
        ValueError: if `dtype` is none of `FLOAT_DTYPES`.
    """

    def __init__(self, features: Tensor, dtype: str) -> None:
        check_dtype(dtype)
        self._dtype = dtype
        self._limit = torch.finfo(getattr(torch, dtype)).max
        largest = features.abs().amax() if features.numel() else torch.zeros(())
        stored = features.to(getattr(torch, dtype)).contiguous()
        # Not blocking means into pinned memory, and only queued: not there before `ready`.
        self._largest = largest.to("cpu", non_blocking=True)  # NaN if any value is
        self._values = stored.to("cpu", non_blocking=True)
        self._ready: torch.cuda.Event | None = None
        if features.is_cuda:
            self._ready = torch.cuda.Event()
            self._ready.record(torch.cuda.current_stream(features.device))

    def array(self) -> NDArray[Any]:
        """The features; waits until they are there.

        Raises:
            OverflowError: if a value is not finite, or too large for the dtype.
        """
        if self._ready is not None:
            self._ready.synchronize()
        largest = float(self._largest)
        if not largest <= self._limit:
            raise OverflowError(
                f"got a feature of magnitude {largest:g}, expected at most {self._limit:g} for "
                f"{self._dtype}; check the weights, or store bfloat16 or float32"
            )
        if self._values.dtype is torch.bfloat16:  # numpy itself has none
            return self._values.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return self._values.numpy()


def to_array(features: Tensor, dtype: str) -> NDArray[Any]:
    """Bring features to the CPU as numpy in the storage dtype.

    Raises:
        ValueError: if `dtype` is none of `FLOAT_DTYPES`.
        OverflowError: if a value is not finite, or too large for `dtype`.
    """
    return Stored(features, dtype).array()
