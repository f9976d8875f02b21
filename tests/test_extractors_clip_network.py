import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from extractors.base import Preprocessing
from extractors.clip_network import ClipNetwork, Network3D
from extractors.inference import is_out_of_memory
from extractors.registry import CLIP_EXTRACTORS, parse_options
from extractors.resnet3d import PREPROCESSING, ResNet3D, ResNet3DExtractor, ResNet3DOptions
from extractors.weights import save_checkpoint, seeded_init

OPTIONS = ResNet3DOptions(depth=18, width=4)


def extractor(dtype: str = "float32", device: str = "cpu", **changes: Any) -> ClipNetwork:
    settings: dict[str, Any] = {"weights": None, "seed": 0, "frames": 16, "size_px": 64, **changes}
    return ResNet3DExtractor(OPTIONS, dtype=dtype, device=device, **settings)


@dataclass(frozen=True)
class ToyOptions:
    num_classes: int | None = 3


class Toy(Network3D):
    """Records what it is given; its map grows without bound with `gain`."""

    def __init__(self, channels: int, num_classes: int | None) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(channels, 5, 3, padding=1)
        self.gain = torch.nn.Conv2d(1, 1, 1)  # its kernel is not laid out as those of 3-D
        self.head = None if num_classes is None else torch.nn.Linear(5, num_classes)
        self.calls = 0

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen = x
        return self.conv(x) + 100

    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        return frames, size_px, size_px, 5

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        assert self.head is not None
        return self.head(maps.amax(dim=(2, 3, 4)))


class ToyExtractor(ClipNetwork):
    name = "toy"
    VERSION = 1
    Options: ClassVar[type[ToyOptions]] = ToyOptions
    replaceable = ("head",)
    CHANNELS: ClassVar[int] = 3

    @classmethod
    def build(cls, options: ToyOptions, num_classes: int | None) -> Toy:
        return Toy(cls.CHANNELS, num_classes)

    @classmethod
    def preprocessing(cls, options: ToyOptions) -> Preprocessing:
        return Preprocessing((0.5,) * cls.CHANNELS, (0.5,) * cls.CHANNELS, "tests")


class ToyFlow(ToyExtractor):
    CHANNELS = 2


def toy(kind: type[ToyExtractor] = ToyExtractor, **changes: Any) -> ToyExtractor:
    settings = {"weights": None, "seed": 0, "frames": 2, "size_px": 4, "dtype": "float32"}
    return kind(changes.pop("options", ToyOptions()), **{**settings, **changes})


def toy_clips(count: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 2, 4, 4, channels), dtype=torch.uint8)


def clips(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 16, 64, 64, 3), dtype=torch.uint8, generator=generator)


