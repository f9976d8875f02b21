"""The head of an HDF5 file, changed so that the file reaches over what we put behind it.

An HDF5 file says at its start where it ends. A program that opens it for writing cuts off what
lies behind that, even where it writes nothing; so the end that the file names has to be the end
of our index.

HDF5 file format specification, II.A, superblock version 2:
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import struct

from stores.durable import Block

_SUPERBLOCK = struct.Struct("<8s4B4QI")  # signature … end of file … checksum
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD_NBYTES = _SUPERBLOCK.size
_CHECKSUM_NBYTES = 4
_MASK = 0xFFFF_FFFF
# Rotations of Bob Jenkins' lookup3: https://burtleburtle.net/bob/c/lookup3.c
_MIX = (4, 6, 8, 16, 19, 4)
_FINAL = (14, 11, 25, 16, 4, 14, 24)


def with_end(head: Block, end: int) -> bytes:
    """Return the first `HEAD_NBYTES` bytes of an HDF5 file, saying that the file ends at `end`.

    Raises:
        ValueError: it is not the start of a file that this program has h5py make.
    """
    signature, version, *fields = _SUPERBLOCK.unpack(head)
    offset_nbytes, length_nbytes, flags, base, extension, _, root, check = fields
    known = (signature, version, offset_nbytes, length_nbytes) == (_SIGNATURE, 2, 8, 8)
    if not known or base != 0 or lookup3(bytes(head[:-_CHECKSUM_NBYTES])) != check:
        raise ValueError(f"got {bytes(head).hex()}, expected an HDF5 superblock of version 2")
    before = (signature, 2, 8, 8, flags, base, extension, end, root)
    check = lookup3(_SUPERBLOCK.pack(*before, 0)[:-_CHECKSUM_NBYTES])
    return _SUPERBLOCK.pack(*before, check)


def lookup3(data: bytes) -> int:
    """Return the checksum that HDF5 keeps of its metadata; `data` must not be empty."""
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    state = [(0xDEADBEEF + len(data)) & _MASK] * 3
    for start in range(0, len(words), 3):
        state = [(have + word) & _MASK for have, word in zip(state, words[start:], strict=False)]
        if start + 3 < len(words):
            _mix(state)
    _finish(state)
    return state[2]


def _mix(state: list[int]) -> None:
    for step, bits in enumerate(_MIX):
        a, b, c = step % 3, (step + 1) % 3, (step + 2) % 3
        state[a] = (state[a] - state[c]) & _MASK ^ _rotate(state[c], bits)
        state[c] = (state[c] + state[b]) & _MASK


def _finish(state: list[int]) -> None:
    for step, bits in enumerate(_FINAL):
        target, source = (step + 2) % 3, (step + 1) % 3
        state[target] = ((state[target] ^ state[source]) - _rotate(state[source], bits)) & _MASK


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _MASK
