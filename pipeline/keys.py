"""Content keys: what a stage is, and what a row is of.

Both are sha256 in hex. A *stage key* covers every setting that decides the numbers of a stage; a
*row key* covers the content of the video and the times looked at. Together they name a row
wherever it was made. Paths, hosts, devices, batch sizes and worker counts are in neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KEY_SCHEMA", "canonical_json", "derived_row_key", "row_key", "stage_key"]

# Raised when the way keys are made changes; every generation then starts anew.
KEY_SCHEMA = 1


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
    return _sha256(canonical_json({"schema": KEY_SCHEMA, **settings}).encode())


def row_key(video_identity: str, times_us: npt.NDArray[np.int64], extra: bytes = b"") -> str:
    """Key of a row that looks at a video.

    Args:
        video_identity: hex digest of the video's content.
        times_us: (n,) int64, microseconds from the first frame.
        extra: other input the row is made from, such as given boxes.
    """
    times = np.ascontiguousarray(times_us, dtype="<i8").tobytes()
    return _sha256(b"\0".join((b"symbio row", video_identity.encode(), times, extra)))


def derived_row_key(upstream: tuple[str, ...]) -> str:
    """Key of a row that is made from other rows, named by their keys in order."""
    return _sha256("\0".join(("symbio derived row", *upstream)).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
