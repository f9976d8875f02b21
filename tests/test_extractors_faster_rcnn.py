from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from extractors.base import GivenBoxes
from extractors.faster_rcnn import (
    FasterRCNNExtractor,
    FasterRCNNOptions,
    build_detector,
)
from extractors.objects import clip_to_frame, together
from extractors.weights import create_network, save_checkpoint, seeded_init

SMALL: dict[str, Any] = {
    "builder": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "num_classes": 4,
    "min_size_px": 96,
    "max_size_px": 160,
}
OPTIONS = FasterRCNNOptions(**SMALL)
TOP_K = 5


def frame(height: int, width: int, seed: int) -> np.ndarray:
    """Coarse random blocks: structure at the size of objects."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
    return np.ascontiguousarray(blocks[rows][:, columns])


FRAMES = [frame(120, 160, 0), frame(90, 200, 1), frame(240, 130, 2)]


def image(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).permute(2, 0, 1) / 255


@lru_cache
def lively() -> Any:
    """A random detector that tells boxes apart.

    Untrained, it gives every box the same score: its batch norms are therefore set to the
    statistics of the test's frames, and its classifier's weights enlarged.
    """
    detector: Any = seeded_init(lambda: build_detector(OPTIONS, TOP_K), 0).eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        images, _ = detector.transform([image(f) for f in FRAMES])
        detector.backbone.train()
        detector.backbone(images.tensors)
        detector.eval()
        scores = detector.roi_heads.box_predictor.cls_score
        scores.weight.normal_(0, 0.1, generator=generator)
    return detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "detector.safetensors"
    save_checkpoint(path, lively())
    return path


def extractor(
    path: Path, device: str = "cpu", *, given: bool = False, **changes: Any
) -> FasterRCNNExtractor:
    options = FasterRCNNOptions(**{**SMALL, **changes})
    return FasterRCNNExtractor(
        options, weights=path, seed=None, top_k=TOP_K, dtype="float32", device=device, given=given
    )


@pytest.fixture(scope="module")
def net(checkpoint: Path) -> FasterRCNNExtractor:
    return extractor(checkpoint)


def reference(values: np.ndarray) -> Any:
    """torchvision's own forward pass of the same network on one frame."""
    with torch.inference_mode():
        lively().roi_heads.box_roi_pool.scales = None
        return lively()([image(values)])[0]


def pooled_bins(values: np.ndarray, native_boxes: torch.Tensor) -> torch.Tensor:
    """What the detector's own pooling layer gives for boxes (n, 4) of a native frame."""
    with torch.inference_mode():
        images, _ = lively().transform([image(values)])
        maps = lively().backbone(images.tensors)
        height, width = images.image_sizes[0]
        scale = [width / values.shape[1], height / values.shape[0]] * 2
        pool = lively().roi_heads.box_roi_pool
        pool.scales = None
        bins: torch.Tensor = pool(maps, [native_boxes * torch.tensor(scale)], images.image_sizes)
        return bins


def test_the_detector_is_lively() -> None:
    scores = reference(FRAMES[0])["scores"]
    assert len(scores) == TOP_K
    assert float(scores[:-1].sub(scores[1:]).min()) > 1e-4


