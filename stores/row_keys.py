"""Row keys, 64 hex digits each, as 32 bytes each: for SQLite one by one, for numpy by the million.

numpy shows elements of dtype S32 without the NUL bytes at their end. Arrays hold all 32 bytes,
and comparing them compares all 32.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stores.names import check_key

__all__ = ["KEY_DTYPE", "check_packed", "key_texts", "pack_keys", "packed_array", "prefixes_of"]

KEY_DTYPE = np.dtype("S32")

_DIGITS = 64


def pack_keys(keys: Iterable[str]) -> bytes:
    """Return row keys as bytes, 32 each; raise ValueError for what is no row key."""
    listed = list(keys)
    try:
        text = "".join(listed)
        packed = bytes.fromhex(text)
        # All in one look: lower case, nothing that fromhex skips, each of the right length.
        fine = packed.hex() == text and set(map(len, listed)) <= {_DIGITS}
    except (TypeError, ValueError):
        fine = False
    if not fine:
        for key in listed:
            check_key("row key", key)  # says which one it is
    return packed


def packed_array(keys: Iterable[str]) -> NDArray[np.bytes_]:
    """Return row keys as an array (len(keys),) of dtype S32; raise ValueError as `pack_keys`."""
    return np.frombuffer(pack_keys(keys), KEY_DTYPE)


def key_texts(keys: NDArray[np.bytes_]) -> list[str]:
    """Return packed keys, (n,) of dtype S32, as 64 hex digits each."""
    text = check_packed(keys).tobytes().hex()
    return [text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS)]


def check_packed(keys: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Return packed keys as a C-contiguous array; raise ValueError for another dtype or shape."""
    if keys.dtype != KEY_DTYPE or keys.ndim != 1:
        raise ValueError(
            f"got keys of {keys.dtype} {keys.shape}, expected packed ones of S32, one after the "
            "other; see stores.row_keys"
        )
    return np.ascontiguousarray(keys)


def prefixes_of(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first 8 bytes of contiguous packed keys as numbers that sort as the keys do."""
    return keys.view(">u8").reshape(-1, 4)[:, 0].astype(np.uint64)
