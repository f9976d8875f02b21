"""The example configs hold the papers' settings, backbone by backbone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from extractors.registry import CLIP_EXTRACTORS, parse_options
from pipeline.config_file import load_config

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize(
    ("backbone", "network", "clip", "size_px", "map_shape", "stage_one", "scales", "stage_two"),
    [
        (
            *("i3d", {"name": "i3d", "modality": "rgb"}, (64, 2), 256, (8, 8, 8, 1024)),
            *((35, 0.003, (30,)), ((224, 288), 224, 256), (15, 0.001, (10,), True)),
        ),
        (
            *("r2plus1d", {"name": "r2plus1d", "depth": 34}, (32, 4), 128, (4, 8, 8, 512)),
            *((20, 0.0002, (9, 18)), ((112, 144), 112, 128), (15, 1e-4, (), False)),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_papers_other_backbones_are_configs(
    backbone: str,
    network: dict[str, Any],
    clip: tuple[int, int],
    size_px: int,
    map_shape: tuple[int, ...],
    stage_one: tuple[Any, ...],
    scales: tuple[Any, ...],
    stage_two: tuple[Any, ...],
) -> None:
    config = load_config(CONFIGS / f"epic55_saoa_{backbone}.yaml")
    for stage in (config.stages.verb, config.stages.noun):
        assert stage.network.model_dump() == network
        assert (stage.clip.frames, stage.clip.stride, stage.clip.rate_fps) == (*clip, 60.0)
        assert stage.size_px == size_px
        extractor: Any = CLIP_EXTRACTORS.resolve(stage.network.name)
        with torch.device("meta"):
            built = extractor.build(parse_options(extractor, stage.network.options), None)
        assert built.map_shape(stage.clip.frames, stage.size_px) == map_shape
    for training in (config.finetune.verb, config.finetune.noun):
        assert training is not None
        assert (training.epochs, training.learning_rate, training.decay_epochs) == stage_one
        assert (training.scale_range_px, training.crop_px, training.test_resize_px) == scales
        assert (training.batch_size, training.momentum, training.weight_decay) == (32, 0.9, 1e-4)
    train = config.train
    rescale = config.head.options.get("l2_rescale", False)
    assert (train.epochs, train.learning_rate, train.decay_epochs, rescale) == stage_two
    assert (train.batch_size, train.momentum, train.weight_decay) == (32, 0.9, 1e-4)
    main = load_config(CONFIGS / "epic55_saoa_r50.yaml")
    for same in ("device", "store", "data", "views", "evaluate"):
        assert getattr(config, same) == getattr(main, same)
    assert config.stages.objects == main.stages.objects
    assert config.stages.aligned == main.stages.aligned


@pytest.mark.parametrize(
    ("name", "kind", "of_epic55", "clip"),
    [
        ("epic100_saoa_r50", "epic100", "epic55_saoa_r50", (64, 2, 60.0)),
        ("egtea_saoa_i3d", "egtea", "epic55_saoa_i3d", (64, 1, 24.0)),
    ],
)
def test_other_data_sets_have_the_settings_of_epic55(
    name: str, kind: str, of_epic55: str, clip: tuple[int, int, float]
) -> None:
    config, main = load_config(CONFIGS / f"{name}.yaml"), load_config(CONFIGS / f"{of_epic55}.yaml")
    assert config.data.kind == kind
    for same in ("device", "views", "head", "train", "evaluate"):
        assert getattr(config, same) == getattr(main, same)
    assert config.stages.objects == main.stages.objects
    assert config.stages.aligned == main.stages.aligned
    assert config.finetune == main.finetune
    for mine, theirs in (
        (config.stages.verb, main.stages.verb),
        (config.stages.noun, main.stages.noun),
    ):
        assert (mine.clip.frames, mine.clip.stride, mine.clip.rate_fps) == clip
        changes = {"clip": theirs.clip, "weights": theirs.weights}
        assert mine.model_copy(update=changes) == theirs
