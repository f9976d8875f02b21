"""Files from elsewhere: foreign, damaged and hostile ones."""

import argparse
import io
import os
import pickle
import random
import re
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as format_safetensors
from torch import Tensor

from extractors.checkpoint_files import load_state

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.steps": torch.tensor(3)}


def equal(got: dict[str, Tensor], expected: dict[str, Tensor] = STATE) -> bool:
    return got.keys() == expected.keys() and all(torch.equal(got[k], expected[k]) for k in got)


def save(content: Any, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


class Canary:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainers_keep_beside_the_weights(tmp_path: Path, zipped: bool) -> None:
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    content = {
        "epoch": 200,
        "arch": "resnet-50",
        "state_dict": {f"module.{k}": v for k, v in STATE.items()},
        "optimizer": optimizer.state_dict(),
        "best": np.float64(71.5),
        "history": [np.zeros(3), np.float32(1), {"accuracy": (1, 2.5, None)}],
        "names": np.array(["cut", "wash"]),
    }
    assert equal(load_state(save(content, tmp_path / "net.pth", zipped=zipped)))


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_weights_as_numpy_arrays(tmp_path: Path, suffix: str) -> None:
    arrays = {k: v.numpy() for k, v in STATE.items()}
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    path = tmp_path / f"net{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        save(content, path)
    state = load_state(path)
    assert equal(state)
    state["conv.weight"][0, 0] = 7  # its own memory, and writable
    big = {"model": {"w": np.array([1, 2], ">f4")}}
    (tmp_path / "big.pkl").write_bytes(pickle.dumps(big))
    assert load_state(tmp_path / "big.pkl")["w"].tolist() == [1.0, 2.0]


def test_torchs_own_format_under_the_other_suffix(tmp_path: Path) -> None:
    assert equal(load_state(save(STATE, tmp_path / "net.pkl")))


def test_arrays_that_are_no_weights_are_named(tmp_path: Path) -> None:
    content = {"model": {"words": np.array(["a"])}}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"words in .*net\.pkl: got an array of type 'U1'"):
        load_state(tmp_path / "net.pkl")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".pkl", ".safetensors"])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "tar"])
def test_code_is_never_run(tmp_path: Path, suffix: str, container: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"net{suffix}"
    content = {"state_dict": STATE, "more": Canary(canary)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif container == "tar":
        # torch's oldest format
        members = {"sys_info": {"little_endian": True}, "pickle": content}
        with tarfile.open(path, "w") as archive:
            for name in ("storages", "tensors", *members):
                data = pickle.dumps(members.get(name, 0), protocol=2)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        save(content, path, zipped=container == "zip")
    with pytest.raises(ValueError, match=r"nothing in it was run|got a int in"):
        load_state(path)
    assert not canary.exists()
    if container in ("zip", "legacy"):
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
        assert canary.exists(), "the canary itself does not work"


def test_what_is_not_allowed_is_named(tmp_path: Path) -> None:
    path = save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "net.pth")
    with pytest.raises(
        ValueError, match=r"it names argparse\.Namespace, so it holds objects other"
    ):
        load_state(path)
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"model": Canary(tmp_path / "canary")}))
    with pytest.raises(ValueError, match=r"it names posix\.mkdir, which is neither"):
        load_state(tmp_path / "net.pkl")


@pytest.mark.parametrize("suffix", [".pth", ".tar", ".pkl", ".safetensors"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "it is empty; get it again"),
        (lambda data: data[: len(data) // 2], "it is cut off or not a checkpoint; get it again"),
        (lambda data: bytes(2000), "it is cut off or not a checkpoint; get it again"),
        (
            lambda data: b"<!DOCTYPE html>\n<html/>",
            "it starts with the words '<!DOCTYPE html>'; wa",
        ),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "'version https://git-lfs."),
        (lambda data: b'{"a": 1}', "it starts with the words '{\"a\": 1}'; was a web page, or a p"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_checkpoint_is_told_in_our_own_words(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes], reason: str, zipped: bool
) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        path.write_bytes(format_safetensors(STATE))
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in STATE.items()}))
    else:
        save(STATE, path, zipped=zipped)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        load_state(path)
    assert str(caught.value).startswith(f"cannot read {path} ({path.stat().st_size} bytes) as a")
    assert "nothing in it was run" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_torchs_oldest_format_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "net.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(ValueError, match=r"torch's oldest format, a tar, .* save it anew"):
        load_state(tmp_path / "net.tar")


def test_zip_bombs_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    plain, bomb = save({"w": torch.zeros(2**18)}, tmp_path / "plain.pth"), tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as sink:
        for entry in source.infolist():
            sink.writestr(entry.filename, source.read(entry))
    assert torch.load(bomb, weights_only=True)["w"].shape == (2**18,)
    with pytest.raises(ValueError, match=r"entries claim \d+ bytes, more than the whole file"):
        load_state(bomb)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(1).expand(10**13), r"w in .*, \(10000000000000,\) on cpu"),
        (torch.empty(10**13, device="meta"), r"w in .*, \(10000000000000,\) on meta"),
        (torch.eye(3).to_sparse(), "with other storage than its numbers"),
    ],
)
def test_sizes_that_nothing_stands_behind(tmp_path: Path, tensor: Tensor, words: str) -> None:
    path = save({"w": tensor, "v": torch.zeros(2)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=words):
        load_state(path)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**60) + b"{}",
        b'{"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}',
        b"[" * 100_000,
    ],
)
def test_absurd_safetensors_headers(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "net.safetensors"
    start = b"" if header.endswith(b"{}") else struct.pack("<Q", len(header))
    path.write_bytes(start + header + bytes(4))
    with pytest.raises(ValueError, match=r"cannot read .*net\.safetensors \(\d+ bytes\)"):
        load_state(path)


def test_attributes_set_by_a_pickle_change_nothing(tmp_path: Path) -> None:
    """A dictionary whose methods are hidden by attributes of the same names."""

    class Trapped(OrderedDict[str, Any]):
        def __reduce__(self) -> Any:
            traps = dict.fromkeys(("get", "items", "keys", "values"), "a trap")
            return OrderedDict, (), traps, None, iter(OrderedDict.items(self))

    path = save(Trapped(state_dict=Trapped(STATE)), tmp_path / "net.pth")
    assert torch.load(path, weights_only=True).keys == "a trap"
    assert equal(load_state(path))


def test_names_that_are_none(tmp_path: Path) -> None:
    path = save({1: torch.zeros(1), ("a", "b"): torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="not tensors: one named by a int, one named by a tuple"):
        load_state(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_damage_is_an_error_or_nothing(tmp_path: Path, kind: str) -> None:
    """Flipped and cut bytes: a clear error, or weights of the right names."""
    path = tmp_path / {"safetensors": "net.safetensors", "pickle": "net.pkl"}.get(kind, "net.pth")
    if kind == "safetensors":
        path.write_bytes(format_safetensors(STATE))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in STATE.items()}}))
    else:
        save({"state_dict": STATE}, path, zipped=kind == "zip")
    whole = path.read_bytes()
    chance = random.Random(5)
    refused: list[str] = []
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            state = load_state(path)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert all(isinstance(value, Tensor) for value in state.values())
    assert len(refused) > 75
    assert all(path.name in message for message in refused)
