"""The rules of the config's sections: which settings go together and which do not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config_data import VideosConfig
from pipeline.config_stages import (
    AlignedConfig,
    ClipStageConfig,
    ObjectsConfig,
    StagesConfig,
)
from pipeline.config_training import (
    BoxFinetuneConfig,
    ClipFinetuneConfig,
    EvaluateConfig,
    TrainConfig,
)

CLIP = {"network": {"name": "resnet3d"}, "weights": "w.pt"}
DETECTOR = {"detector": {"name": "faster_rcnn"}, "weights": "w.pt"}


def stages(rate_fps: float, **aligned: Any) -> StagesConfig:
    return StagesConfig.model_validate(
        {
            "verb": CLIP,
            "noun": CLIP,
            "objects": {**DETECTOR, "rate_fps": rate_fps},
            "aligned": aligned,
        }
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weights": "random"}, "weights_seed goes with weights: random"),
        ({"weights": "w.pt", "weights_seed": 0}, "weights_seed goes with weights: random"),
        ({"weights_seed": 0}, "Field required"),
        ({"weights": None, "weights_seed": 0}, "weights"),
    ],
)
def test_weights_and_seeds_that_do_not_go_together(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClipStageConfig.model_validate({"network": {"name": "resnet3d"}, **weights})


def test_given_boxes_want_boxes() -> None:
    settings = {"detector": {"name": "given_boxes"}, "weights": "w.pt"}
    with pytest.raises(ValidationError, match="detector given_boxes finds no boxes of its own"):
        ObjectsConfig.model_validate(settings)


@pytest.mark.parametrize("detector", ["given_boxes", "faster_rcnn"])
def test_boxes_go_with_every_detector(detector: str) -> None:
    settings = {"detector": {"name": detector}, "weights": "w.pt", "boxes": "boxes.csv"}
    assert str(ObjectsConfig.model_validate(settings).boxes) == "boxes.csv"


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "frames"},
        {"kind": "tar"},
        {"kind": "file", "frame_rate_fps": 60},
        {"frame_rate_fps": "epic"},
    ],
)
def test_frames_have_a_rate_and_files_have_none(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="frame_rate_fps goes with kind: frames"):
        VideosConfig.model_validate({"root": "videos", **settings})


@pytest.mark.parametrize("rate", [0, -1.0, "60", "Epic", float("inf"), float("nan"), True])
def test_frame_rates_that_are_none(rate: object) -> None:
    with pytest.raises(ValidationError):
        VideosConfig.model_validate({"root": "videos", "kind": "frames", "frame_rate_fps": rate})


@pytest.mark.parametrize(
    "pattern", ["", "a.mp4", "{video}.mp4", "{video_id", "{}/{video_id}", "{participant_id}"]
)
def test_patterns_that_cannot_name_a_video(pattern: str) -> None:
    with pytest.raises(ValidationError):
        VideosConfig.model_validate({"root": "videos", "pattern": pattern})


@pytest.mark.parametrize(
    ("rate_fps", "wide", "narrow"),
    [(2, 6, 4), (2, 4, 4), (2, 6.0, 1), (1, 6, 2), (4, 3, 1.5), (3, 2, 4 / 3), (0.5, 4, 4)],
)
def test_windows_that_hold_whole_frames(rate_fps: float, wide: float, narrow: float) -> None:
    if (rate_fps, narrow) == (3, 4 / 3):  # 6 and 4 frames, one on either side
        narrow = 1.3333333333333
    config = stages(rate_fps, global_window_seconds=wide, local_window_seconds=narrow)
    assert config.aligned.global_window_seconds == wide


@pytest.mark.parametrize(
    ("rate_fps", "wide", "narrow", "message"),
    [
        (2, 6.25, 4, r"aligned\.global_window_seconds holds 12\.5 frames"),
        (2, 6, 4.25, r"aligned\.local_window_seconds holds 8\.5 frames"),
        (2, 6, 4.5, r"half the difference of the two windows holds 1\.5 frames"),
        (2, 4, 6, r"the local window no longer than the global one"),
        (2, 6, 1e-9, r"aligned\.local_window_seconds holds 2e-09 frames"),
        (2, 1e-9, 1e-9, r"aligned\.global_window_seconds holds 2e-09 frames"),
        (1, 6, 3, r"half the difference of the two windows holds 1\.5 frames"),
    ],
)
def test_windows_that_do_not(rate_fps: float, wide: float, narrow: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stages(rate_fps, global_window_seconds=wide, local_window_seconds=narrow)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0, -6])
def test_windows_without_a_length(seconds: float) -> None:
    with pytest.raises(ValidationError):
        AlignedConfig.model_validate({"global_window_seconds": seconds})


@pytest.mark.parametrize(
    "settings",
    [
        {"crop_px": 225},  # the least scale is 224
        {"scale_range_px": [288, 224]},
        {"scale_range_px": [223, 288]},
        {"crop_px": 224, "test_resize_px": 223},
    ],
)
def test_crops_that_do_not_fit(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected crop_px <= low <= high"):
        ClipFinetuneConfig.model_validate({"weights": "w.pt", **settings})


@pytest.mark.parametrize("scale", [[224], [224, 256, 288], [224.0, 288], ["224", 288], 224])
def test_a_scale_range_is_two_whole_numbers(scale: object) -> None:
    with pytest.raises(ValidationError):
        ClipFinetuneConfig.model_validate({"weights": "w.pt", "scale_range_px": scale})


@pytest.mark.parametrize("epochs", [[0], [-1], [1.5], 3])
@pytest.mark.parametrize("section", [TrainConfig, ClipFinetuneConfig, BoxFinetuneConfig])
def test_epochs_are_counted_from_one(section: Any, epochs: object) -> None:
    with pytest.raises(ValidationError, match="decay_epochs"):
        section.model_validate({"weights": "w.pt", "decay_epochs": epochs})


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (EvaluateConfig, {"split": "a split"}),
        (EvaluateConfig, {"action_prior": "mu"}),
        (ObjectsConfig, {**DETECTOR, "times": "random"}),
        (ObjectsConfig, {**DETECTOR, "top_k": 0}),
        (AlignedConfig, {"map_time": "median"}),
        (ClipStageConfig, {**CLIP, "dtype": "float64"}),
        (VideosConfig, {"root": "v", "reader": "opencv"}),
        (VideosConfig, {"root": "v", "truncated": "ignore"}),
    ],
)
def test_words_that_are_not_among_the_choices(section: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(settings)


def test_the_published_geometry_has_a_size_of_its_own() -> None:
    network = {"network": {"name": "resnet3d"}, "weights": "w.pt"}
    with pytest.raises(ValidationError, match="published sets its own size"):
        ClipStageConfig.model_validate({**network, "geometry": "published", "size_px": 112})


def test_the_defaults_are_the_papers() -> None:
    config = stages(2)
    verb, objects, aligned = config.verb, config.objects, config.aligned
    assert (verb.clip.frames, verb.clip.stride, verb.clip.rate_fps) == (64, 2, 60)
    assert (verb.geometry, verb.square_px) == ("square", 256)
    assert (objects.top_k, objects.times) == (5, "grid")
    assert (aligned.global_window_seconds, aligned.local_window_seconds) == (6, 4)
    head = TrainConfig()
    assert (head.epochs, head.batch_size, head.learning_rate) == (15, 32, 1e-4)
    assert (head.momentum, head.weight_decay, head.decay_epochs) == (0.9, 1e-4, ())
    network = ClipFinetuneConfig.model_validate({"weights": "w.pt"})
    assert (network.epochs, network.batch_size, network.learning_rate) == (35, 32, 0.003)
    assert network.decay_epochs == (30,)  # the last five of 35 at a tenth
    assert (network.crop_px, network.scale_range_px) == (224, (224, 288))


def test_sections_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().epochs = 3
