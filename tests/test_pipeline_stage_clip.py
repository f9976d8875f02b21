from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from stage_fixtures import READING, WEIGHTS, clip_table, key_of, make_clip, make_clip_stage

from extractors.geometry import Geometry, square
from extractors.registry import CLIP_EXTRACTORS, extractor_settings
from pipeline.config_stages import ClipConfig, ClipStageConfig
from pipeline.errors import ConfigError

# Field → (another value, whether the numbers change with it).
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "network": ({"network": {"name": "resnet3d", "depth": 18}}, True),
    "flow": (
        {"network": {"name": "i3d", "modality": "flow"}, "flow": {"method": "folders"}},
        True,  # tests of flow tell its options apart
    ),
    "clip": ({"clip": {"frames": 32}}, True),
    "geometry": ({"geometry": "published"}, True),
    "size_px": ({"size_px": 128}, True),
    "dtype": ({"dtype": "float32"}, True),
    "outputs": ({"outputs": ["map", "pooled"]}, True),
    "precision": ({"precision": "bfloat16"}, True),
    "compile": ({"compile": True}, False),
    "batch_size": ({"batch_size": 3}, False),
    "weights": ({"weights": "elsewhere/w.pt"}, False),  # content counts, not the path
    "weights_seed": ({"weights": "random", "weights_seed": 4}, False),  # see the stage's weights
}


def test_a_key_made_by_hand() -> None:
    settings = {
        "schema": 1,
        "stage": "verb",
        "version": 1,
        "network": extractor_settings(CLIP_EXTRACTORS, "resnet3d", {}),
        "weights": {"sha256": "ab" * 32},
        "sampling": {"frames": 64, "stride": 2, "rate_fps": 60.0},
        "geometry": {
            "resize_px": [256, 256],
            "crop_px": None,
            "method": "bilinear antialiased uint8",
        },
        "reading": {"reader": "pyav", "policy": "1", "av": "14.0"},
        "outputs": ["map"],
        "dtype": "float16",
    }
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert make_clip_stage().key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("field", ClipStageConfig.model_fields)
def test_the_key_changes_with_what_decides_the_numbers(field: str) -> None:
    changed, matters = CHANGES[field]
    assert (make_clip_stage(**changed).key != make_clip_stage().key) is matters


@pytest.mark.parametrize("field", ClipConfig.model_fields)
def test_the_key_changes_with_the_sampling(field: str) -> None:
    assert make_clip_stage(clip={field: 7}).key != make_clip_stage().key


def test_the_key_changes_with_weights_reader_and_name() -> None:
    keys = {
        make_clip_stage().key,
        make_clip_stage("noun").key,
        make_clip_stage(weights_settings={"random": 0}).key,
        make_clip_stage(weights_settings={"random": 1}).key,
        make_clip_stage(reading={**READING, "av": "15.0"}).key,
    }
    assert len(keys) == 5


def test_an_option_spelt_out_at_its_default_changes_nothing() -> None:
    plain = make_clip_stage()
    spelt = make_clip_stage(network={"name": "resnet3d", "depth": 50}, clip={"rate_fps": 60})
    assert spelt.key == plain.key


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "resnet4d"}, "stages.noun.network: got clip extractor 'resnet4d'"),
        ({"name": "resnet3d", "dept": 18}, "stages.noun.network: got architecture option 'dept'"),
        ({"name": "resnet3d", "depth": "18"}, "stages.noun.network: got '18' for resnet3d"),
    ],
)
def test_networks_that_are_none(network: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = make_clip_stage("noun", network=network).key
    assert str(caught.value).startswith(message)


def test_one_row_per_clip() -> None:
    stage = make_clip_stage(clip={"frames": 4, "stride": 3, "rate_fps": 30})
    clip = make_clip(centre_us=10_000_000)
    (row,) = stage.rows(clip_table(clip))
    assert row.times_us.tolist() == [9_800_000, 9_900_000, 10_000_000, 10_100_000]
    assert row.key == key_of(stage, clip)
    times = np.array([9_800_000, 9_900_000, 10_000_000, 10_100_000], dtype="<i8").tobytes()
    content = b"symbio row\0" + b"11" * 32 + b"\0" + times + b"\0"
    assert row.key == hashlib.sha256(content).hexdigest()
    assert (row.clip_id, row.view) == ("P01_01/7/0", 0)
    assert (row.needed_from_seconds, row.needed_to_seconds) == (9.0, 12.0)
    assert row.boxes is None


def test_clips_of_equal_content_share_a_row() -> None:
    clips = [
        make_clip("P01_01", "7"),
        make_clip("copy", "9", view=3),  # the same file under another name
        make_clip("P01_02", "7"),
        make_clip("P01_01", "7", centre_us=10_100_001),
    ]
    stage = make_clip_stage()
    rows = stage.rows(clip_table(*clips))
    assert [row.clip_id for row in rows] == ["P01_01/7/0", "P01_02/7/0", "P01_01/7/0"]
    assert key_of(stage, clips[0]) == key_of(stage, clips[1])


def test_the_published_geometry_is_the_network_s() -> None:
    stage = make_clip_stage(geometry="published")
    assert stage.geometry == Geometry(112, 112)
    assert stage.side_px == 112


def test_what_the_runner_needs_to_know() -> None:
    stage = make_clip_stage(size_px=112, batch_size=5)
    assert (stage.name, stage.side_px, stage.batch_size) == ("verb", 112, 5)
    assert stage.geometry == square(112)
    assert stage.batch_nbytes == 5 * 64 * 112 * 112 * 3
    assert stage.settings["weights"] == WEIGHTS


def test_the_order_of_outputs_does_not_matter() -> None:
    keys = {make_clip_stage(outputs=o).key for o in (["pooled", "map"], ["map", "pooled"])}
    assert len(keys) == 1


@pytest.mark.parametrize("outputs", [["pooled"], [], ["map", "map"], ["maps"]])
def test_outputs_hold_the_map(outputs: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must hold map, which|Input should be 'map', 'pooled'"):
        make_clip_stage(outputs=outputs)


def test_precision_is_written_down_with_the_network() -> None:
    assert make_clip_stage(precision="tf32").settings["network"]["precision"] == "tf32"


def test_the_network_is_built_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compile", lambda function: lambda x: function(x) + 1)
    settings = {"network": {"name": "resnet3d", "depth": 10, "width": 2}, "clip": {"frames": 2}}
    settings |= {"weights": "random", "weights_seed": 0, "size_px": 32, "dtype": "float32"}
    clips = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    plain = make_clip_stage(**settings).create("cpu")(clips)
    assert list(plain) == ["map"]
    half = make_clip_stage(**settings, precision="bfloat16", outputs=["pooled", "map"])
    got = half.create("cpu")(clips)
    assert list(got) == ["map", "pooled"]
    assert 0 < np.abs(got["map"] - plain["map"]).max() < 0.05 * plain["map"].max()
    compiled = make_clip_stage(**settings, compile=True).create("cpu")(clips)
    np.testing.assert_allclose(compiled["map"], plain["map"] + 1)
