"""Pickles of numpy arrays in plain containers, read without running anything they name.

detectron2's model zoo and other older collections are pickles of ``{"model": {name: array}}``. A
pickle calls whatever functions it names; here each name it may use leads to a stand-in of this
file, which only remembers what it was given, and any other name is an error. Not even numpy's own
unpickling runs. A stand-in becomes an array when somebody asks for it, after its numbers are
checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STAND_INS", "PickledArray", "Refused", "load_numpy_pickle"]

_NUMBER = re.compile(r"[biuf][1248]")
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


class Refused(pickle.UnpicklingError):
    """A file that holds what is not read; the message goes on from "cannot read it:"."""


class PickledType:
    """Stands in for `numpy.dtype`."""

    def __init__(self, kind: Any, *_: Any) -> None:
        self._kind = kind
        self._order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """The type, if it is one of numbers.

        Raises:
            ValueError: if it is not.
        """
        if not isinstance(self._kind, str) or not _NUMBER.fullmatch(self._kind):
            raise ValueError(f"got an array of type {str(self._kind)[:20]!r}, expected numbers")
        if self._order not in ("<", ">", "=", "|"):
            raise ValueError(f"got byte order {str(self._order)[:20]!r}, expected <, >, = or |")
        return np.dtype(self._kind).newbyteorder(self._order)


class PickledArray:
    """Stands in for an array or a number of numpy."""

    def __init__(self, *_: Any) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def array(self) -> NDArray[Any]:
        """The array, read-only, in this machine's byte order.

        Raises:
            ValueError: if what was pickled is no array of numbers.
        """
        match self._state:
            case (_, tuple(shape), PickledType() as kind, fortran, bytes() | bytearray() as raw):
                pass
            case (_, tuple(shape), PickledType() as kind, fortran, str() as text):  # of Python 2
                raw = text.encode("latin1")
            case _:
                raise ValueError("got something else than an array of numbers")
        dtype = kind.dtype()
        lengths = [n for n in shape if type(n) is int and n >= 0]
        if len(lengths) < len(shape) or math.prod(lengths) * dtype.itemsize != len(raw):
            raise ValueError(
                f"got {len(raw)} bytes for an array of shape {str(shape)[:60]} and type {dtype}"
            )
        flat = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=False)
        return flat.reshape(lengths, order="F" if fortran else "C")


def _array_of(state: tuple[Any, ...]) -> PickledArray:
    array = PickledArray()
    array.__setstate__(state)
    return array


def _scalar(kind: Any, raw: Any = b"") -> PickledArray:
    return _array_of((1, (), kind, False, raw))


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> PickledArray:
    return _array_of((1, shape, kind, order == "F", raw))


def _ndarray(*_: Any) -> None:
    """`numpy.ndarray` is only ever an argument of `_reconstruct`."""


def _encode(text: str, *_: Any) -> bytes:
    """Bytes in pickles of the oldest protocols are latin-1 text and the codec's name."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


# numpy moved its insides from `core` to `_core`; Python 2 called `builtins` `__builtin__`.
STAND_INS: Mapping[str, Callable[..., Any]] = {
    "numpy.dtype": PickledType,
    "numpy.ndarray": _ndarray,
    **{f"numpy.{core}.multiarray._reconstruct": PickledArray for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
}
_PLAIN: Mapping[str, Callable[..., Any]] = {
    **STAND_INS,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
}


def load_numpy_pickle(path: Path) -> Any:
    """The pickled object, with a `PickledArray` for each array.

    Raises:
        Refused: if it names anything but arrays and plain containers.
        Exception: of any kind, if the file is damaged.
    """
    data = path.read_bytes()
    _check_memo(data)
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PLAIN[f"{module}.{name}"]
        except KeyError:
            raise Refused(
                f"it names {module}.{name}, which is neither an array nor a plain container"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("it refers to objects outside the file")


def _check_memo(data: bytes) -> None:
    """The unpickler makes room for any memo number it meets; picklers count from 0.

    This also holds the length of each string against the bytes that are left.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in _MEMO and (argument is None or argument > count):
            raise Refused(f"its object {argument} comes before object {count}")
