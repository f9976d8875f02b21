"""The head of an HDF5 file, and the file in memory that h5py makes it in."""

import io
import random
import struct

import h5py
import pytest

from stores.hdf5_sparse import PAGE_NBYTES, SparseFile
from stores.hdf5_superblock import HEAD_NBYTES, lookup3, with_end


def make_file(libver: str = "v108") -> bytes:
    target = io.BytesIO()
    with h5py.File(target, "w", libver=(libver, "latest")) as file:
        file["number"] = 3
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"Four score and seven years ago", 0x17770551),  # from the text of lookup3.c
        (b"1", None),
        (b"x" * 12, None),
    ],
)
def test_lookup3_gives_known_values(data: bytes, expected: int | None) -> None:
    assert expected is None or lookup3(data) == expected
    assert lookup3(data) != lookup3(data + b"\0")


def test_the_checksum_is_that_of_hdf5() -> None:
    data = make_file()
    assert with_end(data[:HEAD_NBYTES], len(data)) == data[:HEAD_NBYTES]


def test_a_longer_file_opens_and_stays_as_long() -> None:
    data = make_file()
    longer = with_end(data[:HEAD_NBYTES], len(data) + 100) + data[HEAD_NBYTES:] + b"x" * 100
    target = io.BytesIO(longer)
    with h5py.File(target, "r+") as file:
        assert file["number"][()] == 3
        assert file.id.get_filesize() == len(longer)
    assert target.getvalue() == longer


def test_hdf5_cuts_off_what_the_superblock_does_not_know_of() -> None:
    data = make_file()
    target = io.BytesIO(data + b"x" * 100)
    with h5py.File(target, "r+"):
        pass
    assert target.getvalue() == data


@pytest.mark.parametrize("change", ["signature", "version", "checksum", "base", "old"])
def test_other_heads_are_refused(change: str) -> None:
    head = bytearray(make_file("earliest" if change == "old" else "v108")[:HEAD_NBYTES])
    if change == "signature":
        head[0] = 0
    elif change == "version":
        head[8] = 3
    elif change == "base":
        struct.pack_into("<Q", head, 12, 512)
    if change == "checksum":
        head[-1] ^= 1
    else:
        struct.pack_into("<I", head, 44, lookup3(bytes(head[:44])))
    with pytest.raises(ValueError, match="expected an HDF5 superblock of version 2"):
        with_end(head, 1000)


def test_sparse_files_do_what_files_in_memory_do() -> None:
    chosen = random.Random(0)
    sparse, plain = SparseFile(), io.BytesIO()
    for _ in range(2000):
        place, size = chosen.randrange(5 * PAGE_NBYTES), chosen.choice([1, 30, 5000])
        assert sparse.seek(place) == plain.seek(place) == place
        if chosen.random() < 0.5:
            data = chosen.randbytes(size)
            assert sparse.write(data) == plain.write(data)
        else:
            assert sparse.read(size) == plain.read(size)
        assert sparse.tell() == plain.tell()
    assert sparse.seek(-7, io.SEEK_END) == plain.seek(-7, io.SEEK_END)
    assert sparse.bytes_between(10, 9000) == plain.getvalue()[10:9000]


def test_sparse_files_read_zeros_where_nothing_was_written() -> None:
    sparse = SparseFile()
    sparse.truncate(2**40)
    sparse.seek(2**40 - 5)
    assert sparse.read(10) == bytes(5)
    assert sparse.seek(0, io.SEEK_END) == 2**40
