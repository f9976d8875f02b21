"""Content keys: what a stage is, and what a row is of.

Both are sha256. A *stage key* covers every setting that decides the numbers of a stage; a *row key*
covers the content of the video and the times looked at. Together they name a row wherever it was
made. Paths, hosts, devices, batch sizes and worker counts are in neither.

A key is written as 64 hex digits; many keys are an array of 32 bytes each, see
`stores.row_keys`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.row_keys import KEY_DTYPE

__all__ = [
    "KEY_SCHEMA",
    "Keys",
    "canonical_json",
    "derived_row_keys",
    "row_key",
    "row_keys",
    "stage_key",
]

# Raised when the way keys are made changes; every generation then starts anew.
KEY_SCHEMA = 1

ROWS_AT_ONCE = 8192  # what is hashed lies in memory for so many rows

Keys = npt.NDArray[np.bytes_]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: NaN or infinity.
        TypeError: something that is not plain JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def stage_key(settings: Mapping[str, Any]) -> str:
    """Key of a stage from all settings that decide its numbers."""
    content = canonical_json({"schema": KEY_SCHEMA, **settings})
    return hashlib.sha256(content.encode()).hexdigest()


def row_key(video_identity: str, times_us: Ints, extra: bytes = b"") -> str:
    """Key of a row that looks at a video.

    Args:
        video_identity: hex digest of the video's content.
        times_us: (n,) int64, microseconds from the first frame.
        extra: other input the row is made from, such as given boxes.
    """
    times = np.ascontiguousarray(times_us, dtype="<i8").tobytes()
    return hashlib.sha256(_head(video_identity) + times + b"\0" + extra).hexdigest()


def row_keys(
    identities: Sequence[str], which: Ints, moments_us: Ints, times_of: Callable[[Ints], Ints]
) -> Keys:
    """`row_key` of many rows without extra input.

    Args:
        identities: of videos.
        which: (n,) the row's video among them.
        moments_us: (n,) what tells the rows of a video apart.
        times_of: makes (k, t) times of k moments.
    """
    keys = np.empty(len(which), KEY_DTYPE)
    heads = [_head(identity) for identity in identities]
    widths = np.array([len(head) for head in heads], dtype=np.int64)
    for width in sorted(set(widths.tolist())):
        # Heads of another width are cut here and asked for there.
        table = np.frombuffer(b"".join(h[:width].ljust(width) for h in heads), f"V{width}")
        rows = np.flatnonzero(widths[which] == width)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            times = times_of(moments_us[some])
            dtype = [("head", f"V{width}"), ("times", "<i8", times.shape[1:]), ("end", "u1")]
            content = np.zeros(len(some), dtype)
            content["head"], content["times"] = table[which[some]], times
            keys[some] = _sha256_of_each(content)
    return keys


def derived_row_keys(upstream: Sequence[tuple[Keys, Ints]]) -> Keys:
    """Keys of rows that are made from other rows: (n,).

    Args:
        upstream: of each stage they are made from, in order: keys, and (n, k) which k of these
            keys each row has, in order.
    """
    head = np.frombuffer(b"symbio derived row", np.uint8)
    made = np.empty(len(upstream[0][1]), KEY_DTYPE)
    for start in range(0, len(made), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        rows = len(made[some])
        parts = [np.broadcast_to(head, (rows, len(head)))]
        parts += [_spelt_out(keys[numbers[some]]).reshape(rows, -1) for keys, numbers in upstream]
        made[some] = _sha256_of_each(np.concatenate(parts, axis=1))
    return made


def _head(video_identity: str) -> bytes:
    return b"symbio row\0" + video_identity.encode() + b"\0"


def _spelt_out(keys: Keys) -> Bytes:
    """(keys, 65): a zero byte and 64 hex digits."""
    spelt = np.zeros((keys.size, 65), np.uint8)
    spelt[:, 1:] = np.frombuffer(keys.tobytes().hex().encode(), np.uint8).reshape(-1, 64)
    return spelt


def _sha256_of_each(contents: npt.NDArray[Any]) -> Keys:
    """Keys of (n, ...) contents, each of which is hashed as it lies in memory."""
    sha256, width = hashlib.sha256, contents.nbytes // len(contents)
    view = memoryview(contents.tobytes())
    digests = [sha256(view[at : at + width]).digest() for at in range(0, len(view), width)]
    return np.frombuffer(b"".join(digests), KEY_DTYPE)
