from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.clip_network import ClipNetwork
from extractors.resnet3d import PREPROCESSING, ResNet3D, ResNet3DExtractor, ResNet3DOptions
from extractors.weights import save_checkpoint, seeded_init

OPTIONS = ResNet3DOptions(depth=18, width=4)


def extractor(dtype: str = "float32", device: str = "cpu", **changes: Any) -> ClipNetwork:
    settings: dict[str, Any] = {"weights": None, "seed": 0, "frames": 16, "size_px": 64, **changes}
    return ResNet3DExtractor(OPTIONS, dtype=dtype, device=device, **settings)


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
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
    np.testing.assert_allclose(together[[2, 0, 3, 1]], shuffled, rtol=0, atol=1e-4)


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


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    cuda = extractor(device="cuda")
    batch = clips(3)
    np.testing.assert_allclose(cuda(batch)["map"], extractor()(batch)["map"], rtol=0, atol=1e-3)
    alone = np.concatenate([cuda(batch[i : i + 1])["map"] for i in range(3)])
    np.testing.assert_allclose(cuda(batch.cuda())["map"], alone, rtol=0, atol=1e-4)
