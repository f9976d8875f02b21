"""A small experiment on small real videos: what the tests of whole runs share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from video_files import write_video

from pipeline.config import ExperimentConfig
from pipeline.config_file import parse_config
from pipeline.worker_board import WorkerLine

__all__ = ["BOXES_HEADER", "Silent", "make_experiment", "write_boxes", "write_labels"]

BOXES_HEADER = ("video_id", "time_seconds", "x0", "y0", "x1", "y1", "score", "noun_class")
LABELS_HEADER = (
    "segment_id",
    "video_id",
    "start_seconds",
    "stop_seconds",
    "verb_class",
    "noun_class",
    "split",
)
SEGMENTS = (
    ("a0", "kitchen_a", 0.2, 0.8, 0, 1, "train"),
    ("a1", "kitchen_a", 1.0, 1.8, 1, 0, "train"),
    ("b0", "kitchen_b", 0.1, 0.9, 1, 1, "val"),
    ("b1", "kitchen_b", 0.9, 1.9, 0, 2, "val"),
)


class Silent:
    """A reporter: nobody watches."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, rows: int) -> None: ...

    def say(self, text: str) -> None: ...

    def show_workers(self, workers: Sequence[WorkerLine]) -> None: ...


def write_labels(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write segments in the plain CSV form."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([LABELS_HEADER, *rows])


def write_boxes(path: Path, video_ids: Sequence[str], *, seconds: float = 2.0) -> None:
    """Two boxes on every frame of the half-second grid."""
    rows = [
        (video_id, step / 2, *box)
        for video_id in video_ids
        for step in range(int(seconds * 2) + 3)
        for box in ((4, 4, 30, 30, 0.9, 1), (20, 10, 60, 44, 0.5, 0))
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([BOXES_HEADER, *rows])


def settings(folder: Path) -> dict[str, Any]:
    """The config of `make_experiment` as plain values."""
    clips = {
        "network": {"name": "resnet3d", "depth": 10, "width": 4},
        "weights": "random",
        "clip": {"frames": 4, "stride": 2, "rate_fps": 30},
        "size_px": 32,
        "batch_size": 2,
    }
    return {
        "name": "small",
        "store": {"path": str(folder / "store")},
        "runs": str(folder / "runs"),
        "data": {
            "kind": "csv",
            "annotations": str(folder / "labels.csv"),
            "videos": {"root": str(folder / "videos"), "pattern": "{video_id}.mp4"},
            "verbs": ["take", "put"],
            "nouns": ["cup", "knife", "pan"],
        },
        "views": {"train": 2},
        "stages": {
            "verb": {**clips, "weights_seed": 1},
            "noun": {**clips, "weights_seed": 2},
            "objects": {
                "detector": {
                    "name": "given_boxes",
                    "backbone": "resnet10",
                    "layer": "layer1",
                    "short_side_px": 48,
                },
                "boxes": str(folder / "boxes.csv"),
                "weights": "random",
                "weights_seed": 3,
                "top_k": 3,
            },
            "aligned": {"global_window_seconds": 2, "local_window_seconds": 1},
        },
        "train": {"epochs": 2, "batch_size": 2, "learning_rate": 0.01},
    }


def make_experiment(folder: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Two videos of two seconds, two segments each; writes what is not there yet."""
    videos = folder / "videos"
    if not videos.exists():
        videos.mkdir(parents=True)
        write_video(videos / "kitchen_a.mp4", num_frames=60, rate_fps=30)
        write_video(videos / "kitchen_b.mp4", num_frames=66, rate_fps=30)
        write_labels(folder / "labels.csv", SEGMENTS)
        write_boxes(folder / "boxes.csv", ("kitchen_a", "kitchen_b"))
    return parse_config(yaml.safe_dump(settings(folder)), overrides, source="small.yaml")
