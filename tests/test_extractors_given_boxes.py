from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import resnet
from torchvision.ops import roi_align

from extractors.base import GivenBoxes
from extractors.given_boxes import (
    BoxClassifier,
    GivenBoxesExtractor,
    GivenBoxesOptions,
)
from extractors.objects import select_boxes
from extractors.weights import load_into, load_state, save_checkpoint, seeded_init

OPTIONS = GivenBoxesOptions(backbone="resnet10", layer="layer2", short_side_px=64)


def extractor(
    weights: Path | None = None, options: GivenBoxesOptions = OPTIONS, **settings: Any
) -> GivenBoxesExtractor:
    seed = 0 if weights is None else None
    return GivenBoxesExtractor(
        options, weights=weights, seed=seed, top_k=3, dtype="float32", given=True, **settings
    )


def given(*boxes: Sequence[float], scores: list[float] | None = None) -> GivenBoxes:
    n = len(boxes)
    return GivenBoxes(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores if scores is not None else [1 - 0.1 * i for i in range(n)], np.float32),
        np.arange(10, 10 + n, dtype=np.int32),
    )


def frame(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_map_is_torchvisions_and_boxes_are_aligned() -> None:
    """Frame already 64 px high: a plain torchvision forward and one RoIAlign in map cells."""
    network = seeded_init(lambda: BoxClassifier(OPTIONS), 0).eval()
    whole = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]).eval()
    load_into(whole, network.state_dict(), replaceable=("fc", "layer3", "layer4"))
    image = frame(64, 96, 0)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((image / 255 - mean) / std).astype(np.float32)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(x))))
        maps = whole.layer2(whole.layer1(x))  # 8 pixels a cell
        assert maps.shape == (1, 128, 8, 12)
        box = torch.tensor([[0.0, 8, 16, 80, 56]])
        bins = roi_align(maps, box, 7, spatial_scale=1 / 8, sampling_ratio=0, aligned=True)
    rows = extractor()([image], [given([8, 16, 80, 56])])
    np.testing.assert_allclose(
        rows["features"][0, 0], bins[0].flatten(1).max(dim=1).values, rtol=1e-4, atol=1e-5
    )


def test_resize_keeps_the_box_on_its_object() -> None:
    """A smooth picture drawn at two sizes, boxes with it, gives nearly the same."""

    def draw(height: int, width: int) -> np.ndarray:
        y = (np.arange(height)[:, None, None] + 0.5) / height
        x = (np.arange(width)[None, :, None] + 0.5) / width
        wave = np.sin(9 * x + np.arange(3)) * np.cos(7 * y + np.arange(3))
        return np.round(127 + 120 * wave).astype(np.uint8)

    image, large = draw(64, 96), draw(128, 192)
    small_row = extractor()([image], [given([8, 16, 80, 56])])["features"][0, 0]
    large_row = extractor()([large], [given([16, 32, 160, 112])])["features"][0, 0]
    other = extractor()([large], [given([8, 16, 80, 56])])["features"][0, 0]
    off = np.abs(small_row - other).max()
    assert np.abs(small_row - large_row).max() < 0.05 * off


def test_best_boxes_come_first_and_rows_are_padded() -> None:
    boxes = ([0, 0, 10, 10], [5, 5, 30, 30], [0, 0, 90, 60], [20, 20, 40, 40])
    rows = extractor()(
        [frame(64, 96, 0), frame(64, 96, 1), frame(64, 96, 2)],
        [given(*boxes, scores=[0.1, 0.9, 0.5, 0.5]), given(boxes[1]), given()],
    )
    assert rows["count"].tolist() == [3, 1, 0]
    assert rows["boxes_xyxy_px"][0].tolist() == [list(boxes[i]) for i in (1, 2, 3)]
    np.testing.assert_allclose(rows["scores"][0], [0.9, 0.5, 0.5])
    assert rows["classes"].tolist() == [[11, 12, 13], [10, 0, 0], [0, 0, 0]]
    assert rows["features"][1, 0].any()
    assert not rows["features"][1, 1:].any()
    assert not rows["features"][2].any()
    assert rows["frame_size_px"].tolist() == [[96, 64]] * 3


def test_outputs_match_their_specs() -> None:
    net = GivenBoxesExtractor(OPTIONS, weights=None, seed=0, top_k=3, given=True)
    assert net.needs_boxes
    rows = net([frame(64, 96, 0)], [given([0, 0, 10, 10])])
    assert rows.keys() == net.outputs.keys()
    for name, spec in net.outputs.items():
        assert rows[name].shape == (1, *spec.shape)
        assert rows[name].dtype.name == spec.dtype
    assert net.outputs["features"].shape == (3, 128)
    assert net.outputs["features"].dtype == "float16"


