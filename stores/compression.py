"""Lossless compression of single rows.

Never with byte shuffling: it tears apart the runs of zeros that ReLU maps are full of.
"""

from typing import Any, Literal, get_args

from stores.durable import Block

Compression = Literal["none", "zstd"]
COMPRESSIONS: tuple[str, ...] = get_args(Compression)
ZSTD_LEVEL = 1


def check_compression(name: str) -> str:
    """Return `name`; raise ValueError unless it is one of `COMPRESSIONS`."""
    if name not in COMPRESSIONS:
        raise ValueError(f"got compression {name!r}, expected one of {', '.join(COMPRESSIONS)}")
    return name


def max_stored_nbytes(nbytes: int) -> int:
    """Return the most bytes that zstd makes of `nbytes` (ZSTD_COMPRESSBOUND)."""
    return nbytes + nbytes // 256 + 64


def compress(values: Block) -> bytes:
    """Return values as one zstd frame that declares their size."""
    from numcodecs import zstd  # it loads every codec there is

    compressed: bytes = zstd.compress(values, ZSTD_LEVEL)
    return compressed


def decompress_into(stored: Block, target: memoryview) -> None:
    """Fill `target` with what `stored` holds.

    Raises:
        ValueError: it is no zstd frame of exactly that size; nothing larger is ever allocated.
    """
    from numcodecs import zstd

    try:
        declared = _declared_nbytes(memoryview(stored))
        if declared != target.nbytes:
            raise ValueError(f"got a frame of {declared} bytes, expected {target.nbytes:,}")
        zstd.decompress(stored, target)
    except RuntimeError as error:
        raise ValueError(f"got bytes that zstd cannot read: {error}") from error


def _declared_nbytes(frame: memoryview) -> Any:
    """Return the size a zstd frame declares, None where it declares none (RFC 8878, 3.1.1)."""
    if len(frame) < 6 or bytes(frame[:4]) != b"\x28\xb5\x2f\xfd":
        raise ValueError("got bytes that are no zstd frame")
    descriptor = frame[4]
    single, size_flag = bool(descriptor & 0x20), descriptor >> 6
    if not size_flag and not single:
        return None
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    field = bytes(frame[start : start + (1, 2, 4, 8)[size_flag]])
    return int.from_bytes(field, "little") + 256 * (size_flag == 1)
