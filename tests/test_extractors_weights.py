import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extractors.weights import (
    create_network,
    load_into,
    load_metadata,
    load_state,
    save_checkpoint,
    seeded_init,
)


class Small(nn.Module):
    def __init__(self, classes: int | None = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.fc: Any = None if classes is None else nn.Linear(width, classes)


class Canary:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (_touch, (str(self.path), "sang"))


def _touch(path: str, text: str) -> int:
    return Path(path).write_text(text)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".tar", ".safetensors"])
def test_load_state_reads_every_format(tmp_path: Path, suffix: str) -> None:
    state = Small().state_dict()
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert equal(load_state(path), dict(state))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda s: {"model": s, "args": "x"},
        lambda s: {"model": {"state_dict": s}},
        lambda s: OrderedDict((f"module.{k}", v) for k, v in s.items()),
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    ],
)
def test_load_state_unwraps(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    state = Small().state_dict()
    torch.save(wrap(state), tmp_path / "net.pth")
    assert equal(load_state(tmp_path / "net.pth"), dict(state))


def test_module_prefix_is_only_stripped_from_all(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pth")
    assert set(load_state(tmp_path / "net.pth")) == {"module.a", "b"}


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Canary(canary)}, path)
    torch.load(path, weights_only=False)
    assert canary.exists(), "the canary itself does not work"
    canary.unlink()
    with pytest.raises(ValueError, match="nothing in it was run"):
        load_state(path)
    assert not canary.exists()

    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match="nothing in it was run"):
        load_state(plain)
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(Small().state_dict(), path)
    else:
        torch.save(Small().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=rf"cannot read .*net\{suffix} \(\d+ bytes\)"):
        load_state(path)


def test_load_state_refuses_other_content(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="entries that are not tensors: epoch"):
        load_state(tmp_path / "a.pth")
    torch.save(torch.zeros(1), tmp_path / "b.pth")
    with pytest.raises(ValueError, match="got a Tensor in"):
        load_state(tmp_path / "b.pth")
    torch.save({}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="got no entries"):
        load_state(tmp_path / "c.pth")
    (tmp_path / "d.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected a name ending in one of \.safetensors"):
        load_state(tmp_path / "d.bin")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load_state(tmp_path / "e.pth")


def test_load_into_fills_everything() -> None:
    source, target = seeded_init(Small, 1), seeded_init(Small, 2)
    assert load_into(target, source.state_dict()) == ()
    assert equal(target.state_dict(), source.state_dict())


def test_load_into_names_what_does_not_fit() -> None:
    state = dict(Small(width=4).state_dict())
    del state["bn.weight"]
    state["extra.weight"] = torch.zeros(1)
    target = Small(width=8)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"net\.pth does not fit Small") as caught:
        load_into(target, state, source="net.pth")
    message = str(caught.value)
    assert "1 missing: bn.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "conv.weight (got (4, 1, 3, 3), expected (8, 1, 3, 3))" in message
    assert equal(target.state_dict(), before), "a misfit must leave the module as it was"


def test_load_into_shows_the_first_five_and_the_count() -> None:
    extra = {f"x{i}": torch.zeros(1) for i in range(7)}
    with pytest.raises(ValueError, match="7 unexpected: x0, x1, x2, x3, x4, … 2 more"):
        load_into(Small(), {**Small().state_dict(), **extra})


def test_classifier_may_be_replaced() -> None:
    source = seeded_init(Small, 1)
    target = seeded_init(lambda: Small(classes=7), 2)
    own = target.fc.weight.clone()
    assert load_into(target, source.state_dict()) == ("fc",)
    assert torch.equal(target.fc.weight, own)
    assert torch.equal(target.conv.weight, source.conv.weight)


def test_classifier_may_be_absent_on_either_side() -> None:
    source, bare = seeded_init(Small, 1), seeded_init(lambda: Small(classes=None), 2)
    assert load_into(bare, source.state_dict()) == ()
    assert torch.equal(bare.conv.weight, source.conv.weight)
    assert load_into(Small(), bare.state_dict()) == ("fc",)


def test_classifier_is_never_loaded_by_halves() -> None:
    state = dict(seeded_init(Small, 1).state_dict())
    state["fc.bias"] = torch.zeros(9)
    target = seeded_init(Small, 2)
    own = target.fc.weight.clone()
    assert load_into(target, state) == ("fc",)
    assert torch.equal(target.fc.weight, own)


