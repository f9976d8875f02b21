"""Whole runs of stages over optical flow: official folders beside the videos, and computed flow."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_fixtures import Silent
from flow_fixtures import FAST, TVL1, configure
from numpy.typing import NDArray
from PIL import Image
from stage_fixtures import key_of
from video_files import plain_decode

from extractors.flow import encode_flow
from extractors.flow_registry import create_flow_estimator
from extractors.flow_tvl1 import TVL1Flow
from extractors.geometry import Geometry, square
from extractors.transforms import resize_frame
from pipeline.clips import clip_times_us
from pipeline.config import ExperimentConfig
from pipeline.errors import RowsMissing
from pipeline.experiment import Experiment, resolve
from pipeline.head_runs import train_run
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from pipeline.stages import STAGE_NAMES, ClipStage
from stores.registry import open_store

pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")

RATE_FPS = 30  # of videos and clips of the small experiment
STRIDE = 2


def run(what: ExperimentConfig | Experiment, stages: Sequence[str] = STAGE_NAMES) -> RunReport:
    return run_experiment(
        what if isinstance(what, Experiment) else resolve(what),
        stages=stages,
        retry_failed=False,
        reporter=Silent(),
        stop=threading.Event(),
    )


def made(report: RunReport) -> dict[str, int]:
    return {stage.stage: stage.made for stage in report.stages if stage.made}


def stored_maps(config: ExperimentConfig) -> dict[str, NDArray[np.float32]]:
    """Map of each clip of the verb stage, by clip id."""
    experiment = resolve(config)
    stage = experiment.aligned.verb
    with open_store(config.store.path, mode="r") as store:
        generation = store.generation(stage.name, stage.key)
        return {
            clip.clip_id: generation.read([key_of(stage, clip, experiment.identities)])["map"][0]
            for clip in experiment.clips
        }


def network_of(stage: ClipStage) -> Any:
    """The stage's network without anything round it."""
    created: Any = stage.create("cpu")
    return getattr(created, "_network", created)


