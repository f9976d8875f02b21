from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_fixtures import randomise_norms
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models, video
from torchvision.models.video.mvit import MSBlockConfig
from torchvision.models.video.mvit import MViT as TorchvisionMViT

from extractors.registry import CLIP_EXTRACTORS
from extractors.torchvision_networks import MViT, TorchvisionNetwork
from extractors.torchvision_video import MC318, MViTV2S, TorchvisionExtractor, TorchvisionOptions
from extractors.transforms import normalize_clip
from extractors.weights import seeded_init

MODELS = list_models(module=video)


def extractor_class(model: str) -> Any:
    return CLIP_EXTRACTORS.resolve(f"torchvision:{model}")


def built(model: str, num_classes: int | None = 400, seed: int = 0) -> Any:
    build = lambda: extractor_class(model).build(TorchvisionOptions(), num_classes)  # noqa: E731
    return randomise_norms(seeded_init(build, seed)).eval()


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in network.state_dict().items()}


def tiny_mvit(version: int, size_px: int = 32) -> Any:
    """torchvision's MViT of three blocks over 4 frames, as v1 and v2 build theirs."""
    kernels, strides = ([], [3, 3, 3], [3, 3, 3]), ([], [1, 2, 2], [1, 1, 1])
    blocks = [
        MSBlockConfig(heads, width, out, kernel, [3, 3, 3], stride, [1, 2, 2])
        for heads, width, out, kernel, stride in zip(
            (1, 2, 2), (8, 16, 16), (16, 16, 16), kernels, strides, strict=True
        )
    ]
    flags = {"residual_pool": version == 2, "residual_with_cls_embed": version == 1}
    flags |= {"rel_pos_embed": version == 2, "proj_after_attn": version == 2}
    if version == 2:
        blocks[0] = MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2])
    model = seeded_init(
        lambda: TorchvisionMViT((size_px,) * 2, 4, blocks, num_classes=6, **flags), 0
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


class Seen:
    """What reaches a module of torchvision's own model: its input and its output."""

    def __init__(self, module: nn.Module) -> None:
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []
        module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        self.given.append(args[0])
        self.made.append(out)


# Names and parameters


def test_every_model_of_torchvision_has_a_name() -> None:
    ours = {name for name in CLIP_EXTRACTORS.names() if name.startswith("torchvision:")}
    assert ours == {f"torchvision:{model}" for model in MODELS}
    assert len(ours) >= 9


@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_torchvisions(model: str) -> None:
    with torch.device("meta"):
        cls = extractor_class(model)
        theirs = shapes(getattr(video, model)(weights=None))
        whole, bare, other = (shapes(cls.build(TorchvisionOptions(), n)) for n in (400, None, 7))
    assert whole == theirs
    (classifier,) = cls.replaceable
    assert bare == {k: v for k, v in theirs.items() if not k.startswith(f"{classifier}.")}
    assert len(bare) == len(theirs) - 2
    assert {k: v for k, v in other.items() if k in bare} == bare
    assert {other[k][0] for k in set(other) - set(bare)} == {7}


@pytest.mark.parametrize("model", MODELS)
def test_preprocessing_is_that_of_the_weights(model: str) -> None:
    """On frames that need no resizing, since torchvision resizes without antialiasing."""
    transforms: Any = get_model_weights(model).DEFAULT.transforms()
    height, *width = transforms.resize_size
    frame = np.random.default_rng(0).integers(
        0, 256, (height, width[0] if width else height + 83, 3), dtype=np.uint8
    )
    pixels = extractor_class(model).preprocessing(TorchvisionOptions())
    seen = torch.from_numpy(pixels.geometry.apply(frame))[None, None]
    expected = transforms(torch.from_numpy(frame)[None, None].permute(0, 1, 4, 2, 3))
    torch.testing.assert_close(normalize_clip(seen, pixels.mean, pixels.std), expected)


@pytest.mark.parametrize(
    ("model", "resize_px", "crop_px"),
    [("r3d_18", (128, 171), 112), ("s3d", (256, 256), 224), ("swin3d_b", 256, 224)],
)
def test_published_geometry(model: str, resize_px: Any, crop_px: int) -> None:
    geometry = extractor_class(model).preprocessing(TorchvisionOptions()).geometry
    assert (geometry.resize_px, geometry.crop_px) == (resize_px, crop_px)


# Features


@pytest.mark.parametrize(
    ("model", "frames", "height_px", "width_px", "cells"),
    [
        ("r3d_18", 9, 33, 50, (2, 3, 4)),
        ("mc3_18", 3, 20, 32, (3, 2, 2)),
        ("r2plus1d_18", 8, 32, 17, (1, 2, 2)),
        ("s3d", 14, 224, 256, (2, 7, 8)),
        ("swin3d_t", 5, 40, 64, (3, 2, 2)),
    ],
)
def test_map_pooled_and_logits_are_torchvisions(
    model: str, frames: int, height_px: int, width_px: int, cells: tuple[int, int, int]
) -> None:
    network = built(model)
    theirs: Any = getattr(video, model)(weights=None).eval()
    theirs.load_state_dict(network.state_dict())
    before = Seen(theirs.avgpool)
    x = torch.randn(1, 3, frames, height_px, width_px)
    with torch.inference_mode():
        logits = theirs(x)
        maps = network.forward_features(x)
        assert tuple(maps.shape[2:]) == cells
        assert float(maps.std()) > 0.1
        torch.testing.assert_close(maps, before.given[0])
        torch.testing.assert_close(network.pool_map(maps), before.made[0].mean((2, 3, 4)))
        torch.testing.assert_close(network.classify(maps), logits)


@pytest.mark.parametrize(("version", "size_px", "side"), [(1, 32, 4), (1, 20, 3), (2, 32, 4)])
def test_mvits_map_is_its_tokens_and_pooled_its_class_token(
    version: int, size_px: int, side: int
) -> None:
    theirs = tiny_mvit(version, size_px)
    last, head = Seen(theirs.norm), Seen(theirs.head)
    x = torch.randn(2, 3, 4, size_px, size_px)
    with torch.inference_mode():
        logits = theirs(x)
        tokens = last.made[0]  # (B, 1 + 2 × side × side, C)
        network = MViT(theirs, 6).eval()
        assert network.map_shape(4, size_px) == (2, side, side, 16)
        maps = network.forward_features(x)
        assert maps.shape == (2, 16, 2, side, side)
        for t, row, column in ((0, 0, 0), (0, 0, 2), (0, 2, 1), (1, 2, 0)):
            expected = tokens[:, 1 + (t * side + row) * side + column]
            torch.testing.assert_close(maps[:, :, t, row, column], expected)
        torch.testing.assert_close(network.forward_pooled(x), head.given[0])
        torch.testing.assert_close(network(x), logits)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_at_full_size(model: str) -> None:
    network = built(model)
    theirs: Any = getattr(video, model)(weights=None).eval()
    theirs.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 16, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), theirs(x))
        assert network.forward_features(x).shape == (1, 768, 8, 7, 7)


