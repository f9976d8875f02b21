"""A generated experiment that asks for one stage of clips, and one run of it into a real store."""

import csv
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from extract_cases import CLIP_EVERY_SECONDS, Backbone

from pipeline.config_file import parse_config
from pipeline.experiment import Experiment, resolve
from pipeline.run import run_experiment
from pipeline.run_report import StageReport
from pipeline.work import VideoWork
from pipeline.worker_board import WorkerLine

STAGE = "verb"
COLUMNS = ("segment_id", "video_id", "start_seconds", "stop_seconds", "verb_class", "noun_class")
BEFORE_SECONDS = AFTER_SECONDS = 1.25  # of a clip's centre that there is video


@dataclass(frozen=True)
class Material:
    """Videos of one folder, and how they are looked at.

    Attributes:
        clips: of each video.
        every_seconds: from the centre of one clip to that of the next.
    """

    folder: Path
    videos: Sequence[Path]
    clips: int
    every_seconds: float = CLIP_EVERY_SECONDS

    @property
    def num_clips(self) -> int:
        return self.clips * len(self.videos)

    def experiment(
        self, backbone: Backbone, batch_size: int, device: str = "cpu", precision: str = "float32"
    ) -> Experiment:
        """An experiment without any rows; labels are written, an earlier store is deleted."""
        shutil.rmtree(self.folder / "store", ignore_errors=True)
        _write_labels(self.folder / "labels.csv", self)
        settings = _settings(self.folder, backbone, batch_size, device, precision)
        return resolve(parse_config(yaml.safe_dump(settings), source="bench.yaml"))


@dataclass(frozen=True)
class Ran:
    """One run.

    Attributes:
        stage: its report; `seconds` are those of the unit of work.
        before_seconds: building networks and everything else that comes before the unit.
    """

    stage: StageReport
    before_seconds: float


def video_seconds(clips: int, every_seconds: float = CLIP_EVERY_SECONDS) -> float:
    """How long a video must be for so many clips."""
    return BEFORE_SECONDS + (clips - 1) * every_seconds + AFTER_SECONDS


def most_clips(seconds: float, every_seconds: float) -> int:
    """How many clips a video of that length has room for."""
    return int((seconds - BEFORE_SECONDS - AFTER_SECONDS) / every_seconds) + 1


def works(experiment: Experiment) -> list[VideoWork]:
    """What the run will decode."""
    stage = experiment.video_stages[STAGE]
    rows = stage.rows(experiment.table)
    return [
        VideoWork(video, {STAGE: [row for row in rows if row.video_id == video_id]})
        for video_id, video in experiment.videos.items()
    ]


def run(experiment: Experiment) -> Ran:
    """Make every row.

    Raises:
        RuntimeError: rows are missing afterwards.
    """
    started = time.perf_counter()
    reporter = _Silent()
    report = run_experiment(
        experiment, stages=[STAGE], retry_failed=False, reporter=reporter, stop=threading.Event()
    )
    (stage,) = report.stages
    if not report.complete or stage.made != len(experiment.clips):
        raise RuntimeError(f"got {stage.made} rows of {len(experiment.clips)}: {stage.failures}")
    return Ran(stage, reporter.started_at - started)


class _Silent:
    """Remembers when the stage began."""

    started_at = 0.0

    def start(self, stage: str, total: int) -> None:
        self.started_at = time.perf_counter()

    def advance(self, stage: str, rows: int) -> None:
        pass

    def show_workers(self, workers: Sequence[WorkerLine]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def _write_labels(path: Path, material: Material) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "split"])
        for video in material.videos:
            for number in range(material.clips):
                centre = BEFORE_SECONDS + number * material.every_seconds
                name = f"{video.stem}_{number}"
                writer.writerow([name, video.stem, centre - 0.5, centre + 0.5, 0, 0, "val"])


def _settings(
    folder: Path, backbone: Backbone, batch_size: int, device: str, precision: str
) -> dict[str, Any]:
    clips = {
        "network": {"name": backbone.network, **backbone.options},
        "weights": "random",
        "weights_seed": 0,
        "clip": {"frames": backbone.frames, "stride": backbone.stride},
        "size_px": backbone.size_px,
        "batch_size": batch_size,
        "precision": precision,
    }
    # Asked for by the configuration; no run here makes any.
    objects = {"detector": {"name": "faster_rcnn"}, "weights": "random", "weights_seed": 0}
    return {
        "name": "bench",
        "device": device,
        "store": {"path": str(folder / "store")},
        "data": {
            "kind": "csv",
            "annotations": str(folder / "labels.csv"),
            "videos": {"root": str(folder / "videos")},
            "verbs": 1,
            "nouns": 1,
        },
        "stages": {STAGE: clips, "noun": clips, "objects": objects},
    }
