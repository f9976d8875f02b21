import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.base import ClipExtractor
from extractors.registry import (
    CLIP_EXTRACTORS,
    FRAME_EXTRACTORS,
    Registry,
    create_clip_extractor,
    create_frame_extractor,
    extractor_settings,
    parse_options,
)

TINY_CLIP = {"depth": 10, "width": 2}


def clip_extractor(**changes: Any) -> ClipExtractor:
    settings: dict[str, Any] = {
        "architecture": TINY_CLIP,
        "weights": None,
        "seed": 0,
        "frames": 8,
        "size_px": 32,
    }
    return create_clip_extractor("resnet3d", **{**settings, **changes})


def test_names() -> None:
    own = [name for name in CLIP_EXTRACTORS.names() if not name.startswith("torchvision:")]
    assert own == ["i3d", "r2plus1d", "resnet3d"]
    assert FRAME_EXTRACTORS.names() == ["detectron2", "faster_rcnn", "given_boxes"]


def test_a_name_is_registered_once() -> None:
    registry = Registry("clip extractor")
    registry.register("a", "extractors.resnet3d:ResNet3DExtractor")
    with pytest.raises(ValueError, match="got clip extractor 'a' twice: already registered as ext"):
        registry.register("a", "elsewhere:Other")
    assert registry.resolve("a").name == "resnet3d"


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match="got clip extractor 'i4d', expected one of i3d, r2plus1d"):
        create_clip_extractor("i4d", architecture={}, weights=None, seed=0, frames=8, size_px=32)
    with pytest.raises(ValueError, match="expected one of detectron2, faster_rcnn, given_boxes"):
        create_frame_extractor("yolo", architecture={}, weights=None, seed=0, top_k=5)


@pytest.mark.parametrize("registry", [CLIP_EXTRACTORS, FRAME_EXTRACTORS])
def test_every_entry_resolves_under_its_own_name(registry: Registry) -> None:
    for name in registry.names():
        extractor = registry.resolve(name)
        assert extractor.name == name
        assert extractor.VERSION >= 1
        if name == "detectron2":  # its settings come from the package; see the tests of its config
            continue
        settings = extractor_settings(registry, name, {})
        assert json.loads(json.dumps(settings)).keys() == settings.keys()
        assert settings["architecture"].keys() == {
            f for f in extractor.Options.__dataclass_fields__
        }


def test_registry_and_base_import_no_network() -> None:
    code = (
        "import sys, extractors.base, extractors.registry\n"
        "sys.exit(int(any(m in sys.modules for m in ('torch', 'torchvision', 'safetensors'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_carry_defaults_and_changes() -> None:
    settings = extractor_settings(CLIP_EXTRACTORS, "resnet3d", {"depth": 18})
    assert settings["architecture"] == {
        "depth": 18,
        "width": 64,
        "num_classes": 400,
        "preprocessing": "kinetics_2020",
    }
    assert settings["preprocessing"]["mean"] == [0.4345, 0.4051, 0.3775]
    assert settings["version"] == 1


def test_settings_carry_the_precision() -> None:
    assert extractor_settings(CLIP_EXTRACTORS, "resnet3d", {})["precision"] == "float32"
    for registry, name in ((CLIP_EXTRACTORS, "resnet3d"), (FRAME_EXTRACTORS, "faster_rcnn")):
        assert extractor_settings(registry, name, {}, "bfloat16")["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="got precision 'bf16', expected one of float32, tf32"):
        extractor_settings(CLIP_EXTRACTORS, "resnet3d", {}, "bf16")


def test_unknown_options_are_named_with_the_allowed() -> None:
    with pytest.raises(
        ValueError,
        match="got architecture option 'dept' for resnet3d, "
        "expected one of depth, num_classes, preprocessing, width",
    ):
        clip_extractor(architecture={"dept": 10})


@pytest.mark.parametrize("value", ["10", 10.0, True, None])
def test_options_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="for resnet3d option 'depth', expected int"):
        clip_extractor(architecture={"depth": value})


def test_whole_numbers_do_for_fractions_and_none_only_where_allowed() -> None:
    detector = FRAME_EXTRACTORS.resolve("faster_rcnn")
    assert parse_options(detector, {"score_threshold": 0}).score_threshold == 0
    assert parse_options(detector, {"batch_norm_eps": 0}).batch_norm_eps == 0
    assert parse_options(detector, {"min_size_px": None}).min_size_px is None
    with pytest.raises(ValueError, match=r"got None for faster_rcnn option 'score_threshold'"):
        parse_options(detector, {"score_threshold": None})
    with pytest.raises(ValueError, match=r"option 'min_size_px', expected int \| None"):
        parse_options(detector, {"min_size_px": True})


def test_create_clip_extractor() -> None:
    net = clip_extractor()
    assert (net.frames, net.size_px) == (8, 32)
    assert net.outputs["map"].shape == (1, 1, 1, 16)
    got = net(torch.zeros(2, 8, 32, 32, 3, dtype=torch.uint8))["map"]
    assert got.shape == (2, 1, 1, 1, 16)
    assert got.dtype == np.float16


def test_exactly_one_of_weights_and_seed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got neither weights nor a seed"):
        clip_extractor(seed=None)
    with pytest.raises(ValueError, match="got both weights and a seed"):
        clip_extractor(weights=tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="got neither weights nor a seed"):
        create_frame_extractor("faster_rcnn", architecture={}, weights=None, seed=None, top_k=5)
    with pytest.raises(ValueError, match="got both weights and a seed"):
        create_frame_extractor(
            "faster_rcnn", architecture={}, weights=tmp_path / "a.pth", seed=1, top_k=5
        )


def test_create_frame_extractor() -> None:
    net = create_frame_extractor(
        "given_boxes",
        architecture={"backbone": "resnet10", "layer": "layer1"},
        weights=None,
        seed=0,
        top_k=3,
        given=True,
        dtype="float32",
    )
    assert net.needs_boxes
    assert net.top_k == 3
    assert net.outputs["features"].shape == (3, 64)
    assert net.outputs["features"].dtype == "float32"