@pytest.mark.parametrize("values", FRAMES, ids=["4:3", "wide", "high"])
def test_boxes_scores_and_classes_are_torchvisions(
    net: FasterRCNNExtractor, values: np.ndarray
) -> None:
    expected = reference(values)
    n = len(expected["scores"])
    assert n == TOP_K
    row = net([values])
    assert row["count"].tolist() == [n]
    np.testing.assert_allclose(row["boxes_xyxy_px"][0], expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(row["scores"][0], expected["scores"], atol=1e-5)
    assert row["classes"][0].tolist() == expected["labels"].tolist()
    assert (np.diff(row["scores"][0]) <= 0).all()
    assert row["frame_size_px"].tolist() == [[values.shape[1], values.shape[0]]]
    limits = [values.shape[1], values.shape[0]] * 2
    assert (row["boxes_xyxy_px"] >= 0).all()
    assert (row["boxes_xyxy_px"] <= limits).all()


def test_features_are_the_detectors_own_roi_features(
    checkpoint: Path, net: FasterRCNNExtractor
) -> None:
    """Whatever the pooling layer returns last inside the detector, for the final boxes."""
    detector = lively()
    bins = pooled_bins(FRAMES[0], reference(FRAMES[0])["boxes"])
    pooled = bins.flatten(2).max(dim=2).values
    with torch.inference_mode():
        hidden = detector.roi_heads.box_head(bins)
    assert bins.shape == (TOP_K, 256, 7, 7)
    row = net([FRAMES[0]])
    np.testing.assert_allclose(row["features"][0], pooled, rtol=1e-3, atol=1e-4)
    head = extractor(checkpoint, features="box_head")
    assert head.outputs["features"].shape == (TOP_K, 1024)
    np.testing.assert_allclose(head([FRAMES[0]])["features"][0], hidden, rtol=1e-3, atol=1e-4)


def test_rows_do_not_depend_on_neighbours_or_order(
    checkpoint: Path, net: FasterRCNNExtractor
) -> None:
    # The first frame is so small that a pooling layer set up by it would pool all others wrongly.
    tiny = frame(24, 300, 3)
    frames = [tiny, *FRAMES]
    together = extractor(checkpoint)(frames)
    assert (together["count"][1:] == TOP_K).all()
    for index, values in enumerate(frames):
        alone = net([values])
        for name, expected in alone.items():
            np.testing.assert_allclose(
                together[name][index], expected[0], rtol=0, atol=1e-4, err_msg=f"{name} {index}"
            )


@pytest.mark.parametrize(("together_on", "lengths"), [("cuda", [3, 1]), ("cpu", [1, 1, 1, 1])])
def test_frames_of_one_size_run_as_one_batch_but_on_a_cpu(
    checkpoint: Path,
    net: FasterRCNNExtractor,
    monkeypatch: pytest.MonkeyPatch,
    together_on: str,
    lengths: list[int],
) -> None:
    monkeypatch.setattr(
        "extractors.objects.together",
        lambda frames, device: together(frames, torch.device(together_on)),
    )
    small, wide = [frame(120, 160, seed) for seed in (3, 4, 5)], [frame(90, 200, 6)]
    frames = [small[0], wide[0], small[1], small[2]]
    batches = []
    forward = net.network.backbone.forward

    def counted(pixels: torch.Tensor) -> Any:
        batches.append(len(pixels))
        return forward(pixels)

    monkeypatch.setattr(net.network.backbone, "forward", counted)
    rows = net(frames)
    assert batches == lengths
    for index, values in enumerate(frames):
        for name, expected in extractor(checkpoint)([values]).items():
            np.testing.assert_allclose(
                rows[name][index], expected[0], rtol=0, atol=1e-4, err_msg=f"{name} {index}"
            )


def boxes_of(*boxes: list[float], scores: list[float] | None = None) -> GivenBoxes:
    n = len(boxes)
    return GivenBoxes(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores or [0.5] * n, np.float32),
        np.arange(7, 7 + n, dtype=np.int32),
    )


@pytest.mark.parametrize("values", FRAMES, ids=["4:3", "wide", "high"])
@pytest.mark.parametrize("features", ["roi_max", "box_head"])
def test_given_boxes_are_described_and_not_moved(
    checkpoint: Path, values: np.ndarray, features: str
) -> None:
    given = boxes_of([3, 5, 90, 80], [20.5, 10.25, 44, 61], scores=[0.2, 0.9])
    row = extractor(checkpoint, given=True, features=features)([values], [given])
    assert row["count"].tolist() == [2]
    assert row["boxes_xyxy_px"][0, :2].tolist() == [[20.5, 10.25, 44, 61], [3, 5, 90, 80]]
    np.testing.assert_allclose(row["scores"][0], [0.9, 0.2, 0, 0, 0])
    assert row["classes"].tolist() == [[8, 7, 0, 0, 0]]
    bins = pooled_bins(values, torch.from_numpy(given.boxes_xyxy_px[::-1].copy()))
    with torch.inference_mode():
        head = lively().roi_heads.box_head
        expected = head(bins) if features == "box_head" else bins.amax(dim=(2, 3))
    np.testing.assert_allclose(row["features"][0, :2], expected, rtol=1e-3, atol=1e-4)
    assert not row["features"][0, 2:].any()


