import itertools
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from network_fixtures import randomise_norms
from torch import Tensor
from torch.nn import functional as F

from extractors.geometry import Geometry
from extractors.i3d import I3D, I3DExtractor, I3DOptions, Unit, same_max_pool, same_padding
from extractors.weights import seeded_init

MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")


def small(in_channels: int = 3, num_classes: int | None = 5, seed: int = 0) -> I3D:
    build = lambda: I3D(in_channels, width=4, num_classes=num_classes)  # noqa: E731
    return randomise_norms(seeded_init(build, seed)).eval()


# Layout


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("flow", 2)])
def test_published_layout(test_data: Path, modality: str, channels: int) -> None:
    path = test_data / "checkpoint_layouts" / f"i3d_{modality}.state_shapes.json"
    with torch.device("meta"):
        network = I3DExtractor.build(I3DOptions(modality=modality), 400)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == json.loads(
        path.read_text()
    )
    assert network.in_channels == channels


def test_some_published_shapes() -> None:
    with torch.device("meta"):
        state = I3D(2, num_classes=400).state_dict()
    assert len(state) == 344
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 2, 7, 7, 7)
    assert state["Mixed_4e.b1b.conv3d.weight"].shape == (288, 144, 3, 3, 3)
    assert state["Mixed_5c.b3b.bn.running_var"].shape == (128,)
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)


