import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_fixtures import randomise_norms

from extractors.geometry import Geometry
from extractors.resnet3d import PREPROCESSING, ResNet3D, ResNet3DExtractor, ResNet3DOptions
from extractors.weights import seeded_init


def small(depth: int, num_classes: int | None = 5) -> ResNet3D:
    return seeded_init(lambda: ResNet3D(depth, width=4, num_classes=num_classes), 0).eval()


def shapes(network: torch.nn.Module) -> dict[str, list[int]]:
    return {k: list(v.shape) for k, v in network.state_dict().items()}


def test_published_layout() -> None:
    folder = os.environ.get("SYMBIO_TEST_DATA")
    if folder is None:
        pytest.skip("SYMBIO_TEST_DATA is not set")
    text = (Path(folder) / "checkpoint_layouts/resnet50_3d.state_shapes.json").read_text()
    with torch.device("meta"):
        network = ResNet3D(50, num_classes=400)
    assert shapes(network) == json.loads(text)


def test_some_published_shapes() -> None:
    with torch.device("meta"):
        layout = shapes(ResNet3D(50, num_classes=400))
    assert len(layout) == 320
    assert layout["conv1.weight"] == [64, 3, 7, 7, 7]
    assert layout["layer1.0.conv1.weight"] == [64, 64, 1, 1, 1]
    assert layout["layer1.0.downsample.0.weight"] == [256, 64, 1, 1, 1]
    assert layout["layer3.5.conv2.weight"] == [256, 256, 3, 3, 3]
    assert layout["layer4.0.downsample.1.running_var"] == [2048]
    assert layout["fc.weight"] == [400, 2048]
    assert "layer1.1.downsample.0.weight" not in layout


@pytest.mark.parametrize(
    ("depth", "blocks"), [(101, (3, 4, 23, 3)), (152, (3, 8, 36, 3)), (200, (3, 24, 36, 3))]
)
def test_deeper_networks(depth: int, blocks: tuple[int, ...]) -> None:
    """Three convolutions a block, the stem and the classifier make up the depth."""
    assert 3 * sum(blocks) + 2 == depth
    with torch.device("meta"):
        layout = shapes(ResNet3D(depth, width=4))
    stages = {k.split(".")[0]: int(k.split(".")[1]) + 1 for k in layout if k.startswith("layer")}
    assert tuple(stages.values()) == blocks


def test_published_parameter_count() -> None:
    stem = 3 * 64 * 343 + 2 * 64
    stages, previous = 0, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for index in range(blocks):
            stages += previous * width + width * width * 27 + width * 4 * width
            stages += 2 * (width + width + 4 * width)  # batch norms
            if index == 0:
                stages += previous * 4 * width + 2 * 4 * width
            previous = 4 * width
    with torch.device("meta"):
        network = ResNet3D(50, num_classes=400)
    total = sum(p.numel() for p in network.parameters())
    assert total == stem + stages + 2048 * 400 + 400


def test_full_size_map() -> None:
    with torch.device("meta"):
        network = ResNet3D(50).eval()
        maps = network.forward_features(torch.empty(1, 3, 64, 256, 256))
    assert tuple(maps.shape) == (1, 2048, 4, 8, 8)
    assert network.map_shape(64, 256) == (4, 8, 8, 2048)


