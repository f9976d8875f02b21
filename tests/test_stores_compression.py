"""Frames that declare their size, and nothing else, are decompressed."""

import numpy as np
import pytest
from numcodecs import zstd

from stores.compression import check_compression, compress, decompress_into, max_stored_nbytes

SIZES = [1, 255, 256, 257, 65_535, 65_791, 65_792, 2**20]


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("levels", [1, 3, 256])
def test_values_come_back_from_frames_of_limited_size(nbytes: int, levels: int) -> None:
    values = np.random.default_rng(0).integers(0, levels, nbytes).astype(np.uint8)
    stored = compress(values.data)
    assert len(stored) <= max_stored_nbytes(nbytes)
    target = bytearray(nbytes)
    decompress_into(stored, memoryview(target))
    assert target == values.tobytes()


@pytest.mark.parametrize("declared", [0, 99, 101, 2**31])
def test_frames_of_another_size_are_refused(declared: int) -> None:
    bomb = zstd.compress(bytes(min(declared, 2**26)), 1)
    target = bytearray(b"x" * 100)
    with pytest.raises(ValueError, match=r"got a frame of \d+ bytes, expected 100|no zstd frame"):
        decompress_into(bomb, memoryview(target))
    assert target == b"x" * 100


def test_what_is_no_whole_frame_is_refused() -> None:
    frame = compress(np.random.default_rng(0).bytes(1000))
    for stored in (b"", b"four", b"no zstd frame", frame[:5], frame[:20], frame[:-1], frame * 2):
        with pytest.raises(ValueError, match=r"got|destination"):
            decompress_into(stored, memoryview(bytearray(1000)))


def test_unknown_compressions_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match="got compression 'lz4', expected one of none, zstd"):
        check_compression("lz4")
