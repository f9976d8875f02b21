"""Flow estimators: equal to the libraries' own calls, clipped, and a pair knows no neighbours."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.models.optical_flow import raft_small
from torchvision.transforms._presets import OpticalFlow

from extractors.flow import decode_flow, encode_flow
from extractors.flow_registry import create_flow_estimator, flow_settings
from extractors.weights import save_checkpoint, seeded_init

cv2 = pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")

Frame = NDArray[np.uint8]
FAST = {"nscales": 3, "warps": 2, "outer_iterations": 2}


def texture(height_px: int, width_px: int, seed: int = 0) -> Frame:
    """A smooth coloured pattern in which every place looks different."""
    noise = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0).astype(np.float32)
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) * (255 / (high - low))).astype(np.uint8)


def shifted(frame: Frame, right_px: int, down_px: int) -> Frame:
    return np.roll(frame, (down_px, right_px), axis=(0, 1))


def frames(count: int, height_px: int = 40, width_px: int = 56) -> list[Frame]:
    return [shifted(texture(height_px, width_px), i, i // 2) for i in range(count)]


def raft(**keywords: Any) -> Any:
    """A small RAFT with random weights and two updates."""
    given = {"weights": None, "seed": 3, **keywords}
    options = {"model": "small", "iterations": 2}
    return create_flow_estimator("raft", options=options, **given)


class TestTVL1:
    def test_equals_opencv(self) -> None:
        options = {
            "tau": 0.2,
            "lambda_": 0.1,
            "theta": 0.25,
            "nscales": 3,
            "warps": 3,
            "epsilon": 0.02,
            "inner_iterations": 20,
            "outer_iterations": 4,
            "scale_step": 0.7,
            "gamma": 0.1,
            "median_filtering": 3,
        }
        first, second = frames(2)
        (field,) = create_flow_estimator("tvl1", options=options)([first], [second])
        solver = cv2.optflow.DualTVL1OpticalFlow_create(
            0.2, 0.1, 0.25, 3, 3, 0.02, 20, 4, 0.7, 0.1, 3
        )
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        np.testing.assert_array_equal(field, solver.calc(*grey, None))
        assert field.dtype == np.float32
        assert field.shape == (40, 56, 2)

    def test_defaults_are_opencvs(self) -> None:
        first, second = frames(2)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(*grey, None)
        (field,) = create_flow_estimator("tvl1", options={})([first], [second])
        np.testing.assert_array_equal(field, expected)

    def test_a_shift_is_seen_right_and_down(self) -> None:
        first = texture(64, 80)
        estimator = create_flow_estimator("tvl1", options={"epsilon": 0.001})
        (field,) = estimator([first], [shifted(first, 3, -2)])
        inside = field[12:-12, 12:-12]
        assert np.abs(np.median(inside, axis=(0, 1)) - [3, -2]).max() < 0.2

    def test_is_clipped(self) -> None:
        first = texture(64, 80)
        estimator = create_flow_estimator("tvl1", options={"epsilon": 0.001}, bound_px=1.5)
        (field,) = estimator([first], [shifted(first, 3, -2)])
        assert field.max() == 1.5
        assert field.min() == -1.5

    def test_threads_and_neighbours_do_not_matter(self) -> None:
        some = [*frames(4), *frames(4, 48, 40)]
        first, second = some[:-1], some[1:]
        del first[3], second[3]  # the pair of two sizes
        cv2.setNumThreads(2)
        together = create_flow_estimator("tvl1", options=FAST, num_threads=3)(first, second)
        alone = create_flow_estimator("tvl1", options=FAST)
        for field, a, b in zip(together, first, second, strict=True):
            np.testing.assert_array_equal(field, alone([a], [b])[0])

    def test_without_opencv_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(ValueError, match="pip install opencv-contrib-python-headless"):
            create_flow_estimator("tvl1", options={})

    def test_plain_opencv_is_not_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(cv2, "optflow")
        with pytest.raises(ValueError, match="lacks optflow"):
            create_flow_estimator("tvl1", options={})

    @pytest.mark.parametrize(
        "options", [{"tau": 0.0}, {"scale_step": 1.0}, {"median_filtering": 4}, {"gamma": -1.0}]
    )
    def test_options_out_of_range(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="for tvl1, expected"):
            flow_settings("tvl1", options, bound_px=20)


class TestRAFT:
    def test_equals_torchvision(self) -> None:
        some = frames(3, 128, 136)
        network = seeded_init(raft_small, 3).eval()
        prepare = OpticalFlow()
        pictures = [torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in some]
        fields = raft(bound_px=1e6)(some[:-1], some[1:])
        with torch.inference_mode():
            for position, field in enumerate(fields):
                x = prepare(pictures[position], pictures[position + 1])
                expected = network(*x, num_flow_updates=2)[-1][0].permute(1, 2, 0).numpy()
                assert np.abs(expected).max() > 0.1
                np.testing.assert_allclose(field, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("height_px", "width_px"), [(133, 150), (60, 141)])
    def test_sides_are_padded_with_their_edges_and_cropped_back(
        self, height_px: int, width_px: int
    ) -> None:
        first, second = frames(2, height_px, width_px)
        (field,) = raft()([first], [second])
        height, width = max(-(-height_px // 8) * 8, 128), -(-width_px // 8) * 8
        top, left = (height - height_px) // 2, (width - width_px) // 2
        around = ((top, height - height_px - top), (left, width - width_px - left), (0, 0))
        (padded,) = raft()([np.pad(first, around, "edge")], [np.pad(second, around, "edge")])
        assert field.shape == (height_px, width_px, 2)
        expected = padded[top : top + height_px, left : left + width_px]
        np.testing.assert_allclose(field, expected, atol=1e-5)

    def test_batches_and_neighbours_do_not_matter(self) -> None:
        some = [*frames(4, 128, 128), *frames(2, 128, 136)]
        first, second = [*some[:3], some[4]], [*some[1:4], some[5]]
        together = raft(batch_size=8)(first, second)
        for batch_size in (1, 2):
            fields = raft(batch_size=batch_size)(first, second)
            for field, expected in zip(fields, together, strict=True):
                assert np.array_equal(field, expected)

    def test_memory_that_runs_out_halves_the_batch_for_good(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = frames(6, 128, 128)
        expected = raft()(some[:-1], some[1:])
        estimator = raft()
        estimator._batch_size = 5  # on a CPU it takes one pair at a time
        sizes: list[int] = []
        batch = estimator._batch

        def tight(pairs: list[Any]) -> Any:
            sizes.append(len(pairs))
            if len(pairs) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return batch(pairs)

        monkeypatch.setattr(estimator, "_batch", tight)
        for field, plain in zip(estimator(some[:-1], some[1:]), expected, strict=True):
            np.testing.assert_allclose(field, plain, atol=1e-4)
        assert sizes == [5, 2, 2, 1]

    def test_memory_that_is_too_small_for_one_pair_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        estimator = raft()

        def full(pairs: list[Any]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(estimator, "_batch", full)
        with pytest.raises(torch.OutOfMemoryError):
            estimator(*([frame] for frame in frames(2, 128, 128)))

    def test_weights_come_from_a_file_in_torchvisions_layout(self, tmp_path: Any) -> None:
        save_checkpoint(tmp_path / "raft.safetensors", seeded_init(raft_small, 3))
        first, second = frames(2, 128, 128)
        (loaded,) = raft(weights=tmp_path / "raft.safetensors", seed=None)([first], [second])
        np.testing.assert_array_equal(loaded, raft()([first], [second])[0])
        with pytest.raises(ValueError, match="does not fit"):
            create_flow_estimator(
                "raft", options={"model": "large"}, weights=tmp_path / "raft.safetensors"
            )

    def test_bfloat16_is_near(self) -> None:
        first, second = frames(2, 128, 128)
        (exact,) = raft()([first], [second])
        (rounded,) = raft(precision="bfloat16")([first], [second])
        assert rounded.dtype == np.float32
        assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max() + 0.1

    def test_flow_that_is_not_finite_is_refused(self) -> None:
        estimator = raft()
        for parameter in estimator.network.parameters():
            parameter.data.fill_(float("nan"))
        with pytest.raises(OverflowError, match="not finite"):
            estimator(*([frame] for frame in frames(2, 128, 128)))

    @pytest.mark.parametrize("options", [{"model": "huge"}, {"iterations": 0}])
    def test_options_out_of_range(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="for raft, expected"):
            flow_settings("raft", options, bound_px=20)


class TestSettings:
    def test_name_everything_that_decides_the_numbers(self) -> None:
        settings = flow_settings("raft", {"model": "small"}, bound_px=25, precision="bfloat16")
        library = settings.pop("library")
        assert library.startswith("torchvision ")
        assert settings == {
            "method": "raft",
            "version": 1,
            "options": {"model": "small", "iterations": 12},
            "bound_px": 25,
            "precision": "bfloat16",
        }
        assert flow_settings("tvl1", {}, bound_px=20)["library"] == f"opencv {opencv_version()}"

    def test_precision_is_a_networks(self) -> None:
        rounded = flow_settings("tvl1", {}, bound_px=20, precision="bfloat16")
        assert rounded == flow_settings("tvl1", {}, bound_px=20)

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"flow method 'brox', expected one of raft, tvl1"):
            flow_settings("brox", {}, bound_px=20)
        with pytest.raises(ValueError, match="option 'levels' for tvl1"):
            flow_settings("tvl1", {"levels": 3}, bound_px=20)

    def test_weights_are_a_networks(self) -> None:
        with pytest.raises(ValueError, match="which has none"):
            create_flow_estimator("tvl1", options={}, seed=1)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([(40, 40, 3)], [], "1 first and 0 second"),
        ([(40, 40, 3)], [(40, 48, 3)], "expected one"),
        ([(40, 40, 2)], [(40, 40, 2)], r"expected \(H, W, 3\) uint8"),
    ],
)
def test_pairs_that_are_none(first: list[Any], second: list[Any], words: str) -> None:
    estimator = create_flow_estimator("tvl1", options=FAST)
    with pytest.raises(ValueError, match=words):
        estimator(
            [np.zeros(shape, dtype=np.uint8) for shape in first],
            [np.zeros(shape, dtype=np.uint8) for shape in second],
        )


@pytest.mark.parametrize("bound_px", [20.0, 25.0])
def test_eight_bits_hold_flow_within_a_step(bound_px: float) -> None:
    pixels = np.linspace(-bound_px, bound_px, 5001, dtype=np.float32)
    values = encode_flow(pixels, bound_px)
    assert values.dtype == np.uint8
    error = np.abs(decode_flow(values, bound_px) - pixels).max()
    assert 0.9 * bound_px / 255 < error <= bound_px / 255 + 1e-5
    everything = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        encode_flow(decode_flow(everything, bound_px), bound_px), everything
    )
    assert encode_flow(np.array([-99.0, 99.0]), bound_px).tolist() == [0, 255]


def opencv_version() -> str:
    from importlib.metadata import version

    return version("opencv-contrib-python-headless")


class TestOfficialFlow:
    """EPIC's own images, against the frames that they are about."""

    @staticmethod
    def rgb(folder: Any, number: int) -> Frame:
        file = folder / "frames" / "P01_01_rgb" / f"P01_01_frame_{number:010d}.jpg"
        return np.array(Image.open(file).convert("RGB"))

    @staticmethod
    def flow(folder: Any, number: int) -> NDArray[np.float32]:
        files = [
            folder / "frames" / "P01_01_flow" / f"P01_01_flow_{axis}_{number:010d}.jpg"
            for axis in "uv"
        ]
        values = np.stack([np.array(Image.open(file).convert("L")) for file in files], axis=-1)
        return decode_flow(values, 25.0)

    def test_ours_agrees(self, test_data: Any) -> None:
        # The folder's frames are every other official one: its j − 2 is the official 2j − 5.
        estimator = create_flow_estimator("tvl1", options={"nscales": 10, "warps": 10})
        for number in (60, 62):
            pair = self.rgb(test_data, number - 2), self.rgb(test_data, number + 1)
            (field,) = estimator([pair[0]], [pair[1]])
            official = self.flow(test_data, number)
            assert np.corrcoef(field.ravel(), official.ravel())[0, 1] > 0.95

    def test_images_are_three_flow_strides_back_at_a_bound_of_25(self, test_data: Any) -> None:
        y, x = np.mgrid[:256, :456].astype(np.float32)

        def error(number: int, first: int, second: int, scale: float) -> float:
            field = scale * self.flow(test_data, number)
            pair = (self.rgb(test_data, number + offset) for offset in (first, second))
            start, end = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair)
            warped = cv2.remap(end, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR)
            return float(np.abs(warped.astype(np.float32) - start)[30:-30, 30:-30].mean())

        readings = {
            (first, second, scale): sum(
                error(number, first, second, scale) for number in (10, 20, 26, 45, 75)
            )
            for first in range(-3, 1)
            for second in range(first + 1, 3)
            for scale in (0.8, 1.0)  # bounds of 20 and 25
        }
        assert min(readings, key=lambda reading: readings[reading]) == (-2, 1, 1.0)