def test_rows_do_not_depend_on_neighbours_or_order() -> None:
    frames = [frame(64, 96, 0), frame(90, 70, 1), frame(64, 96, 2), frame(64, 96, 3)]
    boxes = [
        given([0, 0, 96, 64], [3, 3, 20, 30]),
        given([10, 10, 60, 80]),
        given(),
        given([30, 5, 80, 45]),
    ]
    net = extractor()
    together = net(frames, boxes)
    assert together["features"].any(axis=(1, 2)).tolist() == [True, True, False, True]
    for index in range(4):
        alone = net([frames[index]], [boxes[index]])
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][index], values[0], rtol=0, atol=1e-4)


def test_boxes_are_clipped_to_the_frame() -> None:
    image = frame(64, 96, 0)
    rows = extractor()([image] * 2, [given([-5, -3, 200, 70]), given([0, 0, 96, 64])])
    assert rows["boxes_xyxy_px"][0, 0].tolist() == [0, 0, 96, 64]
    np.testing.assert_allclose(rows["features"][0], rows["features"][1], atol=1e-5)


@pytest.mark.parametrize(
    ("box", "score", "problem"),
    [
        ([30, 10, 20, 40], 1.0, "inverted or empty"),
        ([30, 10, 30, 40], 1.0, "inverted or empty"),
        ([float("nan"), 10, 20, 40], 1.0, "not finite"),
        ([0, 10, float("inf"), 40], 1.0, "not finite"),
        ([0, 10, 20, 40], float("nan"), "not finite"),
        ([96, 10, 120, 40], 1.0, "outside the 96×64 frame"),
        ([10, -40, 20, 0], 1.0, "outside the 96×64 frame"),
    ],
)
def test_wrong_boxes_are_named(box: list[float], score: float, problem: str) -> None:
    boxes = given([0, 0, 10, 10], box, scores=[1.0, score])
    with pytest.raises(ValueError, match=rf"got box 1 of frame 1: \[.*which is {problem}"):
        extractor()([frame(64, 96, 0)] * 2, [given(), boxes])


def test_wrong_boxes_are_found_in_what_they_are_from() -> None:
    boxes = given([0, 0, 10, 10], [9, 0, 5, 10])
    sourced = replace(boxes, source="video a at 3.5 s in b.csv", lines=np.array([2, 7]))
    place = r"got box 1 of video a at 3\.5 s in b\.csv, line 7: \[9\.0, "
    with pytest.raises(ValueError, match=place):
        extractor()([frame(64, 96, 0)], [sourced])
    with pytest.raises(ValueError, match=r"a 9×9 frame for video a at 3\.5 s in b\.csv, expected"):
        extractor()([frame(64, 96, 0)], [replace(sourced, frame_size_px=(9, 9))])


def test_select_boxes_keeps_the_order_of_equal_scores() -> None:
    # more than sixteen: below that even an unstable sort keeps the order
    scores = [0.5, 0.7] * 20
    boxes = given(*[[i, 0, i + 5, 5] for i in range(40)], scores=scores)
    best = select_boxes(boxes, frame(64, 96, 0), 22, label="frame 0")
    assert best.classes.tolist() == [*range(11, 50, 2), 10, 12]


def test_the_backbone_runs_in_the_precision_asked_for() -> None:
    images, boxes = [frame(64, 96, 0)], [given([8, 16, 80, 56])]
    exact, half = extractor()(images, boxes), extractor(precision="bfloat16")(images, boxes)
    error = np.abs(half["features"] - exact["features"]).max() / np.abs(exact["features"]).max()
    assert 1e-4 < error < 0.05
    assert half["boxes_xyxy_px"].tolist() == exact["boxes_xyxy_px"].tolist()
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="got precision 'int8', expected one of float32"):
        extractor(precision="int8")


def test_the_backbone_is_compiled_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_(maps: Any) -> Any:
        return lambda pixels: compiled.append(pixels.shape) or maps(pixels)

    monkeypatch.setattr(torch, "compile", compile_)
    rows = extractor(compile=True)([frame(64, 96, 0)], [given([8, 16, 80, 56])])
    assert compiled == [(1, 64, 96, 3)]
    expected = extractor()([frame(64, 96, 0)], [given([8, 16, 80, 56])])
    assert np.array_equal(rows["features"], expected["features"])
    assert len(compiled) == 1


def test_boxes_drawn_in_another_size_are_refused() -> None:
    boxes = given([0, 0, 20, 20])
    sized = GivenBoxes(boxes.boxes_xyxy_px, boxes.scores, boxes.classes, frame_size_px=(96, 64))
    images = [frame(64, 96, 0), frame(96, 64, 0)]
    assert extractor()(images[:1], [sized])["count"].tolist() == [1]
    with pytest.raises(ValueError, match=r"a 96×64 frame for frame 1, .* of a frame of 64×96 px"):
        extractor()(images, [sized, sized])