def test_map_is_the_normalised_networks_map() -> None:
    network = seeded_init(lambda: ResNet3D(18, width=4), 0).eval()
    batch = clips(2)
    pixels = PREPROCESSING["kinetics_2020"]
    # value by value, channel by channel
    x = torch.empty(2, 3, 16, 64, 64)
    for channel in range(3):
        values = batch[..., channel].double() / 255
        x[:, channel] = (values - pixels.mean[channel]) / pixels.std[channel]
    with torch.inference_mode():
        expected = network.forward_features(x)
    got = extractor()(batch)["map"]
    assert got.shape == (2, 1, 2, 2, 32)
    np.testing.assert_allclose(got.transpose(0, 4, 1, 2, 3), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_output_matches_its_spec() -> None:
    net = extractor("float16")
    spec = net.outputs["map"]
    assert spec.dims == ("time", "y", "x", "channel")
    assert spec.dtype == "float16"
    got = net(clips(3))
    assert set(got) == {"map"}
    assert got["map"].shape == (3, *spec.shape)
    assert got["map"].dtype == np.float16
    assert got["map"].flags.c_contiguous
    exact = extractor("float32")(clips(3))["map"]
    assert np.array_equal(got["map"], exact.astype(np.float16))


def test_rows_do_not_depend_on_the_batch() -> None:
    net = extractor()
    batch = clips(4)
    together = net(batch)["map"]
    alone = np.concatenate([net(batch[i : i + 1])["map"] for i in range(4)])
    shuffled = net(batch[[2, 0, 3, 1]])["map"]
    assert np.abs(together).max() > 0.1
    assert np.array_equal(together, alone)
    assert np.array_equal(together[[2, 0, 3, 1]], shuffled)


def test_same_seed_same_features() -> None:
    first = extractor()(clips(1))["map"]
    assert np.array_equal(first, extractor()(clips(1))["map"])
    assert not np.allclose(first, extractor(seed=1)(clips(1))["map"])


def test_weights_of_a_file_with_its_classifier(tmp_path: Path) -> None:
    trained = seeded_init(lambda: ResNet3D(18, width=4, num_classes=9), 0)
    save_checkpoint(tmp_path / "net.safetensors", trained)
    from_file = extractor(weights=tmp_path / "net.safetensors", seed=None)
    from_seed = extractor()
    assert np.array_equal(from_file(clips(1))["map"], from_seed(clips(1))["map"])


def test_misfit_file_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", seeded_init(lambda: ResNet3D(10, width=4), 0))
    with pytest.raises(ValueError, match=r"net\.safetensors does not fit ResNet3D: \d+ missing"):
        extractor(weights=tmp_path / "net.safetensors", seed=None)


@pytest.mark.parametrize(
    ("name", "made", "asked", "advice"),
    [
        ("resnet3d", {"depth": 34, "width": 2}, {"depth": 18, "width": 2}, "depth: 34"),
        (
            "r2plus1d",
            {"depth": 18, "layout": "torchvision", "width": 2},
            {"depth": 34, "layout": "ig65m", "width": 2},
            "depth: 18, layout: torchvision",
        ),
        (
            "i3d",
            {"modality": "flow", "width": 4},
            {"modality": "rgb", "width": 4},
            "modality: flow",
        ),
        ("resnet3d", {"depth": 18, "width": 3}, {"depth": 18, "width": 2}, None),
    ],
)
def test_a_misfit_says_which_options_would_fit(
    tmp_path: Path, name: str, made: dict[str, Any], asked: dict[str, Any], advice: str | None
) -> None:
    kind: Any = CLIP_EXTRACTORS.resolve(name)
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, kind.build(parse_options(kind, made), 7))
    with pytest.raises(ValueError, match="does not fit") as caught:
        kind(parse_options(kind, asked), weights=path, seed=None, frames=8, size_px=32)
    tail = "against the checkpoint" if advice is None else f"; it fits {advice}"
    assert str(caught.value).endswith(tail)


def test_no_advice_where_only_the_classifier_differs(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, ResNet3D(10, width=2, num_classes=7))
    options = ResNet3DOptions(depth=10, width=2, num_classes=9)
    settings: dict[str, Any] = {"weights": path, "seed": None, "frames": 8, "size_px": 32}
    with pytest.raises(ValueError, match=r"fc\.weight \(got \(7, 16\).*against the checkpoint$"):
        ResNet3DExtractor(options, outputs=("logits",), **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 16, 64, 64, 3),
        torch.zeros(1, 8, 64, 64, 3, dtype=torch.uint8),
        torch.zeros(1, 16, 64, 48, 3, dtype=torch.uint8),
        torch.zeros(16, 64, 64, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 16, 64, 64, dtype=torch.uint8),
    ],
)
def test_other_clips_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 16, 64, 64, 3\) uint8"):
        extractor()(wrong)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 frames of 64 px"):
        extractor(frames=0)
    with pytest.raises(ValueError, match="got dtype 'int8'"):
        extractor("int8")
    with pytest.raises(ValueError, match="got neither weights nor a seed"):
        extractor(seed=None)


