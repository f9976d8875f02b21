"""What a store is told and what it answers: specs, rows, failures, receipts, problems."""

import dataclasses
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from stores.names import check_id, check_key, check_name

DTYPES = (
    *("bfloat16", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
RESERVED_ATTRIBUTES = frozenset({"units", "description", "stage", "key", "bfloat16"})
MAX_MESSAGE_CHARACTERS = 10_000
MAX_AXES = 16
MAX_ROW_NBYTES = 256 * 2**20

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _check_int(what: str, value: SupportsIndex) -> int:
    """Return `value` as an int; raise ValueError where it takes more than 64 bits."""
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"got {what} {number}, expected an integer of 64 bits")
    return number


@dataclass(frozen=True)
class ArraySpec:
    """One output of a stage: what a single row of it looks like.

    Attributes:
        dims: names of the row's axes, one per axis of `shape`; "row" itself is not among them.
        shape: sizes of one row; () for one number per row.
        dtype: numpy name, one of `DTYPES`.
        units: of the values, "" where they have none.
        description: one sentence for people who open the store without this program.
        attributes: JSON values kept beside the array, such as the frame that boxes live in.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str = ""
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(check_name("dim", dim) for dim in self.dims))
        object.__setattr__(self, "shape", tuple(operator.index(size) for size in self.shape))
        if len(self.dims) != len(self.shape):
            raise ValueError(f"got dims {self.dims} for shape {self.shape}, expected one per axis")
        if len(set(self.dims)) != len(self.dims) or "row" in self.dims:
            raise ValueError(f"got dims {self.dims}, expected different names, none of them 'row'")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"got shape {self.shape}, expected sizes of at least 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"got dtype {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if len(self.shape) > MAX_AXES or self.row_nbytes > MAX_ROW_NBYTES:
            raise ValueError(
                f"got rows of {len(self.shape)} axes and {self.row_nbytes:,} bytes, expected at "
                f"most {MAX_AXES} axes and {MAX_ROW_NBYTES:,} bytes"
            )
        taken = sorted(RESERVED_ATTRIBUTES & set(self.attributes))
        if taken:
            raise ValueError(f"got attributes {taken}, which the store itself writes; rename them")
        # A round trip through JSON, so that a spec equals the one read back from disk.
        plain = json.loads(json.dumps(dict(self.attributes), allow_nan=False))
        object.__setattr__(self, "attributes", plain)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """What arrays of this output are made of."""
        return _BFLOAT16 if self.dtype == "bfloat16" else np.dtype(self.dtype)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row, before compression."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ArraySpec":
        """Rebuild what `to_json` gave."""
        return cls(**document)


def check_specs(specs: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """Return a copy of the outputs of one stage after checking names and shared dims.

    Raises:
        ValueError: no outputs, a bad name, or one dim name used for two sizes: the outputs of a
            generation are one dataset with named dims, and readers refuse such a dataset.
    """
    if not specs:
        raise ValueError("got no outputs, expected at least one ArraySpec")
    sizes: dict[str, tuple[int, str]] = {}
    for name, spec in specs.items():
        check_name("output", name)
        for dim, size in zip(spec.dims, spec.shape, strict=True):
            other_size, other = sizes.setdefault(dim, (size, name))
            if other_size != size:
                raise ValueError(
                    f"got dim {dim!r} of size {size} in output {name!r} and of size {other_size} "
                    f"in output {other!r}, expected one size; give one of the dims another name"
                )
    return dict(specs)


@dataclass(frozen=True)
class RowInfo:
    """What a row is about, for people: nothing is ever looked up by it.

    Attributes:
        clip_id, video_id, segment_id: at most 255 bytes each; only `clip_id` must not be empty.
        view: number of the temporal view of the segment.
        first_seconds, last_seconds: times of the row's first and last frame in its video.
        flags: words separated by spaces, such as "clamped".
    """

    clip_id: str
    video_id: str = ""
    segment_id: str = ""
    view: int = 0
    first_seconds: float = 0.0
    last_seconds: float = 0.0
    flags: str = ""

    def __post_init__(self) -> None:
        if self.clip_id == "":
            raise ValueError("got an empty clip_id, expected a name to call the row by")
        for name in ("clip_id", "video_id", "segment_id", "flags"):
            check_id(name, getattr(self, name))
        object.__setattr__(self, "view", _check_int("view", self.view))
        for name in ("first_seconds", "last_seconds"):
            seconds = float(getattr(self, name))
            if not math.isfinite(seconds):
                raise ValueError(f"got {name} {seconds} for clip {self.clip_id!r}, expected finite")
            object.__setattr__(self, name, seconds + 0.0)  # one zero: not every file keeps -0.0

    def to_json(self) -> list[Any]:
        """Return the fields as a list, in their order."""
        return list(_info_fields(self))

    @classmethod
    def from_json(cls, fields: list[Any]) -> "RowInfo":
        """Rebuild what `to_json` gave."""
        return cls(*fields)


# Thirty times as fast as `dataclasses.astuple`, which copies values that need no copy.
_info_fields = operator.attrgetter(*(field.name for field in dataclasses.fields(RowInfo)))


@dataclass(frozen=True, eq=False)
class Row:
    """One row to be stored: its key, one array per output, and what it is about."""

    key: str
    arrays: Mapping[str, NDArray[Any]]
    info: RowInfo

    def __post_init__(self) -> None:
        check_key("row key", self.key)


@dataclass(frozen=True)
class Failure:
    """A row that could not be made, kept so that it is reported and not tried for ever.

    Attributes:
        error_class: name of the exception; `message`: its text, cut after 10,000 characters.
        frame: number of the frame it happened at, None where it is not about one frame.
    """

    row_key: str
    clip_id: str
    video_id: str
    error_class: str
    message: str
    frame: int | None = None

    def __post_init__(self) -> None:
        check_key("row key", self.row_key)
        for name in ("clip_id", "video_id"):
            check_id(name, getattr(self, name))
        for name in ("error_class", "message"):
            # Messages quote file names, which may hold bytes that are no text: never lose the
            # report of one failure to another.
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            text = text.replace("\0", "\\x00")
            if len(text) > MAX_MESSAGE_CHARACTERS:
                text = f"{text[:MAX_MESSAGE_CHARACTERS]}…"
            object.__setattr__(self, name, text)
        if self.frame is not None:
            object.__setattr__(self, "frame", _check_int("frame", self.frame))


@dataclass(frozen=True)
class Receipt:
    """Proof that one shard is on disk, to be handed to `FeatureStore.commit`.

    Attributes:
        shard: number of the shard within its generation.
        slots: slot in the shard → (row key, info).
        nbytes: size of the shard's files together.
        checks: part of the shard, which is an output or all of them → crc32c of what its file says
            about itself, so that a file which was exchanged for another one is noticed.
    """

    stage: str
    key: str
    shard: int
    slots: Mapping[int, tuple[str, RowInfo]]
    nbytes: int
    checks: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        slots = [[slot, key, info.to_json()] for slot, (key, info) in self.slots.items()]
        return {**vars(self), "slots": slots, "checks": dict(self.checks)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Receipt":
        """Rebuild what `to_json` gave; raise ValueError where it holds bad keys or ids."""
        slots = {
            slot: (check_key("row key", key), RowInfo.from_json(info))
            for slot, key, info in document["slots"]
        }
        return cls(**{**document, "slots": slots})


@dataclass(frozen=True)
class Problem:
    """One thing that `FeatureStore.verify` found.

    Attributes:
        message: what is wrong, where, and which clips it costs.
        row_keys: the rows to forget and compute again; empty where no row is lost.
        shard: number of a shard that is broken as a whole, None where single rows are damaged;
            without `row_keys`, of one whose rows are not damaged and should be written anew.
    """

    message: str
    row_keys: tuple[str, ...] = ()
    shard: int | None = None

    def __str__(self) -> str:
        return self.message


def name_some(names: list[str], limit: int = 3) -> str:
    """Return "'a', 'b', 'c' and 7 more"."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