def test_strips_of_frames_are_refused_and_single_pixels_are_not() -> None:
    """A strip would be resized to a short side of 64 px and a long one without end."""
    with pytest.raises(ValueError, match=r"got frame 1 of 1×65 px, expected a longer side of at m"):
        extractor()([frame(8, 8, 0), frame(65, 1, 0)], [given(), given()])
    rows = extractor()([frame(1, 1, 0)], [given([0, 0, 1, 1])])
    assert rows["features"][0, 0].any()


def test_an_extractor_without_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match="given_boxes finds none of its own"):
        GivenBoxesExtractor(OPTIONS, weights=None, seed=0, top_k=3)


def test_frames_without_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="got no boxes"):
        extractor()([frame(64, 96, 0)])


@pytest.mark.parametrize(
    ("backbone", "layer", "channels"),
    [
        ("resnet10", "layer1", 64),
        ("resnet18", "layer2", 128),
        ("resnet34", "layer4", 512),
        ("resnet50", "layer3", 1024),
        ("resnet101", "layer4", 2048),
    ],
)
def test_channels_and_keys_of_every_backbone(backbone: str, layer: str, channels: int) -> None:
    options = GivenBoxesOptions(backbone=backbone, layer=layer, short_side_px=64)
    with torch.device("meta"):
        network = BoxClassifier(options, num_classes=7)
        builder = getattr(resnet, backbone, None)
        whole = builder() if builder else resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    assert network.channels == channels
    assert network.fc is not None
    assert network.fc.weight.shape == (7, channels)
    theirs = {k: v.shape for k, v in whole.state_dict().items()}
    own = {k: v.shape for k, v in network.state_dict().items() if not k.startswith("fc.")}
    assert own.items() <= theirs.items()
    rest = {k.split(".")[0] for k in theirs.keys() - own.keys()}
    assert rest == set(options.replaceable)


def test_whole_torchvision_checkpoint_loads(tmp_path: Path) -> None:
    whole = seeded_init(lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]), 0)
    torch.save(whole.state_dict(), tmp_path / "resnet10.pth")
    image, boxes = frame(64, 96, 0), given([0, 0, 50, 50])
    from_file = extractor(tmp_path / "resnet10.pth")([image], [boxes])
    from_seed = extractor()([image], [boxes])
    assert np.array_equal(from_file["features"], from_seed["features"])


def test_a_backbone_cut_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, seeded_init(lambda: BoxClassifier(OPTIONS), 0))
    deeper = GivenBoxesOptions(backbone="resnet10", layer="layer3", short_side_px=64)
    with pytest.raises(ValueError, match=r"does not fit BoxClassifier: \d+ missing: layer3\.0"):
        extractor(path, options=deeper)


def test_classifier_learns_and_the_extractor_takes_its_weights(tmp_path: Path) -> None:
    """Red against blue boxes: the loss falls, every parameter moves, and the features change."""
    network = seeded_init(lambda: BoxClassifier(OPTIONS, num_classes=2), 0)
    image = frame(64, 96, 0)
    image[:, :48] = (250, 10, 10)
    image[:, 48:] = (10, 10, 250)
    frames = [torch.from_numpy(image), torch.from_numpy(image[:, ::-1].copy())]
    boxes = [torch.tensor([[2.0, 4, 44, 60], [52, 4, 94, 60]])] * 2
    classes = torch.tensor([0, 1, 1, 0])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(network(frames, boxes), classes)
        optimizer.zero_grad()
        loss.backward()
        idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]

    path = tmp_path / "boxes.safetensors"
    save_checkpoint(path, network)
    assert "fc.weight" in load_state(path)
    detected = given([2, 4, 44, 60])
    rows = extractor(path)([image], [detected])
    with torch.inference_mode():
        expected = network.eval().box_features(frames[:1], [boxes[0][:1]])
    np.testing.assert_allclose(rows["features"][0, :1], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(rows["features"], extractor()([image], [detected])["features"])


def test_features_without_a_classifier_have_no_logits() -> None:
    network = BoxClassifier(OPTIONS)
    with pytest.raises(ValueError, match="no classifier"):
        network([torch.zeros(64, 64, 3, dtype=torch.uint8)], [torch.zeros(0, 4)])
    with pytest.raises(ValueError, match="got boxes of 0 frames, expected 1"):
        network.box_features([torch.zeros(64, 64, 3, dtype=torch.uint8)], [])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="got backbone 'vgg', expected one of resnet10, resnet18"):
        GivenBoxesOptions(backbone="vgg")
    with pytest.raises(ValueError, match="got layer 'layer5', expected one of layer1"):
        GivenBoxesOptions(layer="layer5")
    with pytest.raises(ValueError, match="got short_side_px=0"):
        GivenBoxesOptions(short_side_px=0)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    frames = [frame(64, 96, 0), frame(90, 70, 1)]
    boxes = [given([0, 0, 96, 64], [3, 3, 20, 30]), given([10, 10, 60, 80])]
    cpu, cuda = extractor()(frames, boxes), extractor(device="cuda")(frames, boxes)
    for name, values in cpu.items():
        np.testing.assert_allclose(cuda[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
