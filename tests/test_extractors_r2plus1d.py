import json
from pathlib import Path
from typing import Any

import pytest
import torch
from network_fixtures import randomise_norms
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from extractors.geometry import Geometry
from extractors.r2plus1d import R2Plus1D, R2Plus1DExtractor, R2Plus1DOptions, planes_between
from extractors.weights import seeded_init


def small(layout: str = "ig65m", num_classes: int | None = 5) -> R2Plus1D:
    build = lambda: R2Plus1D(18, layout=layout, width=4, num_classes=num_classes)  # noqa: E731
    return randomise_norms(seeded_init(build, 0)).eval()


def torchvisions(layout: str, depth: int) -> Any:
    """The same network made of torchvision's modules, with what the port of IG-65M changes."""
    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}[depth]
    network: Any = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, blocks, R2Plus1dStem, num_classes=7)
    if layout == "ig65m":
        network.layer2[0].conv2[0] = Conv2Plus1D(128, 128, 288)
        network.layer3[0].conv2[0] = Conv2Plus1D(256, 256, 576)
        network.layer4[0].conv2[0] = Conv2Plus1D(512, 512, 1152)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = 1e-3
    return network.eval()


@pytest.mark.parametrize(
    ("name", "depth", "layout", "classes"),
    [("r2plus1d_34_ig65m", 34, "ig65m", 359), ("r2plus1d_18_tv", 18, "torchvision", 400)],
)
def test_published_layout(
    test_data: Path, name: str, depth: int, layout: str, classes: int
) -> None:
    path = test_data / "checkpoint_layouts" / f"{name}.state_shapes.json"
    with torch.device("meta"):
        network = R2Plus1DExtractor.build(R2Plus1DOptions(depth, layout), classes)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == json.loads(
        path.read_text()
    )


def test_planes_by_hand() -> None:
    assert planes_between(64, 64) == 144  # 110,592 / 768
    assert planes_between(64, 128) == 230  # 221,184 / 960 = 230.4
    assert planes_between(128, 128) == 288  # 442,368 / 1,536
    with torch.device("meta"):
        ours, theirs = R2Plus1D(18).state_dict(), R2Plus1D(18, layout="torchvision").state_dict()
    name = "layer2.0.conv2.0.0.weight"
    assert (ours[name].shape[0], theirs[name].shape[0]) == (288, 230)
    assert [k for k in ours if ours[k].shape != theirs[k].shape and k.endswith("0.0.weight")] == [
        f"layer{stage}.0.conv2.0.0.weight" for stage in (2, 3, 4)
    ]


@pytest.mark.parametrize("layout", ["ig65m", "torchvision"])
@pytest.mark.parametrize("shape", [(8, 48, 48), (5, 33, 50)])
def test_map_pooled_and_logits_of_torchvisions_modules(
    layout: str, shape: tuple[int, int, int]
) -> None:
    network = R2Plus1D(18, layout=layout, num_classes=7).eval()
    randomise_norms(network)
    theirs = torchvisions(layout, 18)
    theirs.load_state_dict(network.state_dict())
    seen: list[Tensor] = []
    theirs.layer4.register_forward_hook(lambda module, args, out: seen.append(out))
    theirs.avgpool.register_forward_hook(lambda module, args, out: seen.append(out.flatten(1)))
    x = torch.randn(1, 3, *shape)
    with torch.inference_mode():
        logits = theirs(x)
        maps, pooled = seen
        assert float(maps.std()) > 0.1
        torch.testing.assert_close(network.forward_features(x), maps)
        torch.testing.assert_close(network.forward_pooled(x), pooled)
        torch.testing.assert_close(network(x), logits)


def test_full_size_map() -> None:
    with torch.device("meta"):
        network = R2Plus1D(34).eval()
        maps = network.forward_features(torch.empty(1, 3, 32, 128, 128))
    assert tuple(maps.shape) == (1, 512, 4, 8, 8)
    assert network.map_shape(32, 128) == (4, 8, 8, 512)


