"""What a stage over optical flow asks of its settings, and what stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flow_fixtures import TVL1, configure

from pipeline.config_training import ClipFinetuneConfig
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.finetune_clips import create_clip_network

pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")


def test_two_stages_share_what_is_computed(tmp_path: Path) -> None:
    stage = resolve(configure(tmp_path, TVL1)).aligned.verb
    other = resolve(configure(tmp_path, {**TVL1, "tau": 0.2})).aligned.verb
    first, second, third = stage.create("cpu"), stage.create("cpu"), other.create("cpu")
    assert first._flow is second._flow  # type: ignore[attr-defined]
    assert first._flow is not third._flow  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flow", "network", "words"),
    [
        (None, {"name": "i3d", "modality": "flow"}, r"verb\.flow: got none for network i3d with 2"),
        (TVL1, {"name": "i3d"}, r"verb\.flow: got method tvl1 for network i3d with 3 channels"),
        ({"method": "brox"}, {}, r"verb\.flow\.method: got flow method 'brox'.*, or folders"),
        ({"method": "tvl1", "taw": 1}, {}, r"verb\.flow: got .*option 'taw' for tvl1"),
        ({"method": "raft"}, {}, r"flow\.weights: got none for method raft, expected a checkpoint"),
        (
            {"method": "tvl1", "weights": "random", "weights_seed": 1},
            {},
            r"flow\.weights: got random for method tvl1, expected none",
        ),
        (
            {"method": "raft", "weights": "absent.pth"},
            {},
            r"verb\.flow\.weights: absent\.pth: No such file",
        ),
        ({"method": "folders"}, {}, r"data\.flow: a stage has flow method folders"),
        ({"method": "folders", "bound_px": 3.0}, {}, r"got bound_px with method: folders"),
        ({"method": "raft", "weights_seed": 3}, {}, r"weights_seed goes with weights: random"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, flow: Any, network: dict[str, Any], words: str
) -> None:
    network = network or {"name": "i3d", "modality": "flow", "width": 4}
    with pytest.raises(ConfigError, match=words):
        resolve(configure(tmp_path, flow, network=network))


def test_networks_over_flow_are_not_trained_here(tmp_path: Path) -> None:
    stage = configure(tmp_path, TVL1).stages.verb
    with pytest.raises(ConfigError, match="networks over optical flow are not trained here"):
        create_clip_network(stage, ClipFinetuneConfig(weights="random", weights_seed=1), 3, "verb")