def test_one_pass_gives_map_pooled_and_logits() -> None:
    net = toy(outputs=("logits", "map", "pooled"))
    assert list(net.outputs) == ["map", "pooled", "logits"]
    assert [net.outputs[n].shape for n in net.outputs] == [(2, 4, 4, 5), (5,), (3,)]
    assert net.outputs["logits"].dims == ("class",)
    batch = toy_clips(1)
    got = net(batch)
    assert list(got) == list(net.outputs)
    network: Any = net.network
    assert network.calls == 1
    np.testing.assert_allclose(got["pooled"], got["map"].mean(axis=(1, 2, 3)), rtol=1e-5)
    largest = torch.from_numpy(got["map"].max(axis=(1, 2, 3)))
    with torch.inference_mode():
        np.testing.assert_allclose(got["logits"], network.head(largest).numpy(), rtol=1e-5)
    assert np.array_equal(toy()(batch)["map"], got["map"])


def test_default_classifier_is_fc_on_the_mean() -> None:
    network = seeded_init(lambda: ResNet3D(10, width=2, num_classes=3), 0).eval()
    maps = torch.rand(2, 16, 1, 2, 2)
    assert network.fc is not None
    expected = network.fc(maps.mean(dim=(2, 3, 4)))
    torch.testing.assert_close(Network3D.classify(network, maps), expected)
    with pytest.raises(ValueError, match="no classifier; build it with num_classes"):
        Network3D.classify(ResNet3D(10, width=2), maps)


def test_outputs_that_cannot_be_are_refused() -> None:
    for outputs in ((), ("map", "map"), ("maps",)):
        with pytest.raises(ValueError, match="expected one or more of map, pooled, logits"):
            toy(outputs=outputs)
    with pytest.raises(
        ValueError, match="got output 'logits' of toy without a classifier, expected"
    ):
        toy(outputs=("logits",), options=ToyOptions(None))


def test_logits_need_the_checkpoints_own_classifier(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "three.safetensors", Toy(3, 3))
    settings = {"weights": tmp_path / "three.safetensors", "seed": None}
    assert toy(**settings, outputs=("logits",))(toy_clips())["logits"].shape == (2, 3)
    toy(**settings, options=ToyOptions(7))
    with pytest.raises(ValueError, match=r"head\.weight \(got \(3, 5\), expected \(7, 5\)\)"):
        toy(**settings, options=ToyOptions(7), outputs=("logits",))


def test_flow_clips_are_images_or_pixels() -> None:
    net = toy(ToyFlow)
    assert net.channels == 2
    images = toy_clips(1, channels=2)
    from_images = net(images)["map"]
    pixels = images.float() / 255 * 40 - 20
    np.testing.assert_allclose(net(pixels)["map"], from_images, rtol=0, atol=1e-4)
    network: Any = net.network
    assert float((network.seen - pixels.permute(0, 4, 1, 2, 3) / 20).abs().max()) < 1e-6
    with pytest.raises(ValueError, match=r"expected \(B, 2, 4, 4, 2\) uint8 or float32"):
        net(toy_clips())
    assert toy().channels == 3
    with pytest.raises(ValueError, match=r"expected \(B, 2, 4, 4, 3\) uint8$"):
        toy()(toy_clips().float())


def test_layout_of_kernels_and_input() -> None:
    net = toy()
    network: Any = net.network
    net(toy_clips())
    last = torch.channels_last_3d
    assert network.conv.weight.is_contiguous(memory_format=last)
    assert network.seen.is_contiguous(memory_format=last)


