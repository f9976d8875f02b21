"""A generated experiment whose rows cost next to nothing but decoding, and one run of it."""

import csv
import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline.config_file import parse_config
from pipeline.experiment import Experiment, resolve
from pipeline.run import run_experiment
from pipeline.run_report import StageReport

STAGE = "verb"
FRAMES, STRIDE = 16, 4  # a second of a video of 60 frames a second
COLUMNS = ("segment_id", "video_id", "start_seconds", "stop_seconds", "verb_class", "noun_class")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        videos, clips, size_px: of what is decoded; clips of each video, one a second.
        rows: of the coordinator's run.
        turns: of which the median counts.
    """

    videos: int
    clips: int
    size_px: tuple[int, int]
    rows: int
    turns: int


FULL = Effort(videos=64, clips=40, size_px=(456, 256), rows=100_000, turns=2)
QUICK = Effort(videos=12, clips=2, size_px=(128, 96), rows=300, turns=1)


def experiment(folder: Path, videos: Sequence[Path], clips: int, *overrides: str) -> Experiment:
    """An experiment without any rows; labels are written, an earlier store is deleted."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "split"])
        for video in videos:
            for number in range(clips):
                name = f"{video.stem}_{number}"
                writer.writerow([name, video.stem, number + 0.6, number + 1.4, 0, 0, "val"])
    text = yaml.safe_dump(_settings(folder))
    return resolve(parse_config(text, source="bench.yaml", overrides=overrides))


def run(wanted: Experiment) -> StageReport:
    """Make every row.

    Raises:
        RuntimeError: rows are missing afterwards.
    """
    report = run_experiment(
        wanted, stages=[STAGE], retry_failed=False, reporter=_Silent(), stop=threading.Event()
    )
    (stage,) = report.stages
    if not report.complete or stage.made != len(wanted.clips):
        raise RuntimeError(f"got {stage.made} rows of {len(wanted.clips)}: {stage.failures}")
    return stage


def steady_speed(folder: Path, clips: int) -> float:
    """Rows per second from when the last worker began to the end, by the run's journal.

    What others were at when it began is left out, on the cautious side.
    """
    (log,) = (folder / "store" / "logs").iterdir()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    started = [event for event in events if event["event"] == "unit_started"]
    first: dict[str, str] = {}
    for event in started:
        first.setdefault(event["worker"], event["time"])
    begun = max(first.values())
    ended = max(event["time"] for event in events if event["event"] == "unit_finished")
    rows = sum(clips * len(event["videos"]) for event in started if event["time"] >= begun)
    seconds = datetime.fromisoformat(ended) - datetime.fromisoformat(begun)
    return rows / seconds.total_seconds()


class _Silent:
    """A reporter: nobody watches."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, rows: int) -> None: ...

    def show_workers(self, workers: object) -> None: ...

    def say(self, text: str) -> None: ...


def _settings(folder: Path) -> dict[str, Any]:
    clips = {
        "network": {"name": "resnet3d", "depth": 10, "width": 1},
        "weights": "random",
        "weights_seed": 0,
        "clip": {"frames": FRAMES, "stride": STRIDE},
        "size_px": 32,
    }
    # Asked for by the configuration; no run here makes any.
    objects = {"detector": {"name": "faster_rcnn"}, "weights": "random", "weights_seed": 0}
    return {
        "name": "bench",
        "device": "cpu",
        "store": {"path": str(folder / "store")},
        "engine": {"cpu_threads": 1, "decode_processes": 1},
        "data": {
            "kind": "csv",
            "annotations": str(folder / "labels.csv"),
            "videos": {"root": str(folder / "videos")},
            "verbs": 1,
            "nouns": 1,
        },
        "stages": {STAGE: clips, "noun": clips, "objects": objects},
    }