@pytest.mark.parametrize(
    ("model", "frames", "size_px"),
    [(m, f, s) for m in ("r3d_18", "mc3_18", "r2plus1d_18") for f, s in ((1, 1), (17, 35))]
    + [("s3d", f, s) for f, s in ((14, 224), (19, 239), (32, 255), (37, 256), (64, 257))]
    + [("swin3d_t", f, s) for f, s in ((1, 1), (3, 33), (17, 100))]
    + [("swin3d_b", 8, 65), ("mvit_v1_b", 16, 224), ("mvit_v2_s", 16, 224)],
)
def test_map_shape_rule(model: str, frames: int, size_px: int) -> None:
    with torch.device("meta"):
        network: TorchvisionNetwork = extractor_class(model).build(TorchvisionOptions(), None)
        network.eval()
        maps = network.forward_features(torch.empty(1, 3, frames, size_px, size_px))
    assert tuple(maps.permute(0, 2, 3, 4, 1).shape[1:]) == network.map_shape(frames, size_px)


@pytest.mark.parametrize(
    ("model", "frames", "size_px", "words"),
    [
        ("mvit_v2_s", 32, 224, "32 frames of 224 x 224 px, expected exactly 16 frames of 224 x"),
        ("mvit_v2_s", 16, 256, "16 frames of 256 x 256 px, expected exactly 16 frames of 224 x"),
        ("mvit_v1_b", 8, 224, "8 frames of 224 x 224 px, expected exactly 16 frames of 224 x"),
        ("s3d", 13, 224, "13 frames of 224 x 224 px, expected at least 14 frames of 224 x"),
        ("s3d", 16, 192, "16 frames of 192 x 192 px, expected at least 14 frames of 224 x"),
    ],
)
def test_sizes_that_a_model_cannot_take_are_refused(
    model: str, frames: int, size_px: int, words: str
) -> None:
    with torch.device("meta"):
        network = extractor_class(model).build(TorchvisionOptions(), None)
        for refused in (
            lambda: network.map_shape(frames, size_px),
            lambda: network.forward_hidden(torch.empty(1, 3, frames, size_px, size_px)),
        ):
            with pytest.raises(ValueError, match=f"got clips of {words}"):
                refused()