def assert_near(got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    assert got.keys() == expected.keys()
    for clip_id, values in expected.items():
        assert np.abs(values).max() > 0
        np.testing.assert_allclose(
            got[clip_id], values, rtol=1e-4, atol=1e-4 * np.abs(values).max()
        )


def plain_flow_maps(experiment: Experiment, method: Any, span: int) -> dict[str, NDArray[Any]]:
    """Every map of computed flow, one clip at a time and nothing shared."""
    frames = {v: plain_decode(video.path) for v, video in experiment.videos.items()}
    stage, network = experiment.aligned.verb, network_of(experiment.aligned.verb)
    found = {}
    for clip in experiment.clips:
        times = clip_times_us(clip.centre_us, frames=4, stride=STRIDE, rate_fps=RATE_FPS)
        fields = []
        for time_us in times:
            pair = [
                plain_frame(frames[clip.segment.video_id], time_us, steps)
                for steps in (1 - span, 1)
            ]
            (field,) = method([pair[0]], [pair[1]])
            fields.append(resize_frame(field, stage.side_px))
        clips = torch.from_numpy(np.stack(fields)[None]) * (20 / method.bound_px)
        found[clip.clip_id] = network(clips)["map"][0]
    return found


def plain_frame(frames: Sequence[NDArray[np.uint8]], time_us: int, steps: int) -> Any:
    """The frame that is on screen some clip strides from a time, with a shorter side of 40."""
    seconds = round(time_us + steps * STRIDE * 1e6 / RATE_FPS) / 1e6
    index = min(max(int((seconds + 1e-3) * RATE_FPS), 0), len(frames) - 1)
    return Geometry(40).apply(frames[index])


@pytest.mark.parametrize(("span", "bound_px", "processes"), [(1, 20.0, 1), (3, 2.5, 0)])
def test_rows_of_computed_flow_equal_a_plain_recomputation(
    tmp_path: Path, span: int, bound_px: float, processes: int
) -> None:
    flow = {**TVL1, "span": span, "bound_px": bound_px}
    config = configure(tmp_path, flow, processes=processes)
    report = run(config)
    assert report.complete
    assert made(report) == {"verb": 6, "noun": 6, "objects": 10, "aligned": 6}
    method = create_flow_estimator("tvl1", options=FAST, bound_px=bound_px)
    assert_near(stored_maps(config), plain_flow_maps(resolve(config), method, span))


def test_rows_of_raft_equal_a_plain_recomputation(tmp_path: Path) -> None:
    options = {"model": "small", "iterations": 1}
    flow = {"method": "raft", "weights": "random", "weights_seed": 4, "short_side_px": 40}
    config = configure(tmp_path, {**flow, **options, "batch_size": 3})
    assert made(run(config, ["verb"])) == {"verb": 6}
    method = create_flow_estimator("raft", options=options, seed=4, batch_size=1)
    assert_near(stored_maps(config), plain_flow_maps(resolve(config), method, 1))


def test_a_second_run_makes_nothing_and_a_changed_setting_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[int] = []
    estimate = TVL1Flow._estimate

    def counted(self: TVL1Flow, first: Any, second: Any) -> Any:
        pairs.append(len(first))
        return estimate(self, first, second)

    monkeypatch.setattr(TVL1Flow, "_estimate", counted)
    assert made(run(configure(tmp_path, TVL1), ["verb"])) == {"verb": 6}
    assert sum(pairs) <= 6 * 4
    pairs.clear()
    assert made(run(configure(tmp_path, TVL1), ["verb"])) == {}
    assert made(run(configure(tmp_path, TVL1, batch_size=5), ["verb"])) == {}
    assert pairs == []
    keys = {resolve(configure(tmp_path, TVL1)).aligned.verb.key}
    for change in ({"bound_px": 10.0}, {"span": 2}, {"short_side_px": 36}, {"tau": 0.2}):
        config = configure(tmp_path, {**TVL1, **change})
        keys.add(resolve(config).aligned.verb.key)
        assert made(run(config, ["verb"])) == {"verb": 6}, change
    assert len(keys) == 5


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    maps = []
    for batch_size in (1, 3, 4):
        folder = tmp_path / str(batch_size)
        config = configure(folder, TVL1, batch_size=batch_size)
        run(config, ["verb"])
        maps.append(stored_maps(config))
    for others in maps[1:]:
        assert others.keys() == maps[0].keys()
        assert all(np.array_equal(others[key], maps[0][key]) for key in others)


def write_flow(folder: Path, count: int, *, seed: int) -> None:
    """Official flow: u and v images of 30 px by 20, as PNG so that their values are known."""
    rng = np.random.default_rng(seed)
    for component in "uv":
        (folder / component).mkdir(parents=True)
        for number in range(1, count + 1):
            pixels = encode_flow(rng.uniform(-25, 25, (20, 30)), 25)
            Image.fromarray(pixels).save(folder / component / f"frame_{number:010d}.png")


def official(folder: Path, **place: Any) -> ExperimentConfig:
    place = {"root": str(folder / "flow"), "frame_rate_fps": 30.0, "stride": 2, **place}
    return configure(folder, {"method": "folders"}, data={"flow": place})


def plain_official_maps(experiment: Experiment, folder: Path) -> dict[str, NDArray[Any]]:
    network = network_of(experiment.aligned.verb)
    found = {}
    for clip in experiment.clips:
        times = clip_times_us(clip.centre_us, frames=4, stride=STRIDE, rate_fps=RATE_FPS)
        place = folder / "flow" / clip.segment.video_id
        count = len(list((place / "u").iterdir()))
        frames = []
        for time_us in times:
            # Flow number j is on screen from RGB number 1 + 2 (j − 1), number n from n / rate.
            rgb_number = max(1, int((time_us / 1e6 + 1e-6) * RATE_FPS))
            number = min((rgb_number - 1) // 2 + 1, count)
            u, v = (np.array(Image.open(place / c / f"frame_{number:010d}.png")) for c in "uv")
            frames.append(square(32).apply(np.stack([u, v], axis=-1)))
        found[clip.clip_id] = network(torch.from_numpy(np.stack(frames)[None]))["map"][0]
    return found


def test_rows_of_official_flow_equal_a_plain_recomputation(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow" / "kitchen_a", 30, seed=1)
    write_flow(tmp_path / "flow" / "kitchen_b", 33, seed=2)
    config = official(tmp_path)
    report = run(config)
    assert report.complete
    assert made(report) == {"verb": 6, "noun": 6, "objects": 10, "aligned": 6}
    assert_near(stored_maps(config), plain_official_maps(resolve(config), tmp_path))
    assert made(run(config)) == {}


def test_other_flow_makes_its_own_rows_and_nobody_elses(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow" / "kitchen_a", 30, seed=1)
    write_flow(tmp_path / "flow" / "kitchen_b", 33, seed=2)
    run(official(tmp_path))
    shutil.rmtree(tmp_path / "flow" / "kitchen_a")
    write_flow(tmp_path / "flow" / "kitchen_a", 30, seed=3)
    assert made(run(official(tmp_path))) == {"verb": 4, "aligned": 4}
    assert made(run(official(tmp_path, frame_rate_fps=28.0))) == {"verb": 6, "aligned": 6}


def test_flow_that_is_not_there_is_missing_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow" / "kitchen_a", 30, seed=1)
    report = run(official(tmp_path))
    assert made(report) == {"verb": 4, "noun": 6, "objects": 10, "aligned": 4}
    assert not report.complete
    (missing,) = report.missing_videos
    assert missing.reason.endswith("kitchen_b: no such folder or tar of flow")
    assert (missing.video.video_id, missing.count) == ("kitchen_b", 2)
    with pytest.raises(RowsMissing, match="2 of 2 segments of split 'val' have no stored features"):
        train_run(
            resolve(official(tmp_path)),
            tmp_path / "head",
            resume=False,
            skip_missing=True,
            on_epoch=lambda *_: None,
        )


def test_flow_that_went_away_is_missing_not_failed(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow" / "kitchen_a", 30, seed=1)
    write_flow(tmp_path / "flow" / "kitchen_b", 33, seed=2)
    experiment = resolve(official(tmp_path))
    shutil.rmtree(tmp_path / "flow" / "kitchen_b")
    report = run(experiment)
    assert made(report) == {"verb": 4, "noun": 6, "objects": 10, "aligned": 4}
    assert [m.reason.rpartition(": ")[2] for m in report.missing_videos] == ["not there any more"]
    assert not any(stage.failures for stage in report.stages)