def test_classifier_must_fit_where_it_matters() -> None:
    with pytest.raises(ValueError, match=r"fc\.weight \(got \(3, 4\), expected \(7, 4\)\)"):
        load_into(Small(classes=7), Small().state_dict(), replaceable=())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    state = dict(Small().state_dict())
    state["conv.weight"] = state["conv.weight"].clone()
    state["conv.weight"][1, 0, 2, 2] = value
    state["bn.running_var"] = torch.full((4,), value)
    target = seeded_init(Small, 2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"net\.pth has NaN or infinity in conv\.weight, bn\.running_var, expected"
    ):
        load_into(target, state, source="net.pth")
    assert equal(target.state_dict(), before)
    # of no account in a classifier that is replaced anyway
    state = {**Small().state_dict(), "fc.bias": torch.full((9,), value)}
    assert load_into(target, state) == ("fc",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_the_networks(dtype: torch.dtype) -> None:
    source, target = seeded_init(Small, 1), seeded_init(Small, 2)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    load_into(target, state)
    assert target.conv.weight.dtype == torch.float32
    assert torch.equal(target.conv.weight, state["conv.weight"].float())


def test_whole_numbers_are_no_weights() -> None:
    state = {**Small().state_dict(), "conv.weight": torch.zeros(4, 1, 3, 3, dtype=torch.int8)}
    with pytest.raises(
        ValueError,
        match=r"1 of another type: conv\.weight \(got torch\.int8, expected torch\.float32\)",
    ):
        load_into(Small(), state)


def test_checkpoints_without_batch_counters_load() -> None:
    state = {k: v for k, v in Small().state_dict().items() if "num_batches" not in k}
    assert load_into(Small(), state) == ()


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = seeded_init(Small, 3)
    metadata = {"classes": ["cut", "wash"], "epochs": 3, "name": "tiny"}
    save_checkpoint(path, net, metadata)
    assert equal(load_state(path), dict(net.state_dict()))
    assert load_metadata(path) == metadata
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_same_checkpoint_has_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f"key{i}": i for i in range(20)}
    backwards = dict(reversed(metadata.items()))
    save_checkpoint(tmp_path / "a.safetensors", seeded_init(Small, 3), metadata)
    save_checkpoint(tmp_path / "b.safetensors", seeded_init(Small, 3), backwards)
    a, b = ((tmp_path / f"{n}.safetensors").read_bytes() for n in "ab")
    assert a == b


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, seeded_init(Small, 1))
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("extractors.weights.os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(path, seeded_init(Small, 2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_save_checkpoint_wants_its_own_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name ending in \.safetensors"):
        save_checkpoint(tmp_path / "net.pth", Small())


def test_metadata_of_other_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert load_metadata(tmp_path / "a.safetensors") == {}
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read .* as safetensors"):
        load_metadata(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load_metadata(tmp_path / "c.safetensors")


def test_seeded_init_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = seeded_init(Small, 1).state_dict()
    torch.rand(7)
    assert equal(seeded_init(Small, 1).state_dict(), first)
    assert not equal(seeded_init(Small, 2).state_dict(), first)


def test_seeded_init_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    seeded_init(Small, 1)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="got seed -1"):
        seeded_init(Small, -1)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_seeded_init_leaves_the_cuda_generator_alone() -> None:
    before = torch.cuda.get_rng_state()
    seeded_init(Small, 1)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_create_network_wants_exactly_one_source(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", seeded_init(Small, 4))
    with pytest.raises(ValueError, match="got neither weights nor a seed"):
        create_network(Small, weights=None, seed=None)
    with pytest.raises(ValueError, match="got both weights and a seed"):
        create_network(Small, weights=tmp_path / "net.safetensors", seed=0)
    loaded = create_network(Small, weights=tmp_path / "net.safetensors", seed=None)
    random = create_network(Small, weights=None, seed=4)
    assert equal(loaded.state_dict(), random.state_dict())


def test_create_network_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", seeded_init(Small, 4))
    before = torch.get_rng_state()
    create_network(Small, weights=tmp_path / "net.safetensors", seed=None)
    assert torch.equal(torch.get_rng_state(), before)
