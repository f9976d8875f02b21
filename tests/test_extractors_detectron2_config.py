"""What the detectron2 adapter does itself, with a stand-in for the package."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from stage_fixtures import make_objects_stage
from torch import nn

from extractors.detectron2_config import Detectron2Options, describe, load_config
from extractors.detectron2_rcnn import Detectron2Extractor, build_detector
from extractors.registry import FRAME_EXTRACTORS, extractor_settings
from pipeline.errors import ConfigError

DEFAULTS = """
MODEL:
  ROI_HEADS: {NUM_CLASSES: 80, SCORE_THRESH_TEST: 0.05, NMS_THRESH_TEST: 0.5}
  PIXEL_MEAN: [103.5, 116.25, 123.75]
  PIXEL_STD: [51.0, 52.0, 53.0]
  MASK_ON: true
  KEYPOINT_ON: true
  DEVICE: cuda
  WEIGHTS: detectron2://net.pkl
INPUT: {MIN_SIZE_TEST: 800, MAX_SIZE_TEST: 1333, FORMAT: BGR}
TEST: {DETECTIONS_PER_IMAGE: 100}
SOLVER: {BASE_LR: 0.01}
"""


class Node(dict[str, Any]):
    """As much of detectron2's CfgNode as the adapter uses."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({k: Node(v) if isinstance(v, dict) else v for k, v in values.items()})

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def merge_from_file(self, path: str, *, allow_unsafe: bool) -> None:
        assert not allow_unsafe
        for section, values in (yaml.safe_load(Path(path).read_text()) or {}).items():
            for key, value in values.items():
                self.merge_from_list([f"{section}.{key}", value])

    def merge_from_list(self, pair: list[Any]) -> None:
        *sections, key = pair[0].split(".")
        node = self
        for section in sections:
            node = node[section]
        if key not in node:
            raise KeyError(f"Non-existent config key: {pair[0]}")
        node[key] = pair[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for detectron2 with an empty model zoo; returns the zoo's folder."""
    zoo = tmp_path / "site" / "detectron2" / "model_zoo" / "configs"
    zoo.mkdir(parents=True)
    root, config, modeling = (
        ModuleType(f"detectron2{name}") for name in ("", ".config", ".modeling")
    )
    config.get_cfg = lambda: Node(yaml.safe_load(DEFAULTS))  # type: ignore[attr-defined]
    modeling.build_model = lambda cfg: SimpleNamespace(cfg=cfg)  # type: ignore[attr-defined]
    attributes = {
        "__file__": str(zoo.parent.parent / "__init__.py"),
        "__version__": "0.6",
        "config": config,
        "modeling": modeling,
    }
    for name, value in attributes.items():
        setattr(root, name, value)
    for module in (root, config, modeling):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return zoo


@pytest.fixture
def settings_of(package: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(text: str = "", name: str = "a.yaml", **options: Any) -> dict[str, Any]:
        path = tmp_path / name
        path.write_text(text)
        return extractor_settings(FRAME_EXTRACTORS, "detectron2", {"config": str(path), **options})

    return make


def test_without_the_package_the_plan_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(ConfigError) as caught:
        _ = make_objects_stage(detector={"name": "detectron2"}).key
    assert str(caught.value).startswith(
        "stages.objects.detector: the detector detectron2 wants the package of that name ("
    )
    assert "conda install -c conda-forge detectron2" in str(caught.value)
    assert "pip install --no-build-isolation" in str(caught.value)


def test_settings_are_the_configs_content(settings_of: Callable[..., dict[str, Any]]) -> None:
    settings = settings_of("MODEL: {PIXEL_STD: [1, 2, 3]}")
    config = settings["architecture"].pop("config")
    assert settings["architecture"] == {"features": "roi_max"}
    assert settings["library"] == "detectron2 0.6"
    assert settings["precision"] == "float32"
    assert config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 80
    assert config["MODEL"]["PIXEL_STD"] == [1, 2, 3]
    assert config["frame"] == {"min_size": 800, "max_size": 1333}
    assert config["detections"] == 100
    # Neither where it runs, nor where weights were once loaded from, nor how it was trained.
    assert (config["MODEL"]["DEVICE"], config["MODEL"]["WEIGHTS"]) == ("cpu", "")
    assert "SOLVER" not in config
    # Masks and key points are left out of the network.
    assert not config["MODEL"]["MASK_ON"]
    assert not config["MODEL"]["KEYPOINT_ON"]


def test_equal_contents_have_equal_settings(
    settings_of: Callable[..., dict[str, Any]],
) -> None:
    here = settings_of("MODEL: {PIXEL_STD: [1, 2, 3]}", "a.yaml")
    assert settings_of("# moved\nMODEL: {PIXEL_STD: [1, 2, 3]}\n", "b.yaml") == here
    assert settings_of("SOLVER: {BASE_LR: 7}\nMODEL: {PIXEL_STD: [1, 2, 3]}") == here
    assert settings_of("MODEL: {PIXEL_STD: [1, 2, 4]}") != here
    assert json.loads(json.dumps(here)) == here


@pytest.mark.parametrize(
    ("option", "value", "written"),
    [
        ("num_classes", 7, "MODEL: {ROI_HEADS: {NUM_CLASSES: 7}}"),
        ("score_threshold", 0, "MODEL: {ROI_HEADS: {SCORE_THRESH_TEST: 0.0}}"),
        ("nms_threshold", 0.25, "MODEL: {ROI_HEADS: {NMS_THRESH_TEST: 0.25}}"),
        ("min_size_px", 640, "INPUT: {MIN_SIZE_TEST: 640}"),
        ("max_size_px", 999, "INPUT: {MAX_SIZE_TEST: 999}"),
    ],
)
def test_an_option_says_the_same_as_the_config(
    settings_of: Callable[..., dict[str, Any]], option: str, value: Any, written: str
) -> None:
    changed = settings_of(**{option: value})
    assert changed != settings_of()
    section, values = next(iter(yaml.safe_load(written).items()))
    if section == "MODEL":  # the stand-in merges one level deep
        inner = {"NUM_CLASSES": 80, "SCORE_THRESH_TEST": 0.05, "NMS_THRESH_TEST": 0.5}
        values = {"ROI_HEADS": {**inner, **values["ROI_HEADS"]}}
    assert changed == settings_of(yaml.safe_dump({section: values}))


def test_features_are_in_the_settings(settings_of: Callable[..., dict[str, Any]]) -> None:
    assert settings_of(features="box_head")["architecture"]["features"] == "box_head"


@pytest.mark.parametrize("input_format", ["BGR", "RGB"])
def test_means_are_told_in_the_order_of_rgb(package: Path, input_format: str) -> None:
    (package / "a.yaml").write_text(f"INPUT: {{FORMAT: {input_format}}}")
    pixels = Detectron2Extractor.preprocessing(Detectron2Options(config="a.yaml"))
    order = slice(None, None, -1 if input_format == "BGR" else 1)
    np.testing.assert_allclose(pixels.mean, np.array([103.5, 116.25, 123.75])[order] / 255)
    np.testing.assert_allclose(pixels.std, np.array([51.0, 52, 53])[order] / 255)


def test_names_of_the_model_zoo(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "COCO").mkdir()
    (package / "COCO" / "a.yaml").write_text("INPUT: {MIN_SIZE_TEST: 5}")
    monkeypatch.chdir(package.parent)
    assert load_config(Detectron2Options(config="COCO/a.yaml")).min_size_px == 5
    with pytest.raises(ValueError, match=r"got detectron2 config 'COCO/b\.yaml', expected a file"):
        load_config(Detectron2Options(config="COCO/b.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {NO_SUCH: 1}", r"a\.yaml: 'Non-existent config key: MODEL\.NO_SUCH'$"),
        ("MODEL: [", r"a\.yaml: while parsing"),
        ("INPUT: {FORMAT: YUV-BT.601}", r"got input format YUV-BT\.601 in .*a\.yaml, expected RGB"),
    ],
)
def test_configs_that_cannot_be_used(
    settings_of: Callable[..., dict[str, Any]], text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "net.pth"}, r"got config 'net\.pth', expected a \.yaml or LazyConfig \.py"),
        ({"features": "mean"}, "got features 'mean', expected one of roi_max, box_head"),
        ({"num_classes": 0}, "got num_classes=0, expected 1 or more"),
        ({"nms_threshold": -0.5}, r"nms_threshold=-0\.5, expected numbers from 0 to 1"),
        ({"max_size_px": 63}, "got max_size_px=63, expected 64 or more"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detectron2Options(**options)


def test_networks_that_are_no_rcnn_are_refused(package: Path) -> None:
    (package / "a.yaml").write_text("")
    config = load_config(Detectron2Options(config="a.yaml"))
    with pytest.raises(ValueError, match="got a SimpleNamespace with NoneType, expected a detec"):
        build_detector(config, 5)


@pytest.mark.parametrize("error", [KeyError("NoSuchHead"), ImportError("no _C")])
def test_networks_that_cannot_be_built(
    package: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(cfg: Any) -> Any:
        raise error

    (package / "a.yaml").write_text("")
    monkeypatch.setattr(sys.modules["detectron2.modeling"], "build_model", fail)
    config = load_config(Detectron2Options(config="a.yaml"))
    with pytest.raises(ValueError, match=f"build this config's network: {type(error).__name__}: "):
        build_detector(config, 5)


def test_what_is_called_is_described_by_its_import_name() -> None:
    model = {
        "_target_": nn.Conv2d,
        "stages": [{"_target_": nn.init.zeros_, "depth": 50}],
        "norm": functools.partial(nn.LayerNorm, eps=1e-6),
        "scales": (0.25, 0.5),
        "dtype": None,
    }
    assert describe(model, "model") == {
        "_target_": "torch.nn.modules.conv.Conv2d",
        "stages": [{"_target_": "torch.nn.init.zeros_", "depth": 50}],
        "norm": {
            "partial": "torch.nn.modules.normalization.LayerNorm",
            "args": [],
            "keywords": {"eps": 1e-6},
        },
        "scales": [0.25, 0.5],
        "dtype": None,
    }


def in_a_config() -> None: ...


in_a_config.__module__ = "detectron2._cfg_loader1a2b.config.py"


@pytest.mark.parametrize(
    "value", [lambda x: x, torch.zeros(1), object(), in_a_config], ids=lambda v: type(v).__name__
)
def test_what_no_key_can_name_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"at model\.a\[0\], which no key can name"):
        describe({"a": [value]}, "model")