@pytest.mark.parametrize(("precision", "places"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near_float32_and_stays_in_range(precision: str, places: float) -> None:
    batch = clips(1)[:, :, :32, :32]
    exact = extractor(size_px=32)(batch)["map"]
    got = extractor(size_px=32, precision=precision)(batch)["map"]
    assert got.dtype == np.float32
    assert 0 < np.abs(got - exact).max() < places * exact.max()


def test_pooling_is_float32_in_any_precision() -> None:
    got = toy(precision="bfloat16", outputs=("map", "pooled"))(toy_clips())
    mean = got["map"].astype(np.float64).mean(axis=(1, 2, 3))
    # a mean rounded to bfloat16 near 100 would be off by up to 0.25
    np.testing.assert_allclose(got["pooled"], mean, rtol=1e-6)


def test_precision_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="got precision 'tf32' on cpu"):
        extractor(precision="tf32")


def test_results_are_checked_when_they_are_collected() -> None:
    net = toy(dtype="float16")
    network: Any = net.network
    with torch.no_grad():
        network.conv.bias[2] = 7e4
    pending = net.launch(toy_clips())
    with pytest.raises(OverflowError, match="at most 65504 for float16"):
        pending.collect()


def test_memory_that_ran_out_is_free_while_the_error_is_handled() -> None:
    net = toy()
    kept: list[weakref.ref[torch.Tensor]] = []

    def forward_features(x: torch.Tensor) -> torch.Tensor:
        activations = x + 1
        kept.extend((weakref.ref(x), weakref.ref(activations)))
        torch.empty(2**52)
        return activations

    net._forward = forward_features
    try:
        net(toy_clips())
    except RuntimeError as error:
        alive = [ref() is not None for ref in kept]
        assert is_out_of_memory(error)  # noqa: PT017 - it must still be handled here
    assert alive == [False, False]


def test_what_waits_to_be_collected_keeps_no_activations() -> None:
    net = toy(dtype="float16", outputs=("map", "pooled", "logits"))
    kept: list[weakref.ref[torch.Tensor]] = []
    network: Any = net.network
    network.conv.register_forward_hook(
        lambda module, inputs, output: kept.extend((weakref.ref(inputs[0]), weakref.ref(output)))
    )
    network.forward_features = lambda x: network.conv(x) + 100
    net._forward = network.forward_features
    pending = net.launch(toy_clips())
    assert kept
    assert not any(ref() is not None for ref in kept)
    assert set(pending.collect()) == {"map", "pooled", "logits"}


def test_batches_may_be_collected_in_any_order() -> None:
    net = toy()
    batches = [toy_clips(n) for n in (1, 2, 3)]
    pending = [net.launch(batch) for batch in batches]
    got = [p.collect()["map"] for p in reversed(pending)][::-1]
    for batch, values in zip(batches, got, strict=True):
        assert np.array_equal(values, net(batch)["map"])


def test_a_compiler_that_fails_is_told_and_memory_that_runs_out_is_not_its_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems = [RuntimeError("no C++ compiler"), torch.OutOfMemoryError("CUDA out of memory")]

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise problems.pop(0)

    monkeypatch.setattr("torch.compile", lambda function: fail)
    net = toy(compile=True)
    with pytest.raises(RuntimeError, match=r"compiled toy failed: no C\+\+ compiler\. Set compile"):
        net(toy_clips())
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        net(toy_clips())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_networks_agree() -> None:
    options = ResNet3DOptions(depth=10, width=2)
    settings: dict[str, Any] = {"weights": None, "seed": 0, "frames": 16, "size_px": 64}
    plain = ResNet3DExtractor(options, dtype="float32", **settings)
    compiled = ResNet3DExtractor(options, dtype="float32", compile=True, **settings)
    for count in (2, 3):
        batch = clips(count)
        np.testing.assert_allclose(
            compiled(batch)["map"], plain(batch)["map"], rtol=1e-4, atol=1e-4
        )


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_launch_waits_for_nothing(precision: str) -> None:
    net = extractor(device="cuda", precision=precision)
    batches = [clips(2, seed) for seed in range(3)]
    net(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = [net.launch(batch) for batch in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch, values in zip(batches, pending, strict=True):
        assert np.array_equal(values.collect()["map"], net(batch)["map"])


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    cuda = extractor(device="cuda")
    batch = clips(3)
    np.testing.assert_allclose(cuda(batch)["map"], extractor()(batch)["map"], rtol=0, atol=1e-3)
    alone = np.concatenate([cuda(batch[i : i + 1])["map"] for i in range(3)])
    np.testing.assert_allclose(cuda(batch.cuda())["map"], alone, rtol=0, atol=1e-4)
