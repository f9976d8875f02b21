"""The commands on real material: a video and official EPIC frames, as the example configs say.

Each example runs twice: at full size (``slow``: minutes on a CPU), and with small networks on
small frames, which shows the same but for the numbers in the shapes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from cli_fixtures import symbio, table_rows
from numpy.typing import NDArray
from PIL import Image
from stage_fixtures import key_of, keys_of

from extractors.resnet3d import PREPROCESSING, ResNet3D
from extractors.weights import seeded_init
from pipeline.config_file import load_config
from pipeline.experiment import Experiment, resolve
from stores.base import FeatureStore
from stores.registry import open_store

CONFIGS = Path(__file__).parent.parent / "configs"
FRAMES = 64
STEPS = np.arange(FRAMES) - FRAMES // 2
OBJECTS_PER_FRAME, GLOBAL_FRAMES, LOCAL_FRAMES = 5, 12, 8


@dataclass(frozen=True)
class Size:
    """How large the networks are, and the shape of their maps."""

    overrides: Sequence[str]
    depth: int
    width: int
    size_px: int
    map_shape: tuple[int, int, int, int]
    object_channels: int


FULL = Size((), depth=50, width=64, size_px=256, map_shape=(4, 8, 8, 2048), object_channels=256)
SMALL = Size(
    (
        "stages.verb.network={name: resnet3d, depth: 10, width: 8}",
        "stages.noun.network={name: resnet3d, depth: 10, width: 8}",
        "stages.verb.size_px=64",
        "stages.noun.size_px=64",
        "stages.objects.detector={name: faster_rcnn, score_threshold: 0.0, num_classes: 2, "
        "builder: fasterrcnn_mobilenet_v3_large_320_fpn}",
    ),
    depth=10,
    width=8,
    size_px=64,
    map_shape=(4, 2, 2, 64),
    object_channels=256,
)
SIZES = [pytest.param(FULL, id="full", marks=pytest.mark.slow), pytest.param(SMALL, id="small")]


@dataclass(frozen=True)
class Ran:
    """An example that ran from plan to evaluation."""

    experiment: Experiment
    arguments: tuple[str, ...]
    size: Size
    run_folder: Path
    split: str

    def rows(self, store: Any, stage: str) -> tuple[FeatureStore, list[dict[str, str]]]:
        """A stage's rows, and what its table says of them."""
        generation = store.generation(stage, self.experiment.stages[stage].key)
        with (generation.path / "rows.csv").open(newline="") as file:
            return generation, list(csv.DictReader(file))


def run_example(name: str, size: Size, folder: Path, overrides: Sequence[str], split: str) -> Ran:
    """Plan, run, look, train and evaluate, and run again for nothing."""
    places = (f"store.path={folder / 'store'}", f"runs={folder / 'runs'}", "views.train=1")
    every = (*size.overrides, *places, *overrides)
    arguments = (str(CONFIGS / f"{name}.yaml"), *(a for o in every for a in ("--set", o)))
    experiment = resolve(load_config(CONFIGS / f"{name}.yaml", every))
    wanted = {
        **{n: len(s.rows(experiment.table)) for n, s in experiment.video_stages.items()},
        "aligned": len(experiment.clips),
    }

    plan = symbio("plan", *arguments)
    assert plan.code == 0
    planned = table_rows(plan.out, ["to do", "takes"])
    assert {stage: int(row["to do"]) for stage, row in planned.items()} == wanted
    for expected in (wanted, dict.fromkeys(wanted, 0)):
        run = symbio("run", *arguments)
        assert (run.code, run.err) == (0, "")
        made = table_rows(run.out, ["made", "failed", "skipped"])
        assert {stage: int(row["made"]) for stage, row in made.items()} == expected
    status = symbio("status", *arguments)
    present = table_rows(status.out, ["wanted", "present"])
    assert {stage: int(row["present"]) for stage, row in present.items()} == wanted

    train = symbio("train", *arguments, "--set", "train.epochs=2")
    assert train.code == 0
    run_folder = next((folder / "runs").iterdir())
    evaluated = symbio("evaluate", run_folder)
    assert evaluated.code == 0
    assert f"{split}, {len(experiment.dataset.split(split))} segments" in evaluated.out
    return Ran(experiment, arguments, size, run_folder, split)


