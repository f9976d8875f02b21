"""A data set of EPIC-100's size, and a store that holds all of its rows.

Videos are small files of random bytes: nobody opens them. Rows hold one number per axis instead of
real values, under the keys that the real settings give, in shards of as many rows as real ones.
"""

import csv
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from plan_peer import make_outputs

from pipeline.config_file import load_config
from pipeline.experiment import Experiment, resolve
from pipeline.plan import plan_aligned, plan_videos, planned_videos
from pipeline.rows import VideoRow
from pipeline.unit_queue import StageShards, UnitQueue
from stores import ArraySpec, Row, Store, open_store

HOURS = 100
RACY_SECONDS = 2.5  # so young a file is not trusted to stay as it is
VERBS, NOUNS = 97, 300
LABEL_COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "narration",
    "verb_class",
    "noun_class",
)
SHARDS_AT_ONCE = 64
# Rows of a real shard of 32 MiB: maps of a ResNet-50, and five objects with 1,024 features.
ROWS_PER_SHARD = {"verb": 32, "noun": 32, "objects": 3000, "aligned": 100}


@dataclass(frozen=True)
class Effort:
    """How much to make. ``hours``: of labelled video."""

    clips: int
    videos: int
    hours: float


FULL = Effort(90_000, 700, HOURS)
QUICK = Effort(200, 5, 0.5)


@dataclass(frozen=True)
class PlanData:
    """What was made.

    Attributes:
        config: the experiment's file.
        label_files: CSV files with the segments.
        changed_labels: a folder of the same labels with one segment moved.
        rows: stored rows by stage.
    """

    config: Path
    label_files: list[Path]
    changed_labels: Path
    rows: Mapping[str, int]


def make_data(folder: Path, effort: Effort) -> PlanData:
    """Write labels, videos, the experiment's file, the full store and the peer's files."""
    draw = random.Random(0)
    videos = [f"P{1 + i % 37:02d}_{100 + i // 37}" for i in range(effort.videos)]
    for video_id in videos:
        path = folder / "videos" / video_id[:3] / f"{video_id}.MP4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(4096))
    segments = list(_segments(draw, videos, effort))
    files = _write_labels(folder / "labels", segments)
    start, stop = segments[len(segments) // 2][3:5]
    segments[len(segments) // 2][3:5] = start + 0.25, stop + 0.25
    _write_labels(folder / "changed", segments)
    config = folder / "experiment.yaml"
    config.write_text(yaml.safe_dump(_settings(folder)))
    make_outputs(folder / "peer", files)
    time.sleep(RACY_SECONDS)
    return PlanData(config, files, folder / "changed", _fill(resolve(load_config(config, ()))))


def work_to_do(data: PlanData) -> tuple[int, dict[str, int]]:
    """Units, and rows by stage, that a run of the changed labels would make."""
    changed = load_config(data.config, (f"data.annotations={data.changed_labels}",))
    experiment = resolve(changed)
    with open_store(changed.store.path) as store:
        plans = plan_videos(experiment, store, experiment.video_stages, retry_failed=False)
        specs = {name: plan.specs for name, plan in plans.items()}
        rows = {name: len(plan.todo) for name, plan in plans.items()}
        rows["aligned"] = len(plan_aligned(experiment, store, specs, retry_failed=False).todo)
        stages = {
            name: StageShards(plan.row_nbytes, ROWS_PER_SHARD[name], lambda count: 0)
            for name, plan in plans.items()
        }
        return len(UnitQueue(planned_videos(experiment, plans), stages, workers=2)), rows


def _segments(draw: random.Random, videos: list[str], effort: Effort) -> Iterator[list[Any]]:
    """Segments in order of time, one video after the other."""
    seconds = effort.hours * 3600 / effort.videos
    per_video = np.diff(np.linspace(0, effort.clips, effort.videos + 1).astype(int))
    for video_id, count in zip(videos, per_video.tolist(), strict=True):
        for i, start in enumerate(sorted(draw.uniform(0, seconds - 8) for _ in range(count))):
            stop = start + draw.uniform(0.5, 6)
            classes = (draw.randrange(VERBS), draw.randrange(NOUNS))
            yield [f"{video_id}_{i}", video_id[:3], video_id, start, stop, "take cup", *classes]


def _write_labels(folder: Path, segments: Iterable[list[Any]]) -> list[Path]:
    """The files of EPIC-100; one segment of ten is for validation."""
    folder.mkdir()
    parts: dict[str, list[list[Any]]] = {"EPIC_100_train.csv": [], "EPIC_100_validation.csv": []}
    for number, segment in enumerate(segments):
        split = "EPIC_100_validation.csv" if number % 10 == 0 else "EPIC_100_train.csv"
        parts[split].append([*segment[:3], *map(_clock, segment[3:5]), *segment[5:]])
    for name, rows in parts.items():
        _write_csv(folder / name, [LABEL_COLUMNS, *rows])
    for kind, count in (("verb", VERBS), ("noun", NOUNS)):
        names = [("id", "key"), *((i, f"{kind} {i}") for i in range(count))]
        _write_csv(folder / f"EPIC_100_{kind}_classes.csv", names)
    return [folder / name for name in parts]


def _write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02d}:{minutes:02d}:{int(rest * 100) / 100:05.2f}"


def _settings(folder: Path) -> dict[str, Any]:
    """The papers' settings, with random weights."""
    clips = {"network": {"name": "resnet3d"}, "weights": "random"}
    detector = {"name": "faster_rcnn"}
    return {
        "name": "plan",
        "store": {"path": str(folder / "store")},
        "data": {
            "kind": "epic100",
            "annotations": str(folder / "labels"),
            "videos": {
                "root": str(folder / "videos"),
                "pattern": "{participant_id}/{video_id}.MP4",
            },
        },
        "stages": {
            "verb": {**clips, "weights_seed": 1},
            "noun": {**clips, "weights_seed": 2},
            "objects": {"detector": detector, "weights": "random", "weights_seed": 3},
        },
    }


def _fill(experiment: Experiment) -> dict[str, int]:
    """Store every row of every stage, and what identifies the videos."""
    one = {
        "map": ArraySpec(("time", "y", "x", "channel"), (1, 1, 1, 1), "float16"),
        "features": ArraySpec(("object", "channel"), (1, 1), "float16"),
        "boxes_xyxy_px": ArraySpec(("object", "xyxy"), (1, 4), "float32"),
    }
    specs = {"verb": {"map": one["map"]}, "noun": {"map": one["map"]}}
    specs["objects"] = {name: one[name] for name in ("features", "boxes_xyxy_px")}
    specs["aligned"] = experiment.aligned.output_specs(specs)
    with open_store(experiment.config.store.path, mode="a") as store:
        experiment.memo.save()
        return {name: _fill_stage(store, experiment, name, of) for name, of in specs.items()}


def _fill_stage(
    store: Store, experiment: Experiment, name: str, specs: Mapping[str, ArraySpec]
) -> int:
    stage = experiment.stages[name]
    shard_mib = (ROWS_PER_SHARD[name] + 0.5) * sum(s.row_nbytes for s in specs.values()) / 2**20
    made = store.generation(name, stage.key, specs, stage.settings, shard_mib)
    arrays = {name: np.ones(spec.shape, spec.numpy_dtype) for name, spec in specs.items()}
    wanted = stage.rows(experiment.table)
    rows = (
        Row(row.key, arrays, row.info(clamped=False) if isinstance(row, VideoRow) else row.info)
        for row in wanted
    )
    while some := list(islice(rows, made.rows_per_shard * SHARDS_AT_ONCE)):
        made.append(some)
    return len(wanted)
