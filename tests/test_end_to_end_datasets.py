"""Whole experiments on each kind of data set, from official-looking files to scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_fixtures import symbio, table_rows
from experiment_fixtures import settings, write_boxes
from PIL import Image
from video_files import picture, write_video

from heads.scores import load_scores

EPIC_LABELS = "participant_id,video_id,start_timestamp,stop_timestamp"
CLASSES = "0,take\n1,put\n", "0,cup\n1,knife\n2,pan\n"
PIZZA, SALAD = "P01-R07-Pizza", "OP02-R06-GreekSalad"


def write_videos(folder: Path, names: list[str], pattern: str) -> list[str]:
    for name in names:
        path = folder / "videos" / pattern.format(video_id=name, participant_id=name[:3])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, num_frames=60, rate_fps=30)
    return names


def write_files(folder: Path, files: dict[str, str]) -> str:
    (folder / "labels").mkdir()
    for name, content in files.items():
        (folder / "labels" / name).write_text(content)
    return str(folder / "labels")


def epic55(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Two labelled videos, and one of each test split."""
    verbs, nouns = CLASSES
    labels = f"uid,{EPIC_LABELS},narration,verb_class,noun_class\n"
    times = f"uid,{EPIC_LABELS}\n"
    files = {
        "EPIC_verb_classes.csv": f"verb_id,class_key\n{verbs}",
        "EPIC_noun_classes.csv": f"noun_id,class_key\n{nouns}",
        "EPIC_train_action_labels.csv": f"{labels}0,P01,P01_01,00:00:00.2,00:00:00.8,take cup,0,0\n"
        "1,P01,P01_01,00:00:01,00:00:01.8,put pan,1,2\n"
        "2,P26,P26_01,00:00:00.1,00:00:01.5,take pan,0,2\n",
        "EPIC_test_s1_timestamps.csv": f"{times}3,P01,P01_02,00:00:00.4,00:00:01\n",
        "EPIC_test_s2_timestamps.csv": f"{times}4,P09,P09_01,00:00:00,00:00:01.5\n"
        "5,P09,P09_01,00:00:01,00:00:01.5\n",
    }
    data = {"kind": "epic55", "splits": ["train", "val", "test_s1", "test_s2"]}
    pattern = "{participant_id}/videos/{video_id}.MP4"
    videos = write_videos(folder, ["P01_01", "P26_01", "P01_02", "P09_01"], pattern)
    place = {"root": str(folder / "videos"), "pattern": pattern}
    return {**data, "annotations": write_files(folder, files), "videos": place}, videos