@pytest.fixture(scope="module", params=SIZES)
def pancake(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """Three segments of the pancake video: the first, one in the middle, the last."""
    overrides = (
        f"data.annotations={CONFIGS / 'pancake.csv'}",
        f"data.videos.root={test_data / 'video'}",
        "data.only.segment_ids=[hold-early, flip-second, reach]",
    )
    return run_example("pancake", request.param, tmp_path_factory.mktemp("p"), overrides, "val")


@pytest.fixture(scope="module", params=SIZES)
def epic(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """Segment 0 of P01_01, of which the folder holds the first 100 frames.

    With this seed its clip starts inside the folder and ends beyond it.
    """
    overrides = (
        "views.seed=9",
        f"data.annotations={test_data / 'annotations' / 'epic55'}",
        f"data.videos.root={test_data / 'frames'}",
    )
    return run_example(
        "epic55_frames", request.param, tmp_path_factory.mktemp("e"), overrides, "train"
    )


def reference_map(frames: Sequence[NDArray[np.uint8]], size: Size) -> NDArray[np.float32]:
    """The verb map of a clip, straight from its frames: resize, normalise, forward."""
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)
    resized = torch.nn.functional.interpolate(
        clip, size=(size.size_px, size.size_px), mode="bilinear", antialias=True
    )
    pixels = PREPROCESSING["kinetics_2020"]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (pixels.mean, pixels.std))
    x = (resized / 255 - mean) / std
    network = seeded_init(lambda: ResNet3D(size.depth, width=size.width), 1).eval()
    with torch.inference_mode():
        found = network.forward_features(x.permute(1, 0, 2, 3)[None])  # (1, C, T', H', W')
    return found[0].permute(1, 2, 3, 0).numpy()


def assert_is_map(
    stored: NDArray[np.float16], frames: Sequence[NDArray[np.uint8]], size: Size
) -> None:
    """The map of exactly these frames but for float16, half a unit in the last place."""
    expected = reference_map(frames, size)
    float32_noise = 1e-5 * float(expected.max())
    close: dict[str, Any] = {"rtol": 2**-11, "atol": float32_noise}
    values = stored.astype(np.float32)
    np.testing.assert_allclose(values, expected, **close)
    # One frame later is another map, or the comparison would not say much.
    later = reference_map([*frames[1:], frames[0]], size)
    assert np.isclose(values, later, **close).mean() < 0.9


def assert_shapes(ran: Ran, frame_size_px: tuple[int, int]) -> None:
    """Maps, objects and aligned rows are as large as the papers' settings make them."""
    width_px, height_px = frame_size_px
    num_clips = len(ran.experiment.clips)
    with open_store(ran.experiment.config.store.path, mode="r") as store:
        for stage in ("verb", "noun"):
            generation, _ = ran.rows(store, stage)
            maps = generation.read(generation.keys())["map"]
            assert maps.dtype == np.float16
            assert maps.shape == (num_clips, *ran.size.map_shape)
            assert np.isfinite(maps).all()

        generation, _ = ran.rows(store, "objects")
        rows = generation.read(generation.keys())
        boxes = rows["boxes_xyxy_px"]
        assert boxes.shape == (len(generation), OBJECTS_PER_FRAME, 4)
        assert rows["features"].shape == (
            len(generation),
            OBJECTS_PER_FRAME,
            ran.size.object_channels,
        )
        assert (rows["count"] == OBJECTS_PER_FRAME).all()
        assert (rows["frame_size_px"] == frame_size_px).all()
        assert (boxes >= 0).all()
        assert (boxes <= (width_px, height_px, width_px, height_px)).all()
        assert (boxes[..., :2] < boxes[..., 2:]).all()
        assert (np.diff(rows["scores"], axis=1) <= 0).all()

        objects = ran.experiment.aligned.objects
        for clip in ran.experiment.clips:
            assert len(keys_of(objects, clip, ran.experiment.identities)) == GLOBAL_FRAMES
        generation, _ = ran.rows(store, "aligned")
        assert {name: spec.shape for name, spec in generation.specs.items()} == {
            "verb_gap": ran.size.map_shape[-1:],
            "noun_gap": ran.size.map_shape[-1:],
            "verb_roi": (LOCAL_FRAMES * OBJECTS_PER_FRAME, ran.size.map_shape[-1]),
            "object_features": (GLOBAL_FRAMES * OBJECTS_PER_FRAME, ran.size.object_channels),
            "object_mask": (60,),
            "object_boxes_xyxy_px": (60, 4),
            "object_scores": (60,),
            "frame_size_px": (2,),
        }
        assert generation.read(generation.keys(), ["object_mask"])["object_mask"].all()


def flags(ran: Ran, stage: str) -> dict[str, str]:
    """Flag of each row, by the name people know it by."""
    with open_store(ran.experiment.config.store.path, mode="r") as store:
        return {row["clip_id"]: row["flags"] for row in ran.rows(store, stage)[1]}


def test_a_real_video_gives_rows_of_the_papers_shapes(pancake: Ran) -> None:
    assert_shapes(pancake, (426, 240))


def test_a_real_videos_clip_is_its_frames_through_the_network(
    pancake: Ran, test_data: Path
) -> None:
    clip = next(c for c in pancake.experiment.clips if c.segment.segment_id == "flip-second")
    # The middle of 6.1 … 7.3 s; at 30 fps that is frame 201, and stride 2 at 60 fps every frame.
    assert clip.centre_us == 6_700_000
    with av.open(str(test_data / "video" / "decord_flipping_a_pancake.mkv")) as container:
        video: list[Any] = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(video) == 310
    verb = pancake.experiment.aligned.verb
    with open_store(pancake.experiment.config.store.path, mode="r") as store:
        generation = store.generation("verb", verb.key)
        found = generation.read([key_of(verb, clip, pancake.experiment.identities)])["map"][0]
    assert_is_map(found, [video[index] for index in 201 + STEPS], pancake.size)


