"""Checkpoint files of all kinds read as named tensors, never running code they may hold.

safetensors files hold nothing but tensors. torch's files hold a pickle, which torch's restricted
unpickler reads; numpy's arrays beside the tensors are let through as stand-ins. Plain pickles of
numpy arrays go through `load_numpy_pickle`.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from extractors.numpy_pickles import STAND_INS, PickledArray, Refused, load_numpy_pickle

__all__ = ["CheckpointError", "first", "load_state"]

_TORCH_SUFFIXES = (".pt", ".pth", ".tar")
_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES, ".pkl")
_WRAPPERS = ("state_dict", "model")
_SHOWN = 5
# "GLOBAL argparse.Namespace was not an allowed global" and other wordings of torch's
_FORBIDDEN = re.compile(r"(?:GLOBAL|global|class) ([\w.]+\.[\w.]+)")
_OLDEST_FORMAT = "legacy .tar format"  # torch's words
_SHOWN_NBYTES = 40


class CheckpointError(ValueError):
    """A file is no checkpoint that can be read; says what it is instead and what to do."""


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's parameters.

    A dictionary wrapped in ``state_dict`` or ``model`` is unwrapped, and the ``module.`` in front
    of every name of a data-parallel checkpoint removed. Code hidden in a pickle is never run.

    Args:
        path: a ``.safetensors`` file, torch's ``.pt``, ``.pth`` or ``.tar``, or a ``.pkl`` of numpy
            arrays such as those of detectron2's model zoo.

    Returns:
        name → tensor on the CPU, in the dtype of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is empty, cut short, or not a checkpoint of plain tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    if path.suffix not in _SUFFIXES:
        raise CheckpointError(
            f"got weights file {path}, expected a name ending in one of {', '.join(_SUFFIXES)}"
        )
    try:
        content = _read(path)
    except OSError:
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise _unreadable(path, error) from error
    state = _tensors(content, path)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def first(names: list[str]) -> str:
    """The first few of many names."""
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    zipped = _is_zip(path)
    if path.suffix == ".pkl" and not zipped:
        return load_numpy_pickle(path)
    if zipped:
        _check_sizes(path)
    allowed: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_sizes(path: Path) -> None:
    """torch never compresses what it saves: contents larger than the file are a bomb."""
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > path.stat().st_size:
        raise Refused(f"its entries claim {claimed} bytes, more than the whole file")


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    # Methods of dict itself: a pickle may set attributes of the dictionaries that it makes.
    while isinstance(content, dict):
        wrapped = [value for k in _WRAPPERS if isinstance(value := dict.get(content, k), dict)]
        if not wrapped:
            break
        content = wrapped[0]
    if not isinstance(content, dict):
        raise CheckpointError(f"got a {type(content).__name__} in {path}, expected named tensors")
    entries = list(dict.items(content))
    if not entries:
        raise CheckpointError(f"got no entries in {path}, expected named tensors")
    kinds = (Tensor, nn.Parameter, PickledArray)
    others = [
        name if isinstance(name, str) else f"one named by a {type(name).__name__}"
        for name, value in entries
        if not isinstance(name, str) or type(value) not in kinds
    ]
    if others:
        raise CheckpointError(
            f"got entries that are not tensors: {first(others)} in {path}, expected named tensors"
        )
    return {name: _tensor(name, value, path) for name, value in entries}


def _tensor(name: str, value: Tensor | PickledArray, path: Path) -> Tensor:
    if isinstance(value, PickledArray):
        try:
            return torch.from_numpy(value.array().copy())
        except ValueError as error:
            raise CheckpointError(f"{name} in {path}: {error}") from error
    tensor = Tensor.detach(value)
    # A view may claim any size on one number's storage, others have no storage or are encoded.
    plain = (
        tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    )
    if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"got {name} in {path}, {tuple(tensor.shape)} on {tensor.device}, with other storage "
            "than its numbers, expected a plain tensor; save the checkpoint anew"
        )
    return tensor


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"cannot read {path} ({size} bytes) as a checkpoint of plain tensors, and nothing in it "
        f"was run: {_reason(path, error)}"
    )


def _reason(path: Path, error: Exception) -> str:
    """What is wrong and what to do, in words of our own; torch's advise to run the code."""
    text = str(error)
    if isinstance(error, Refused):
        return text
    if found := _FORBIDDEN.search(text):
        return (
            f"it names {found[1]}, so it holds objects other than tensors; save its state_dict "
            "alone in the program that made it"
        )
    with open(path, "rb") as file:
        start = file.read(_SHOWN_NBYTES)
    if not start:
        return "it is empty; get it again"
    line = start.splitlines()[0].decode("ascii", "replace")
    if line and line.isprintable() and line.isascii():
        return (
            f"it starts with the words {line!r}; was a web page, or a pointer to the file, saved "
            "in its place?"
        )
    if _OLDEST_FORMAT in text and any(start):
        return "it is of torch's oldest format, a tar, which is not read; save it anew"
    return "it is cut off or not a checkpoint; get it again"