def test_a_detectors_own_boxes_given_back_have_the_same_features(
    checkpoint: Path, net: FasterRCNNExtractor
) -> None:
    found = net(FRAMES)
    given = [
        GivenBoxes(*(found[name][i] for name in ("boxes_xyxy_px", "scores", "classes")))
        for i in range(len(FRAMES))
    ]
    described = extractor(checkpoint, given=True)(FRAMES, given)
    for name, values in found.items():
        np.testing.assert_allclose(described[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


def test_given_boxes_of_a_batch(checkpoint: Path) -> None:
    """Frames without boxes, and with more than K, beside others."""
    net = extractor(checkpoint, given=True)
    many = boxes_of(*([i, i, 50 + i, 60 + i] for i in range(7)), scores=[0.1 * i for i in range(7)])
    frames = [FRAMES[0], FRAMES[1], FRAMES[0], FRAMES[0]]
    boxes = [boxes_of(), boxes_of([1, 1, 9, 9]), many, boxes_of([0, 0, 160, 120])]
    together = net(frames, boxes)
    assert together["count"].tolist() == [0, 1, TOP_K, 1]
    assert together["classes"][2].tolist() == [13, 12, 11, 10, 9]
    assert not together["features"][0].any()
    for index in range(4):
        alone = net([frames[index]], [boxes[index]])
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][index], values[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ([30, 10, 20, 40], "inverted or empty"),
        ([float("nan"), 10, 20, 40], "not finite"),
        ([160, 10, 170, 40], "outside the 160×120 frame"),
    ],
)
def test_wrong_given_boxes_are_named(checkpoint: Path, box: list[float], problem: str) -> None:
    with pytest.raises(ValueError, match=rf"got box 0 of frame 1: \[.*which is {problem}"):
        extractor(checkpoint, given=True)([FRAMES[0]] * 2, [boxes_of(), boxes_of(box)])


def test_boxes_go_with_given_and_with_nothing_else(
    checkpoint: Path, net: FasterRCNNExtractor
) -> None:
    with pytest.raises(ValueError, match="got boxes, expected none"):
        net([FRAMES[0]], [boxes_of([0, 0, 9, 9])])
    with pytest.raises(ValueError, match="got no boxes, expected one GivenBoxes for each of 1"):
        extractor(checkpoint, given=True)([FRAMES[0]])


def test_boxes_are_exact_whatever_the_backbones_precision(checkpoint: Path) -> None:
    """Box arithmetic in bfloat16 would move edges by pixels."""
    half = FasterRCNNExtractor(
        OPTIONS, weights=checkpoint, seed=None, top_k=TOP_K, dtype="float32", precision="bfloat16"
    )
    seen = []
    half.network.rpn.register_forward_pre_hook(
        lambda module, inputs: seen.extend(values.dtype for values in inputs[1].values())
    )
    row = half([FRAMES[0]])
    assert set(seen) == {torch.float32}
    exact = extractor(checkpoint)([FRAMES[0]])
    assert np.abs(row["scores"] - exact["scores"]).max() < 0.05
    assert not np.array_equal(row["scores"], exact["scores"])


def test_frames_of_a_pixel(net: FasterRCNNExtractor) -> None:
    row = net([frame(1, 1, 0)])
    assert row["frame_size_px"].tolist() == [[1, 1]]
    assert ((row["boxes_xyxy_px"] >= 0) & (row["boxes_xyxy_px"] <= 1)).all()
    net([frame(1, 64, 0)])
    with pytest.raises(ValueError, match=r"got frame 0 of 65×1 px, expected a longer side of at"):
        net([frame(1, 65, 0)])


def test_limits_of_the_frame_decide_the_size(checkpoint: Path) -> None:
    seen = []
    net = extractor(checkpoint, min_size_px=64, max_size_px=100)
    net.network.backbone.register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape[2:]))
    )
    net([frame(120, 160, 0)])
    net([frame(90, 200, 0)])
    assert seen == [(64, 96), (64, 128)]  # 64×85 and 45×100, padded to multiples of 32


def test_rounding_errors_at_the_edges_are_clipped() -> None:
    boxes = np.array([[-1e-5, 0, 160.00002, 120.00001], [1, 2, 3, 4]], np.float32)
    clipped = clip_to_frame(boxes, FRAMES[0])
    assert clipped.tolist() == [[0, 0, 160, 120], [1, 2, 3, 4]]