def test_clips_that_leave_a_real_video_are_flagged(pancake: Ran) -> None:
    length = 310 / 30
    expected = {}
    for clip in pancake.experiment.clips:
        seconds = clip.centre_us / 1e6 + STEPS / 30
        inside = seconds.min() >= 0 and seconds.max() < length
        expected[clip.clip_id] = "" if inside else "clamped"
    assert sorted(expected.values()) == ["", "clamped", "clamped"]
    assert flags(pancake, "verb") == flags(pancake, "noun") == expected
    times = {name: float(name.split("@")[1][:-1]) for name in flags(pancake, "objects")}
    assert flags(pancake, "objects") == {
        name: "" if time < length else "clamped" for name, time in times.items()
    }
    # 6 s round 6.7 s: 4, 4.5 … 9.5 s.
    assert set(np.arange(4, 10, 0.5)) <= set(times.values())


def test_real_frames_give_rows_of_the_papers_shapes(epic: Ran) -> None:
    assert_shapes(epic, (456, 256))


def test_a_real_folders_clip_is_its_frames_through_the_network(epic: Ran, test_data: Path) -> None:
    (clip,) = epic.experiment.clips
    assert clip.segment.narration == "open door"
    assert (clip.segment.start_seconds, clip.segment.stop_seconds) == (0.14, 3.37)
    # EPIC's rule for 60 fps, on whole microseconds; of 202 frames the folder holds 100.
    thirtieths = np.rint(STEPS * (2e6 / 60)).astype(np.int64)
    numbers = np.maximum(1, (clip.centre_us + thirtieths) * 60 // 1_000_000)
    assert numbers.min() > 1
    assert numbers.max() > 100
    folder = test_data / "frames" / "P01_01_rgb"
    frames = [
        np.asarray(Image.open(folder / f"P01_01_frame_{min(number, 100):010d}.jpg"))
        for number in numbers
    ]
    verb = epic.experiment.aligned.verb
    with open_store(epic.experiment.config.store.path, mode="r") as store:
        generation = store.generation("verb", verb.key)
        found = generation.read(generation.keys())["map"][0]
    assert_is_map(found, frames, epic.size)


def test_rows_of_a_folder_that_was_cut_short_are_flagged(epic: Ran) -> None:
    assert list(flags(epic, "verb").values()) == ["clamped"]
    assert list(flags(epic, "aligned").values()) == ["clamped"]
    # 100 frames at 60 fps last for 1.68 s.
    assert flags(epic, "objects") == {
        name: "" if float(name.split("@")[1][:-1]) < 101 / 60 else "clamped"
        for name in flags(epic, "objects")
    }
    assert {"P01_01@1.5s", "P01_01@2s"} <= set(flags(epic, "objects"))


def test_a_folder_that_was_cut_short_is_refused_unless_told_otherwise(
    test_data: Path, tmp_path: Path
) -> None:
    done = symbio(
        "run",
        str(CONFIGS / "epic55_frames.yaml"),
        "--quiet",
        *(
            argument
            for override in (
                *SMALL.overrides,
                f"store.path={tmp_path / 'store'}",
                f"data.annotations={test_data / 'annotations' / 'epic55'}",
                f"data.videos.root={test_data / 'frames'}",
                "data.videos.truncated=refuse",
            )
            for argument in ("--set", override)
        ),
    )
    assert done.code == 1
    folder = test_data / "frames" / "P01_01_rgb"
    assert f"{folder}: got 1.68 s of video, expected 1652.15 s" in done.out


def test_metrics_and_provenance_are_written(pancake: Ran) -> None:
    metrics = json.loads((pancake.run_folder / "metrics.json").read_text())
    assert pancake.experiment.aligned.key in json.dumps(metrics)
    scores = np.load(pancake.run_folder / "scores.npz")
    assert len(scores.files) > 0


def test_the_papers_experiment_is_a_config() -> None:
    config = load_config(CONFIGS / "epic55_saoa_r50.yaml")
    assert config.device == "cuda"
    assert config.data.kind == "epic55"
    assert config.data.videos.pattern == "{participant_id}/videos/{video_id}.MP4"
    assert config.views.train == 4
    for stage in (config.stages.verb, config.stages.noun):
        assert stage.network.model_dump() == {"name": "resnet3d", "depth": 50}
        assert stage.clip.model_dump() == {"frames": 64, "stride": 2, "rate_fps": 60.0}
        assert (stage.size_px, stage.checkpoint is None) == (256, False)
    for training in (config.finetune.verb, config.finetune.noun):
        assert training is not None
        assert (training.epochs, training.batch_size) == (35, 32)
        assert (training.learning_rate, training.decay_epochs) == (0.003, (30,))
        assert (training.scale_range_px, training.crop_px) == ((224, 288), 224)
    train = config.train
    assert (train.epochs, train.batch_size, train.learning_rate) == (15, 32, 1e-4)
    assert (train.momentum, train.weight_decay, train.decay_epochs) == (0.9, 1e-4, ())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    config = load_config(path)
    assert config.stages.objects.top_k == OBJECTS_PER_FRAME or config.data.kind == "toy_kitchen"
