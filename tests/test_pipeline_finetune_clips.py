from pathlib import Path
from typing import Any

import pytest
import torch

from extractors.registry import CLIP_EXTRACTORS, parse_options
from pipeline.config_stages import ClipStageConfig
from pipeline.config_training import ClipFinetuneConfig
from pipeline.errors import ConfigError
from pipeline.finetune_clips import create_clip_network

NETWORKS = {
    "resnet3d": {"depth": 10, "width": 2},
    "i3d": {"width": 2},
    "r2plus1d": {"depth": 18, "width": 2},
    "torchvision:mc3_18": {},  # has no smaller one
}


def stage(name: str, **options: Any) -> ClipStageConfig:
    network = {"name": name, **(options or NETWORKS[name])}
    return ClipStageConfig.model_validate({"network": network, "weights": "unused.pt"})


def pretrained(name: str, path: Path, num_classes: int | None) -> dict[str, torch.Tensor]:
    """A checkpoint of the network, written to a file."""
    extractor: Any = CLIP_EXTRACTORS.resolve(name)
    options = parse_options(extractor, NETWORKS[name])
    state: dict[str, torch.Tensor] = extractor.build(options, num_classes).state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize("classes", [9, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_starts_from_a_checkpoint_with_a_new_classifier(
    tmp_path: Path, name: str, classes: int | None
) -> None:
    state = pretrained(name, tmp_path / "net.pt", classes)
    settings = ClipFinetuneConfig(weights=tmp_path / "net.pt")
    network, pixels = create_clip_network(stage(name), settings, 4, "verb")
    assert network.eval()(torch.randn(2, len(pixels.mean), 4, 32, 32)).shape == (2, 4)
    own = network.state_dict()
    shared = [k for k in own if k in state and own[k].shape == state[k].shape]
    assert len(own) - len(shared) == 2  # the classifier's weight and bias
    assert all(torch.equal(own[k], state[k]) for k in shared)


def test_a_checkpoint_of_another_network_is_a_config_error(tmp_path: Path) -> None:
    pretrained("i3d", tmp_path / "net.pt", 9)
    settings = ClipFinetuneConfig(weights=tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"finetune\.noun, stages\.noun\.network: .*net\.pt does"):
        create_clip_network(stage("r2plus1d"), settings, 4, "noun")