@pytest.mark.parametrize(("depth", "expansion"), [(10, 1), (18, 1), (34, 1), (50, 4), (101, 4)])
@pytest.mark.parametrize(("frames", "size_px"), [(16, 32), (17, 33), (1, 1), (40, 70)])
def test_map_shape_rule(depth: int, expansion: int, frames: int, size_px: int) -> None:
    with torch.device("meta"):
        network = ResNet3D(depth, width=4).eval()
        maps = network.forward_features(torch.empty(1, 3, frames, size_px, size_px))
    expected = (-(-frames // 16), -(-size_px // 32), -(-size_px // 32), 32 * expansion)
    assert network.map_shape(frames, size_px) == expected
    assert tuple(maps.permute(0, 2, 3, 4, 1).shape[1:]) == expected


@pytest.mark.parametrize("depth", [10, 50])
def test_every_parameter_gets_a_gradient(depth: int) -> None:
    network = small(depth).train()
    network(torch.randn(2, 3, 16, 32, 32)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_logits_are_the_classifier_of_the_mean_map() -> None:
    network = small(18)
    x = torch.randn(2, 3, 32, 64, 64)
    with torch.inference_mode():
        maps = network.forward_features(x)
        pooled = network.forward_pooled(x)
        assert maps.shape == (2, 32, 2, 2, 2)
        assert float(maps.min()) >= 0
        torch.testing.assert_close(pooled, maps.flatten(2).mean(2))
        assert network.fc is not None
        torch.testing.assert_close(network(x), network.fc(pooled))


def test_strides_and_padding_by_hand() -> None:
    """With the residual branches silenced the network only pools and picks cells.

    The stem copies its one channel at the kernel's centre (every 2nd row and column), pooling
    takes the largest of cells 2i-1..2i+1 on each axis, and three projections of stride 2 keep every
    8th of those. A spark at frame 17, row 34, column 2 becomes row 17, column 1; it is pooled into
    steps and rows 8 and 9 and columns 0 and 1; of these, cell (8, 8, 0) is kept as (1, 1, 0). The
    projections sum over 1, 2 and 4 equal channels: a gain of 8.
    """
    network: Any = ResNet3D(10, width=1, in_channels=1).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "conv" in name:
                value.zero_()
        network.conv1.weight[0, 0, 3, 3, 3] = 1
        for stage in (2, 3, 4):
            network.get_submodule(f"layer{stage}")[0].downsample[0].weight.fill_(1)
        x = torch.zeros(1, 1, 32, 64, 64)
        x[0, 0, 17, 34, 2] = 5.0
        maps = network.forward_features(x)
    expected = torch.zeros(1, 8, 2, 2, 2)
    expected[:, :, 1, 1, 0] = 5.0 * 8
    # four batch norms divide by sqrt(1 + 1e-5)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=0)


def test_random_weights_keep_the_signal_in_size() -> None:
    """Kaiming's rule over the outputs: variance 2 / (27 × output channels) for a 3×3×3 kernel."""
    network = seeded_init(lambda: ResNet3D(18, width=16), 0)
    weight = network.state_dict()["layer3.0.conv2.weight"]
    assert weight.shape == (64, 64, 3, 3, 3)
    assert float(weight.std()) == pytest.approx((2 / (27 * 64)) ** 0.5, rel=0.02)


def test_unknown_depth_and_sizes_are_refused() -> None:
    with pytest.raises(
        ValueError, match="got depth 42, expected one of 10, 18, 34, 50, 101, 152, "
    ):
        ResNet3D(42)
    with pytest.raises(ValueError, match="got width 0"):
        ResNet3D(10, width=0)
    with pytest.raises(ValueError, match="num_classes=0"):
        ResNet3D(10, num_classes=0)
    with pytest.raises(ValueError, match="no classifier"):
        small(10, None)(torch.zeros(1, 3, 16, 32, 32))


def test_preprocessing_presets() -> None:
    grey = 255 * 0.5
    new, old = PREPROCESSING["kinetics_2020"], PREPROCESSING["activitynet_2018"]
    # (0.5 - 0.4345) / 0.2768 and 127.5 - 114.7748, by hand
    assert (grey / 255 - new.mean[0]) / new.std[0] == pytest.approx(0.2366329)
    assert (grey / 255 - old.mean[0]) / old.std[0] == pytest.approx(12.7252)
    with pytest.raises(ValueError, match="expected one of kinetics_2020, activitynet_2018"):
        ResNet3DOptions(preprocessing="imagenet")
    assert ResNet3DExtractor.preprocessing(ResNet3DOptions()) is new
    assert new.geometry == old.geometry == Geometry(112, 112)
    with pytest.raises(ValueError, match="got num_classes 0, expected 1 or more"):
        ResNet3DOptions(num_classes=0)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("classes", [400, 700, None])
def test_published_checkpoints(tmp_path: Path, prefix: str, classes: int | None) -> None:
    """They hold the training's state beside the parameters."""
    network = randomise_norms(small(10, classes))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    content = {
        "epoch": 200,
        "arch": "resnet-10",
        "state_dict": {prefix + k: v for k, v in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, tmp_path / "r3d.pth")
    clips = torch.randint(0, 256, (1, 8, 32, 32, 3), dtype=torch.uint8)
    whole = ("map", "pooled", "logits") if classes else ("map", "pooled")
    found = ResNet3DExtractor(
        ResNet3DOptions(10, width=4, num_classes=classes or 1),
        weights=tmp_path / "r3d.pth",
        seed=None,
        frames=8,
        size_px=32,
        dtype="float32",
        outputs=whole,
    )(clips)
    pixels = PREPROCESSING["kinetics_2020"]
    x = (clips / 255 - torch.tensor(pixels.mean)) / torch.tensor(pixels.std)
    with torch.inference_mode():
        maps = network.forward_features(x.permute(0, 4, 1, 2, 3).contiguous())
        assert tuple(found) == whole
        np.testing.assert_allclose(found["map"], maps.permute(0, 2, 3, 4, 1), rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["pooled"], network.pool_map(maps), rtol=0, atol=1e-4)
        if classes:
            np.testing.assert_allclose(found["logits"], network.classify(maps), rtol=0, atol=1e-4)


def test_published_network_runs() -> None:
    network = seeded_init(lambda: ResNet3D(50), 0).eval()
    with torch.inference_mode():
        maps = network.forward_features(torch.randn(1, 3, 16, 64, 64))
    assert maps.shape == (1, 2048, 1, 2, 2)
    assert bool(maps.isfinite().all())
    assert float(maps.std()) > 0
