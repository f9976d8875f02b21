import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.numpy_pickles import PickledArray, load_numpy_pickle

ARRAYS = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big_endian": np.array([1, 2], dtype=">i4"),
    "half": np.array([0.5], dtype=np.float16),
    "yes": np.array([True, False]),
    "none": np.zeros((0, 3), dtype=np.float32),
    "number": np.float64(2.5),
}

# An array ('model', a: [1.0, 2.0]) as Python 2 wrote it: text for bytes, numpy.core.
PYTHON_2 = (
    b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs."
)


def load(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return load_numpy_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {"model": OrderedDict(ARRAYS), "__author__": "somebody", "heuristics": True}
    data = pickle.dumps(content, protocol=protocol)
    got = load(tmp_path / "a.pkl", data)
    assert (got["__author__"], got["heuristics"]) == ("somebody", True)
    assert list(got["model"]) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = got["model"][name].array()
        assert array.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, expected)


def test_arrays_of_older_numpys_and_pythons(tmp_path: Path) -> None:
    data = pickle.dumps(ARRAYS, protocol=2)
    assert b"numpy._core" in data
    got = load(tmp_path / "a.pkl", data.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(got["plain"].array(), ARRAYS["plain"])
    assert pickle.loads(PYTHON_2, encoding="latin1")["a"].tolist() == [1.0, 2.0]
    assert load(tmp_path / "b.pkl", PYTHON_2)["a"].array().tolist() == [1.0, 2.0]


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_is_named_runs(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    content = {"model": ARRAYS, "more": [Calls(os.mkdir, str(canary))]}
    data = pickle.dumps(content, protocol=protocol)
    pickle.loads(data)
    assert canary.exists(), "the canary itself does not work"
    canary.rmdir()
    with pytest.raises(pickle.UnpicklingError, match=r"names (posix|nt)\.mkdir, which is neither"):
        load(tmp_path / "a.pkl", data)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromfile", "numpy\nndarray.tofile"],
)
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match="neither an array nor a plain container"):
        load(tmp_path / "a.pkl", f"c{name}\n.".encode())


def test_objects_beside_the_arrays_stay_closed(tmp_path: Path) -> None:
    content = {"names": np.array(["a", "b"]), "any": np.array([1, "x"], dtype=object)}
    got = load(tmp_path / "a.pkl", pickle.dumps(content))
    for name in content:
        assert isinstance(got[name], PickledArray)
        with pytest.raises(ValueError, match=r"expected numbers|something else than an array"):
            got[name].array()


def test_sizes_must_agree_with_the_bytes(tmp_path: Path) -> None:
    data = pickle.dumps(np.ones(3, np.float32), protocol=2)
    # BININT1 3 in a tuple of one is the shape
    assert data.count(b"K\x03\x85") == 1
    got = load(tmp_path / "a.pkl", data.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"))
    with pytest.raises(ValueError, match=r"got 12 bytes for an array of shape \(2147483647,\)"):
        got.array()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "object 2147483647 comes before object 2"),
        (b"Np99999999999999\n.", "object 99999999999999 comes"),
        (b"\x80\x04\x8e\x00\x00\x00\x00\x01\x00\x00\x00abc.", "expected 4294967296 bytes"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00abc.", "expected 4294967296 bytes"),
        (b"\x80\x04B\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
    ],
)
def test_absurd_numbers_take_no_memory(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises((ValueError, pickle.UnpicklingError), match=message):
        load(tmp_path / "a.pkl", data)