# The extractor


class TinyMViT(TorchvisionExtractor):
    name = "torchvision:mvit_v2_s"
    family = MViT

    @classmethod
    def build(cls, options: TorchvisionOptions, num_classes: int | None) -> MViT:
        return MViT(tiny_mvit(2), num_classes)


@pytest.mark.parametrize("outputs", [("map", "pooled", "logits"), ("map",)])
def test_one_pass_gives_the_map_and_the_class_token(outputs: tuple[str, ...]) -> None:
    net = TinyMViT(
        TorchvisionOptions(6),
        weights=None,
        seed=0,
        frames=4,
        size_px=32,
        dtype="float32",
        outputs=outputs,
    )
    clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    x = (clips.permute(0, 4, 1, 2, 3) / 255 - 0.45) / 0.225
    found = net(clips)
    assert {n: a.shape for n, a in found.items()} == {
        n: (2, *net.outputs[n].shape) for n in outputs
    }
    with torch.inference_mode():
        maps = net.network.forward_features(x).permute(0, 2, 3, 4, 1)
        np.testing.assert_allclose(found["map"], maps, rtol=1e-4, atol=1e-4)
        if "logits" in outputs:
            pooled = net.network.forward_pooled(x)
            np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["logits"], net.network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints(tmp_path: Path, prefix: str) -> None:
    """A checkpoint of other classes serves for maps, and for logits with its own number."""
    network = built("mc3_18", 5, seed=3)
    torch.save({prefix + k: v for k, v in network.state_dict().items()}, tmp_path / "net.pth")

    def extract(**settings: Any) -> dict[str, Any]:
        net = MC318(
            weights=tmp_path / "net.pth",
            seed=None,
            frames=2,
            size_px=16,
            dtype="float32",
            **settings,
        )
        return net(clips)

    clips = torch.randint(0, 256, (1, 2, 16, 16, 3), dtype=torch.uint8)
    pixels = MC318.preprocessing(TorchvisionOptions())
    with torch.inference_mode():
        expected = network(normalize_clip(clips, pixels.mean, pixels.std))
    found = extract(options=TorchvisionOptions(5), outputs=("map", "logits"))
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(extract(options=TorchvisionOptions())["map"], found["map"])


def test_a_seed_gives_the_same_features_whatever_the_classifier() -> None:
    states = [built("mc3_18", classes).state_dict() for classes in (400, 7, None)]
    assert all(torch.equal(s[k], states[2][k]) for s in states for k in states[2])


def test_without_a_classifier_there_are_no_logits() -> None:
    for model, channels in (("mc3_18", 512), ("s3d", 1024)):
        network = built(model, None)
        with pytest.raises(ValueError, match="no classifier; build it with num_classes"):
            network.classify(torch.zeros(1, channels, 2, 7, 7))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="got num_classes 0, expected 1 or more"):
        TorchvisionOptions(0)
    assert MViTV2S.preprocessing(TorchvisionOptions()).source.startswith("MViT_V2_S_Weights")