def test_boxes_that_resizing_back_puts_beyond_the_edge_are_clipped(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = extractor(checkpoint)
    postprocess = net.network.transform.postprocess

    def rounded_up(*arguments: Any) -> Any:
        found = postprocess(*arguments)
        for detections in found:
            detections["boxes"] = detections["boxes"] + torch.tensor([-500.0, -500, 500, 500])
        return found

    monkeypatch.setattr(net.network.transform, "postprocess", rounded_up)
    row = net([FRAMES[0]])
    assert (row["boxes_xyxy_px"][0] == [0, 0, 160, 120]).all()


def test_no_detections_give_zeros(checkpoint: Path) -> None:
    row = extractor(checkpoint, score_threshold=1.0)(FRAMES[:2])
    assert row["count"].tolist() == [0, 0]
    for name in ("features", "boxes_xyxy_px", "scores", "classes"):
        assert not row[name].any()
    assert row["frame_size_px"].tolist() == [[160, 120], [200, 90]]


def test_fewer_detections_are_padded(checkpoint: Path, net: FasterRCNNExtractor) -> None:
    scores = net([FRAMES[0]])["scores"][0]
    threshold = float(scores[1] + scores[2]) / 2
    row = extractor(checkpoint, score_threshold=threshold)([FRAMES[0]])
    assert row["count"].tolist() == [2]
    np.testing.assert_allclose(row["scores"][0, :2], scores[:2], atol=1e-6)
    assert row["features"][0, :2].any(axis=1).all()
    assert not row["features"][0, 2:].any()


def test_outputs_match_their_specs(checkpoint: Path, net: FasterRCNNExtractor) -> None:
    rows = net(FRAMES)
    assert rows.keys() == net.outputs.keys()
    for name, spec in net.outputs.items():
        assert rows[name].shape == (3, *spec.shape)
        assert rows[name].dtype.name == spec.dtype
    half = FasterRCNNExtractor(
        OPTIONS, weights=checkpoint, seed=None, top_k=TOP_K, dtype="float16"
    )([FRAMES[0]])
    assert half["features"].dtype == np.float16
    assert np.array_equal(half["features"][0], rows["features"][0].astype(np.float16))


def test_class_count_must_be_the_checkpoints(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"cls_score\.weight \(got \(4, 1024\), expected \(7,"):
        extractor(checkpoint, num_classes=7)


def test_checkpoints_of_frozen_batch_norms_load(tmp_path: Path) -> None:
    """The published ones were trained with frozen batch norms, which count no batches."""
    state = {k: v for k, v in lively().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "detector.pth")
    row = extractor(tmp_path / "detector.pth")([FRAMES[0]])
    np.testing.assert_allclose(row["scores"][0], reference(FRAMES[0])["scores"], atol=1e-5)


@pytest.mark.parametrize("builder", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"])
def test_every_builder_has_its_channels(builder: str) -> None:
    with torch.device("meta"):
        detector: Any = build_detector(FasterRCNNOptions(builder=builder))
    assert detector.backbone.out_channels == 256
    predictor = detector.roi_heads.box_predictor
    assert predictor.cls_score.weight.shape == (91, 1024)


def test_batch_norm_eps_reaches_every_layer() -> None:
    options = FasterRCNNOptions(**SMALL, batch_norm_eps=0)
    detector = create_network(lambda: build_detector(options), weights=None, seed=0)
    norms = [m.eps for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 10
    assert set(norms) == {0.0}


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="got builder 'yolo', expected one of fasterrcnn_resnet50"):
        FasterRCNNOptions(builder="yolo")
    with pytest.raises(ValueError, match="got features 'mean', expected one of roi_max, box_head"):
        FasterRCNNOptions(features="mean")
    with pytest.raises(ValueError, match="got num_classes=1"):
        FasterRCNNOptions(num_classes=1)
    with pytest.raises(ValueError, match=r"got score_threshold=1\.5"):
        FasterRCNNOptions(score_threshold=1.5)
    with pytest.raises(ValueError, match="got min_size_px=0, expected 1 or more"):
        FasterRCNNOptions(min_size_px=0)
    with pytest.raises(ValueError, match="got max_size_px=63, expected 64 or more"):
        FasterRCNNOptions(max_size_px=63)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(checkpoint: Path, net: FasterRCNNExtractor) -> None:
    cpu, cuda = net(FRAMES), extractor(checkpoint, "cuda")(FRAMES)
    for name, values in cpu.items():
        np.testing.assert_allclose(cuda[name], values, rtol=1e-3, atol=1e-2, err_msg=name)
