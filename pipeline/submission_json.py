"""The JSON of a submission, read without trust: sizes, duplicated keys, numbers that are none.

Objects of nothing but numbers become arrays while the text is read, so that a file of millions of
numbers takes little memory.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

__all__ = ["JsonObject", "Numbers", "parse_object", "read_files"]

MAX_JSON_BYTES = 2**30
MAX_MEMBERS = 4


@dataclass(frozen=True, slots=True)
class Numbers:
    """An object whose values are all numbers; infinite where no float64 holds them."""

    keys: tuple[str, ...]
    values: NDArray[np.float64]
    duplicates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any other object."""

    values: dict[str, object]
    duplicates: tuple[str, ...]


def read_files(path: Path) -> dict[str, bytes]:
    """The JSON files of a submission: those in a zip, or the file itself, by name.

    Raises:
        ValueError: not such a file, or a size that no submission has.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a submission (.zip or .json)")
    if not is_zipfile(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path}: got more than {MAX_JSON_BYTES:,} bytes, expected fewer")
        return {path.name: path.read_bytes()}
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            if not 1 <= len(names) <= MAX_MEMBERS or len(set(names)) < len(names):
                raise ValueError(f"{path}: got {len(names)} files in the zip, expected one or two")
            return {name: _member(path, archive, name) for name in names}
    except (BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: got a zip file that cannot be read: {error}") from error


def _member(path: Path, archive: ZipFile, name: str) -> bytes:
    """A file of the zip. What it says of its own size is not believed."""
    with archive.open(name) as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"{path}: got more than {MAX_JSON_BYTES:,} bytes in {name}, expected fewer"
        )
    return content


def parse_object(where: str, content: bytes) -> JsonObject:
    """The one JSON object of a file.

    Raises:
        ValueError: no JSON, or something else than an object of more than numbers.
    """
    try:
        found = json.loads(
            content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: got no valid JSON: {error}") from error
    if not isinstance(found, JsonObject):
        raise ValueError(f"{where}: got JSON that is no submission, expected an object")
    return found


def _object(pairs: list[tuple[str, object]]) -> Numbers | JsonObject:
    keys = tuple(key for key, _ in pairs)
    duplicates: tuple[str, ...] = ()
    if len(set(keys)) < len(keys):
        duplicates = tuple(key for key, times in Counter(keys).items() if times > 1)
    numbers = [value for _, value in pairs if type(value) in (int, float)]
    if pairs and len(numbers) == len(pairs):
        return Numbers(keys, np.array([_float(one) for one in numbers]), duplicates)
    return JsonObject(dict(pairs), duplicates)


def _float(number: object) -> float:
    try:
        return float(number)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf")


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