def epic100(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """One video of each split; the test video is one of the extension."""
    verbs, nouns = CLASSES
    labels = f"narration_id,{EPIC_LABELS},narration,verb_class,noun_class\n"
    files = {
        "EPIC_100_verb_classes.csv": f"id,key\n{verbs}",
        "EPIC_100_noun_classes.csv": f"id,key\n{nouns}",
        "EPIC_100_train.csv": f"{labels}P01_01_0,P01,P01_01,00:00:00,00:00:01,take cup,0,0\n"
        "P01_01_1,P01,P01_01,00:00:00.5,00:00:01.5,put knife,1,1\n",
        "EPIC_100_validation.csv": f"{labels}P18_01_0,P18,P18_01,00:00:00,00:00:01.9,put cup,1,0\n",
        "EPIC_100_test_timestamps.csv": f"narration_id,{EPIC_LABELS}\n"
        "P33_101_0,P33,P33_101,00:00:00.5,00:00:01.5\n",
    }
    data = {"kind": "epic100", "splits": ["train", "val", "test"]}
    pattern = "{participant_id}/videos/{video_id}.MP4"
    videos = write_videos(folder, ["P01_01", "P18_01", "P33_101"], pattern)
    place = {"root": str(folder / "videos"), "pattern": pattern}
    return {**data, "annotations": write_files(folder, files), "videos": place}, videos


EGTEA_CLIPS = (
    f"{PIZZA}-200-1000-F000003-F000027",
    f"{PIZZA}-500-1500-F000009-F000039",
    f"{SALAD}-300-1100-F000005-F000029",
)


def egtea_labels(folder: Path) -> str:
    first, second, third = EGTEA_CLIPS
    files = {
        "verb_idx.txt": "Take 1\nPut 2\n",
        "noun_idx.txt": "cup 1\nknife 2\npan 3\n",
        "train_split2.txt": f"{first} 1 1 1\n{second} 2 2 3 1\n",
        "test_split2.txt": f"{third} 1 1 1\n",
    }
    return write_files(folder, files)


def egtea_sessions(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Frames of two sessions at 24 fps."""
    for session in (PIZZA, SALAD):
        (folder / "videos" / session).mkdir(parents=True)
        for number in range(1, 49):
            path = folder / "videos" / session / f"frame_{number:010d}.png"
            Image.fromarray(picture(number)).save(path)
    place = {"root": str(folder / "videos"), "pattern": "{video_id}", "kind": "frames"}
    data = {"kind": "egtea", "split": 2, "videos": {**place, "frame_rate_fps": 24}}
    return {**data, "annotations": egtea_labels(folder)}, [PIZZA, SALAD]


def egtea_clips(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Three trimmed files in folders of their sessions."""
    for clip in EGTEA_CLIPS:
        path = folder / "videos" / "-".join(clip.split("-")[:3]) / f"{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, num_frames=31, rate_fps=24)
    place = {"root": str(folder / "videos"), "pattern": "{session_id}/{video_id}.mp4"}
    data = {"kind": "egtea", "split": 2, "clips": "trimmed", "videos": place}
    return {**data, "annotations": egtea_labels(folder)}, list(EGTEA_CLIPS)


Writer = Callable[[Path], tuple[dict[str, Any], list[str]]]


def write_config(folder: Path, data: dict[str, Any], videos: list[str]) -> Path:
    write_boxes(folder / "boxes.csv", videos)
    config = {**settings(folder), "data": data, "engine": {"decode_processes": 0}}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.mark.parametrize(
    ("writer", "clips", "held_out"),
    [
        # Two views of two training segments, one of each other segment.
        (epic55, 4 + 1 + 1 + 2, {"val": ["2"], "test_s1": ["3"], "test_s2": ["4", "5"]}),
        (epic100, 4 + 1 + 1, {"val": ["P18_01_0"], "test": ["P33_101_0"]}),
        (egtea_sessions, 4 + 1, {"val": [EGTEA_CLIPS[2]]}),
        (egtea_clips, 4 + 1, {"val": [EGTEA_CLIPS[2]]}),
    ],
)
def test_from_labels_to_scores(
    writer: Writer, clips: int, held_out: dict[str, list[str]], tmp_path: Path
) -> None:
    config = write_config(tmp_path, *writer(tmp_path))
    assert symbio("plan", config).code == 0
    done = symbio("run", config)
    assert done.code == 0, done.err
    rows = table_rows(symbio("status", config).out, ("stage", "wanted"))
    for stage in ("verb", "aligned"):
        assert {rows[stage][column] for column in ("wanted", "present")} == {str(clips)}
    assert symbio("train", config).code == 0
    run = tmp_path / "runs" / "small-saoa-seed0"
    for split, ids in held_out.items():
        done = symbio("evaluate", run, "--split", split)
        assert done.code == 0, done.err
        folder = run if split == "val" else run / split
        scores = load_scores(folder / "scores.npz")
        assert list(scores.segment_ids) == ids
        np.testing.assert_allclose(scores.verb_scores.sum(axis=1), 1)
        metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
        assert (metrics is None) == split.startswith("test")
        assert ("there is nothing to measure" in done.out) == split.startswith("test")
        assert ("top-1" in done.out) == (split == "val")


def test_all_labelled_rows_train_and_the_test_rows_are_scored(tmp_path: Path) -> None:
    data, videos = epic100(tmp_path)
    config = write_config(tmp_path, {**data, "train_on": "all"}, videos)
    assert symbio("run", config).code == 0
    done = symbio("train", config)
    assert done.code == 0, done.err
    assert " val " not in done.out
    run = tmp_path / "runs" / "small-saoa-seed0"
    done = symbio("evaluate", run)
    assert (done.code, done.out) == (2, "")
    assert "got split 'val', expected one with segments: train, test;" in done.err
    assert symbio("evaluate", run, "--split", "test").code == 0
    assert load_scores(run / "test" / "scores.npz").segment_ids == ("P33_101_0",)


def test_features_are_made_for_the_splits_asked_for_only(tmp_path: Path) -> None:
    data, videos = epic55(tmp_path)
    config = write_config(tmp_path, {**data, "splits": ["val", "test_s2"]}, videos)
    rows = table_rows(symbio("status", config).out, ("stage", "wanted"))
    assert rows["verb"]["wanted"] == "3"