@pytest.mark.parametrize(("frames", "size_px"), [(1, 1), (8, 16), (9, 17), (20, 70)])
def test_map_shape_rule(frames: int, size_px: int) -> None:
    network = small()
    with torch.inference_mode():
        maps = network.forward_features(torch.randn(1, 3, frames, size_px, size_px))
    assert tuple(maps.shape) == (1, 32, -(-frames // 8), -(-size_px // 16), -(-size_px // 16))
    assert network.map_shape(frames, size_px) == (*maps.shape[2:], 32)


def test_batch_norms() -> None:
    for layout, eps in (("ig65m", 1e-3), ("torchvision", 1e-5)):
        norms = [m for m in small(layout).modules() if isinstance(m, nn.BatchNorm3d)]
        assert len(norms) == 2 + 8 * 4 + 3
        assert {(m.eps, m.momentum) for m in norms} == {(eps, 0.1)}


def test_pooled_and_logits_come_from_the_map() -> None:
    network = small()
    x = torch.randn(2, 3, 16, 32, 32)
    with torch.inference_mode():
        maps = network.forward_features(x)
        assert maps.shape[2:] == (2, 2, 2)
        torch.testing.assert_close(network.pool_map(maps), maps.flatten(2).mean(2))
        assert torch.equal(network(x), network.classify(maps))


def test_every_parameter_gets_a_gradient() -> None:
    network = small().train()
    network(torch.randn(2, 3, 16, 32, 32)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_random_weights_keep_the_signal_in_size() -> None:
    """Kaiming's rule over the outputs: variance 2 / (9 × output channels) for a 1×3×3 kernel."""
    state = seeded_init(lambda: R2Plus1D(18, width=16), 0).state_dict()
    weight = state["layer2.0.conv1.0.0.weight"]
    assert weight.shape[:2] == (planes_between(16, 32), 16) == (57, 16)
    assert float(weight.std()) == pytest.approx((2 / (9 * 57)) ** 0.5, rel=0.03)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("classes", [359, 487, 400, None])
def test_checkpoints(tmp_path: Path, prefix: str, classes: int | None) -> None:
    """The published files are bare state dicts."""
    state = small(num_classes=classes).state_dict()
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "net.pth")
    net = R2Plus1DExtractor(
        R2Plus1DOptions(18, width=4),
        weights=tmp_path / "net.pth",
        seed=None,
        frames=8,
        size_px=32,
    )
    own = net.network.state_dict()
    assert all(torch.equal(own[k], state[k]) for k in own if not k.startswith("fc."))


def test_the_other_layouts_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(small("torchvision").state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"of another shape: layer2\.0\.conv2\.0\.0\.weight"):
        R2Plus1DExtractor(
            R2Plus1DOptions(18, width=4),
            weights=tmp_path / "net.pth",
            seed=None,
            frames=8,
            size_px=32,
        )


def test_preprocessing() -> None:
    for layout, geometry in (
        ("ig65m", Geometry(128, 112)),
        ("torchvision", Geometry((128, 171), 112)),
    ):
        pixels = R2Plus1DExtractor.preprocessing(R2Plus1DOptions(layout=layout))
        assert pixels.mean == (0.43216, 0.394666, 0.37645)
        assert pixels.std == (0.22803, 0.22145, 0.216989)
        assert pixels.geometry == geometry


def test_a_seed_gives_the_same_features_with_and_without_a_classifier() -> None:
    bare, whole = small(num_classes=None).state_dict(), small(num_classes=7).state_dict()
    assert all(torch.equal(bare[k], whole[k]) for k in bare)
    assert set(whole) - set(bare) == {"fc.weight", "fc.bias"}


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="got depth 50, expected 18 or 34"):
        R2Plus1DOptions(50)
    with pytest.raises(ValueError, match="got layout 'caffe2', expected ig65m or torchvision"):
        R2Plus1D(layout="caffe2")
    with pytest.raises(ValueError, match="got width 0 and num_classes 359"):
        R2Plus1DOptions(width=0)
    with pytest.raises(ValueError, match="no classifier; build it with num_classes"):
        small(num_classes=None)(torch.zeros(1, 3, 8, 32, 32))
