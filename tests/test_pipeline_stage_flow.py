"""What a stage over optical flow asks of its settings, and what stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flow_fixtures import TVL1, configure
from torchvision.models.optical_flow import raft_small

from extractors.weights import save_checkpoint, seeded_init
from pipeline.config_data import FlowVideosConfig
from pipeline.config_training import ClipFinetuneConfig
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.finetune_clips import create_clip_network
from pipeline.segments import Segment
from pipeline.stage_flow import flow_source
from pipeline.videos import Video, locate_flow

pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")


def test_two_stages_share_what_is_computed(tmp_path: Path) -> None:
    stage = resolve(configure(tmp_path, TVL1)).aligned.verb
    other = resolve(configure(tmp_path, {**TVL1, "tau": 0.2})).aligned.verb
    first, second, third = stage.create("cpu"), stage.create("cpu"), other.create("cpu")
    assert first._flow is second._flow  # type: ignore[attr-defined]
    assert first._flow is not third._flow  # type: ignore[attr-defined]


def test_official_flow_at_another_rate_or_stride_is_another_source(tmp_path: Path) -> None:
    for video_id in ("kitchen_a", "kitchen_b"):
        (tmp_path / "flow" / video_id / "u").mkdir(parents=True)

    def identity(**place: Any) -> str:
        data = {"flow": {"root": str(tmp_path / "flow"), **place}}
        experiment = resolve(configure(tmp_path, {"method": "folders"}, data=data))
        assert "kitchen_a" in experiment.identities
        return experiment.identities[flow_source("kitchen_a")]

    places = [(60.0, 2), (60.0, 1), (50.0, 2)]
    assert len({identity(frame_rate_fps=rate, stride=stride) for rate, stride in places}) == 3


def test_the_key_names_weights_of_computed_flow_by_their_content(tmp_path: Path) -> None:
    flow = {"method": "raft", "model": "small", "weights": "random"}
    keys = {
        resolve(configure(tmp_path, {**flow, "weights_seed": seed})).aligned.verb.key
        for seed in (1, 2)
    }
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", seeded_init(raft_small, 1))
        file_flow = {"method": "raft", "model": "small", "weights": str(tmp_path / name)}
        file_flow["weights"] += ".safetensors"
        keys.add(resolve(configure(tmp_path, file_flow)).aligned.verb.key)
    assert len(keys) == 3


def test_a_batch_is_counted_as_it_is_decoded(tmp_path: Path) -> None:
    flow = {**TVL1, "span": 3, "short_side_px": 36}
    stage = resolve(configure(tmp_path, flow, batch_size=2)).aligned.verb
    assert stage.batch_nbytes == 2 * (4 + 3) * 36 * 64 * 3


def test_epics_rules_for_flow() -> None:
    places = FlowVideosConfig(root=Path("f"), pattern="{participant_id}/flow_frames/{video_id}.tar")
    found = {}
    for video_id in ("P01_01", "P01_101"):
        segment = Segment("0", video_id, "P01", 0.0, 1.0, 0, 0, "train")
        video = Video(video_id, Path("v"), "file", None, 7.5, may_be_short=True)
        flow = locate_flow(segment, places, video)
        found[video_id] = (flow.frame_rate_fps, flow.stride)
        assert flow.path == Path(f"f/P01/flow_frames/{video_id}.tar")
        assert (flow.kind, flow.promised_seconds, flow.may_be_short) == ("flow", 7.5, True)
    assert found == {"P01_01": (60.0, 2), "P01_101": (50.0, 1)}


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
