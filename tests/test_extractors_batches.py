"""A row does not depend on the batch it is in: not on its size, its place or its neighbours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from extractors.base import ClipExtractor, GivenBoxes
from extractors.registry import (
    CLIP_EXTRACTORS,
    FRAME_EXTRACTORS,
    create_clip_extractor,
    create_frame_extractor,
)

# One small network of each family; torchvision's has a single width.
SMALL: dict[str, dict[str, Any]] = {
    "i3d": {"width": 8},
    "r2plus1d": {"depth": 18, "width": 4},
    "resnet3d": {"depth": 18, "width": 4},
    "torchvision:r3d_18": {},
}
NAMES = [name for name in SMALL if name in CLIP_EXTRACTORS.names()]
FRAMES, SIZE_PX = 9, 33


def create(name: str, **changes: Any) -> ClipExtractor:
    settings: dict[str, Any] = {"weights": None, "seed": 0, "dtype": "float32", **changes}
    return create_clip_extractor(
        name, architecture=SMALL[name], frames=FRAMES, size_px=SIZE_PX, **settings
    )


def clips(count: int, channels: int) -> torch.Tensor:
    shape = (count, FRAMES, SIZE_PX, SIZE_PX, channels)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch[1], batch[2] = 0, 255  # neighbours of another kind
    return batch


def test_every_family_is_here() -> None:
    families = {name.partition(":")[0] for name in CLIP_EXTRACTORS.names()}
    assert families == {name.partition(":")[0] for name in NAMES}


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def groupings(count: int, seed: int) -> Iterator[list[int]]:
    """Rows of batches of random lengths, in random order, some rows more than once."""
    rng = np.random.default_rng(seed)
    for length in (1, 2, 3, count, *rng.integers(2, count, 3)):
        yield rng.integers(0, count, length).tolist()


def assert_same_bytes(
    rows: Sequence[int], got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> None:
    assert got.keys() == expected.keys()
    for output, values in got.items():
        assert len(values) == len(rows)
        for row, value in zip(rows, values, strict=True):
            assert value.tobytes() == expected[output][row].tobytes(), (output, row, rows)


CASES = [
    (name, precision, threads)
    for name in NAMES
    for precision in ("float32", "bfloat16")
    for threads in (1, 2, 3)
    if ":" not in name or (precision, threads) == ("float32", 2)  # a large one
]


@pytest.mark.parametrize(("name", "precision", "threads"), CASES, indirect=["threads"])
def test_rows_do_not_depend_on_the_batch(name: str, precision: str, threads: int) -> None:
    net = create(name, precision=precision, outputs=("map", "pooled", "logits"))
    count = 5 if ":" in name else 17  # libraries choose other kernels from 16 on
    batch = clips(count, net.channels)
    expected = net(batch)
    assert all(np.abs(values).max() > 0.01 for values in expected.values())
    for rows in groupings(count, seed=threads):
        assert_same_bytes(rows, net(batch[rows]), expected)


def test_a_batch_may_be_empty() -> None:
    values = create("resnet3d")(clips(3, 3)[:0])["map"]
    assert values.shape == (0, *create("resnet3d").outputs["map"].shape)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", NAMES)
def test_rows_on_a_gpu_depend_on_the_batch_by_rounding_only(name: str) -> None:
    net = create(name, device="cuda", outputs=("map", "pooled", "logits"))
    batch = clips(17, net.channels)
    expected = net(batch)
    for rows in ([0], [16], [3, 2], [5, 1, 0, 2, 4]):
        for output, values in net(batch[rows]).items():
            np.testing.assert_allclose(values, expected[output][rows], rtol=1e-4, atol=1e-4)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_on_a_gpu_depends_on_the_batch_by_rounding_only(name: str) -> None:
    net = create(name, precision="bfloat16", device="cuda")
    batch = clips(5, net.channels)
    together, exact = net(batch)["map"], create(name, device="cuda")(batch)["map"]
    alone = np.concatenate([net(batch[i : i + 1])["map"] for i in range(5)])
    rounding = np.abs(together - exact).max()
    assert 0 < rounding < 0.1 * np.abs(exact).max()
    assert np.abs(together - alone).max() <= 2 * rounding


# Of what libraries make a batch of, the length and the sizes decide; small networks will do.
DETECTORS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {
        "builder": "fasterrcnn_mobilenet_v3_large_320_fpn",
        "num_classes": 3,
        "min_size_px": 96,
        "max_size_px": 160,
        "score_threshold": 0.0,
    },
    "given_boxes": {"backbone": "resnet10", "layer": "layer2", "short_side_px": 64},
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", DETECTORS)
def test_objects_do_not_depend_on_the_batch(name: str, given: bool, threads: int) -> None:
    if name == "given_boxes" and not given:
        pytest.skip("it finds no boxes of its own")
    net = create_frame_extractor(
        name,
        architecture=DETECTORS[name],
        weights=None,
        seed=0,
        top_k=3,
        given=given,
        dtype="float32",
    )
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (60, 80), (48, 90), (60, 80), (48, 90), (60, 80)]
    frames = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    boxes = [some_boxes(rng) for _ in frames] if given else None
    expected = net(frames, boxes)
    assert expected["count"].min() > 0
    assert np.ptp(expected["features"]) > 0
    for rows in groupings(len(frames), seed=threads):
        some = boxes and [boxes[row] for row in rows]
        assert_same_bytes(rows, net([frames[row] for row in rows], some), expected)


def some_boxes(rng: np.random.Generator) -> GivenBoxes:
    n = int(rng.integers(1, 4))
    corner = rng.uniform(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 25, (n, 2))], axis=1)
    return GivenBoxes(
        boxes.astype(np.float32), rng.random(n).astype(np.float32), np.zeros(n, np.int32)
    )


def test_every_detector_is_here() -> None:
    assert set(FRAME_EXTRACTORS.names()) == {*DETECTORS, "detectron2"}  # has tests of its own