def test_batch_norms_are_the_originals() -> None:
    with torch.device("meta"):
        norms = [m for m in I3D().modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert len(norms) == 3 + 9 * 6
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_full_size_map() -> None:
    with torch.device("meta"):
        network = I3D().eval()
        maps = network.forward_features(torch.empty(1, 3, 64, 256, 256))
    assert tuple(maps.shape) == (1, 1024, 8, 8, 8)
    assert network.map_shape(64, 256) == (8, 8, 8, 1024)


@pytest.mark.parametrize(("frames", "size_px"), [(1, 1), (7, 31), (8, 32), (9, 33), (17, 70)])
def test_map_shape_rule(frames: int, size_px: int) -> None:
    network = small()
    with torch.inference_mode():
        maps = network.forward_features(torch.randn(1, 3, frames, size_px, size_px))
    cells = -(-size_px // 32)
    assert tuple(maps.shape) == (1, 64, -(-frames // 8), cells, cells)
    assert network.map_shape(frames, size_px) == (*maps.shape[2:], 64)


def test_the_narrowest_network_runs() -> None:
    with torch.inference_mode():
        maps = I3D(width=1).eval().forward_features(torch.randn(1, 3, 8, 32, 32))
    assert maps.shape == (1, 6 + 6 + 2 + 2, 1, 1, 1)


# SAME padding


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),  # 5 in all: the last of 112 windows ends at 222 + 7
        (225, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (113, 3, 2, (1, 1)),
        (14, 2, 2, (0, 0)),
        (15, 2, 2, (0, 1)),
        (10, 3, 1, (1, 1)),
        (10, 1, 1, (0, 0)),
        (1, 7, 2, (3, 3)),
        (9, 1, 2, (0, 0)),  # a kernel shorter than its stride
    ],
)
def test_same_padding_by_hand(
    length: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(length, kernel, stride) == expected


def test_same_padding_is_the_least_that_fits() -> None:
    for length, kernel, stride in itertools.product(range(1, 30), range(1, 8), (1, 2, 3)):
        before, after = same_padding(length, kernel, stride)
        cells = -(-length // stride)
        reach = (cells - 1) * stride + kernel  # of the last window
        assert before + after == max(reach - length, 0)
        assert after - before in (0, 1)


def windows(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Every window of (T, H, W) under SAME, cell by cell: (T', H', W', kT, kH, kW)."""
    starts = []
    for length, k, s in zip(x.shape, kernel, stride, strict=True):
        cells = -(-length // s)
        missing = max((cells - 1) * s + k - length, 0)
        starts.append([cell * s - missing // 2 for cell in range(cells)])
    out = x.new_zeros(*map(len, starts), *kernel)
    for cell in itertools.product(*(range(len(s)) for s in starts)):
        for tap in itertools.product(*map(range, kernel)):
            at = [starts[a][cell[a]] + tap[a] for a in range(3)]
            if all(0 <= i < n for i, n in zip(at, x.shape, strict=True)):
                out[cell + tap] = x[tuple(at)]
    return out


@pytest.mark.parametrize("shape", [(4, 6, 5), (5, 8, 9), (1, 2, 3), (7, 7, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_convolution_against_a_sum_per_cell(
    shape: tuple[int, int, int], kernel: int, stride: int
) -> None:
    unit = randomise_norms(Unit(1, 2, kernel, stride)).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    taken = windows(x, (kernel,) * 3, (stride,) * 3)
    summed = torch.einsum("thwabc,oabc->othw", taken, unit.conv3d.weight[:, 0])
    with torch.no_grad():
        expected = unit.bn(summed[None]).relu()
        got = unit(x[None, None])
    torch.testing.assert_close(got, expected)
    assert float(got.max()) > 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3), (3, 4, 5), (4, 7, 8), (5, 6, 9)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ],
)
def test_max_pool_against_a_maximum_per_cell(
    shape: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    x = torch.randn(shape).relu()
    got = same_max_pool(x[None, None], kernel, stride)[0, 0]
    assert torch.equal(got, windows(x, kernel, stride).flatten(3).amax(3))


# The whole network


def reference_unit(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.conv3d.weight"]
    x = F.conv3d(padded(x, (weight.shape[2],) * 3, (stride,) * 3), weight, stride=stride)
    norm = [state[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    mean, var, gain, bias = (v.view(1, -1, 1, 1, 1) for v in norm)
    return ((x - mean) / (var + 0.001).sqrt() * gain + bias).clamp(min=0)


def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    sides: list[int] = []
    for length, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((-(-length // s) - 1) * s + k - length, 0)
        sides = [missing // 2, missing - missing // 2, *sides]
    return F.pad(x, sides)


def reference_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(padded(x, kernel, stride), kernel, stride)


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network's map, step by step, zero-padded by hand."""
    x = reference_unit(state, "Conv3d_1a_7x7", x, 2)
    x = reference_pool(x, (1, 3, 3), (1, 2, 2))
    x = reference_unit(state, "Conv3d_2b_1x1", x)
    x = reference_unit(state, "Conv3d_2c_3x3", x)
    x = reference_pool(x, (1, 3, 3), (1, 2, 2))
    for block in MIXED:
        if block == "4b":
            x = reference_pool(x, (3, 3, 3), (2, 2, 2))
        if block == "5b":
            x = reference_pool(x, (2, 2, 2), (2, 2, 2))
        name = f"Mixed_{block}"
        branches = [
            reference_unit(state, f"{name}.b0", x),
            reference_unit(state, f"{name}.b1b", reference_unit(state, f"{name}.b1a", x)),
            reference_unit(state, f"{name}.b2b", reference_unit(state, f"{name}.b2a", x)),
            reference_unit(state, f"{name}.b3b", reference_pool(x, (3, 3, 3), (1, 1, 1))),
        ]
        x = torch.cat(branches, dim=1)
    return x


@pytest.mark.parametrize("shape", [(16, 64, 64), (13, 57, 90), (9, 33, 32), (1, 5, 40)])
def test_map_against_the_plain_network(shape: tuple[int, int, int]) -> None:
    network = small().double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    with torch.inference_mode():
        expected = reference(dict(network.state_dict()), x)
        got = network.forward_features(x)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((3, 8, 9), (2, 7, 7)),
        ((2, 7, 7), (2, 7, 7)),
        ((1, 4, 8), (1, 4, 7)),
        ((4, 3, 3), (2, 3, 3)),
    ],
)
def test_pooled_and_logits_are_means_over_the_windows(
    shape: tuple[int, int, int], window: tuple[int, int, int]
) -> None:
    """The published network classifies each window's mean; a smaller map is one window."""
    network = small()
    assert network.logits is not None
    maps = torch.rand(2, 64, *shape)
    means = []
    for t, y, x in itertools.product(
        *(range(n - w + 1) for n, w in zip(shape, window, strict=True))
    ):
        part = maps[:, :, t : t + window[0], y : y + window[1], x : x + window[2]]
        means.append(part.mean(dim=(2, 3, 4), keepdim=True))
    with torch.inference_mode():
        each = [network.logits.conv3d(mean).flatten(1) for mean in means]
        torch.testing.assert_close(network.pool_map(maps), torch.stack(means).mean(0).flatten(1))
        torch.testing.assert_close(network.classify(maps), torch.stack(each).mean(0))


def test_pooled_and_logits_come_from_the_map() -> None:
    network = small(2)
    x = torch.randn(2, 2, 16, 64, 64)
    with torch.inference_mode():
        maps = network.forward_features(x)
        assert torch.equal(network.forward_pooled(x), network.pool_map(maps))
        assert torch.equal(network(x), network.classify(maps))
        assert network(x).shape == (2, 5)


def test_every_parameter_gets_a_gradient() -> None:
    network = small().train()
    network(torch.randn(2, 3, 16, 64, 64)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_random_weights_keep_the_signal_in_size() -> None:
    network = seeded_init(lambda: I3D(), 0).eval()
    with torch.inference_mode():
        maps = network.forward_features(torch.randn(1, 3, 8, 64, 64))
    assert 0.1 < float(maps.std()) < 100


# Checkpoints


@pytest.mark.parametrize("form", ["published", "module.", "other classes", "no classifier"])
def test_checkpoints(tmp_path: Path, form: str) -> None:
    """The published files are bare OrderedDicts, the classifier first."""
    classes = {"other classes": 9, "no classifier": None}.get(form, 400)
    state = small(2, classes, seed=3).state_dict()
    first = [k for k in state if k.startswith("logits")]
    prefix = "module." if form == "module." else ""
    order = (*first, *(k for k in state if k not in first))
    torch.save(OrderedDict((prefix + k, state[k]) for k in order), tmp_path / "flow.pt")
    options = I3DOptions(modality="flow", width=4)
    net = I3DExtractor(options, weights=tmp_path / "flow.pt", seed=None, frames=8, size_px=32)
    own = net.network.state_dict()
    assert all(torch.equal(own[k], state[k]) for k in own if not k.startswith("logits"))


def test_map_pooled_and_logits_of_a_flow_checkpoint(tmp_path: Path) -> None:
    network = small(2, 400, seed=3)
    torch.save(network.state_dict(), tmp_path / "flow.pt")
    net = I3DExtractor(
        I3DOptions(modality="flow", width=4),
        weights=tmp_path / "flow.pt",
        seed=None,
        frames=16,
        size_px=64,
        dtype="float32",
        outputs=("map", "pooled", "logits"),
    )
    clips = torch.randint(0, 256, (2, 16, 64, 64, 2), dtype=torch.uint8)
    with torch.inference_mode():
        maps = network.forward_features(clips.permute(0, 4, 1, 2, 3) / 127.5 - 1)
        expected = {"pooled": network.pool_map(maps), "logits": network.classify(maps)}
    found = net(clips)
    assert {name: a.shape for name, a in found.items()} == {
        "map": (2, 2, 2, 2, 64),
        "pooled": (2, 64),
        "logits": (2, 400),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


def test_the_other_modalitys_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(small(2).state_dict(), tmp_path / "flow.pt")
    with pytest.raises(ValueError, match=r"Conv3d_1a_7x7.conv3d.weight \(got \(4, 2, 7, 7, 7\)"):
        I3DExtractor(
            I3DOptions(width=4), weights=tmp_path / "flow.pt", seed=None, frames=8, size_px=32
        )


# The extractor


def test_a_seed_gives_the_same_features_with_and_without_a_classifier() -> None:
    bare, whole = small(num_classes=None).state_dict(), small(num_classes=7).state_dict()
    assert all(torch.equal(bare[k], whole[k]) for k in bare)
    assert len(whole) == len(bare) + 2


def test_pixels_become_minus_one_to_one() -> None:
    for modality, channels in (("rgb", 3), ("flow", 2)):
        pixels = I3DExtractor.preprocessing(I3DOptions(modality=modality))
        assert pixels.mean == pixels.std == (0.5,) * channels
        assert pixels.geometry == Geometry(256, 224)
    net = I3DExtractor(
        I3DOptions(width=4), weights=None, seed=0, frames=8, size_px=32, dtype="float32"
    )
    clips = torch.randint(0, 256, (1, 8, 32, 32, 3), dtype=torch.uint8)
    x = clips.permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.inference_mode():
        expected = net.network.forward_features(x).permute(0, 2, 3, 4, 1)
    np.testing.assert_allclose(net(clips)["map"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="got modality 'depth', expected rgb or flow"):
        I3DOptions(modality="depth")
    with pytest.raises(ValueError, match="got width 0 and num_classes 400"):
        I3DOptions(width=0)
    with pytest.raises(ValueError, match="in_channels=0"):
        I3D(0)
    with pytest.raises(ValueError, match="no classifier; build it with num_classes"):
        small(num_classes=None)(torch.zeros(1, 3, 8, 32, 32))
