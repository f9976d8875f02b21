"""Whole runs with boxes from elsewhere: every detector, files and stores, boxes that cannot be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_fixtures import Silent, make_experiment

from pipeline.config import ExperimentConfig
from pipeline.errors import AnnotationError
from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from stores.registry import open_store

DETECTORS: dict[str, dict[str, Any]] = {
    "given_boxes": {"name": "given_boxes", "backbone": "resnet10", "layer": "layer1"},
    "faster_rcnn": {
        "name": "faster_rcnn",
        "builder": "fasterrcnn_mobilenet_v3_large_320_fpn",
        "min_size_px": 48,
        "max_size_px": 64,
    },
    "detectron2": {
        "name": "detectron2",
        "config": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        "min_size_px": 48,
        "max_size_px": 64,
    },
}


def experiment(folder: Path, detector: dict[str, Any], boxes: Any = "file") -> ExperimentConfig:
    """The small experiment with another detector, and boxes from its file, elsewhere, or none."""
    if detector["name"] == "detectron2":
        pytest.importorskip("detectron2", exc_type=ImportError)
    config = make_experiment(folder)
    values = config.model_dump(mode="json")
    given = str(folder / "boxes.csv") if boxes == "file" else boxes
    values["stages"]["objects"] |= {"detector": detector, "boxes": given, "dtype": "float32"}
    return ExperimentConfig.model_validate(values)


def run(config: ExperimentConfig, stages: Sequence[str] = ("objects",)) -> RunReport:
    return run_experiment(
        resolve(config),
        stages=stages,
        retry_failed=False,
        reporter=Silent(),
        stop=threading.Event(),
    )


def rows_of(config: ExperimentConfig) -> dict[str, dict[str, np.ndarray]]:
    """Clip id → outputs of its row of objects."""
    with open_store(config.store.path) as store:
        generation = store.generation("objects", resolve(config).aligned.objects.key)
        keys = generation.keys()
        arrays = generation.read(keys)
        names = [info.clip_id for info in generation.infos(keys)]
    return {n: {k: values[i] for k, values in arrays.items()} for i, n in enumerate(names)}


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_that_cannot_be_fail_their_frames_and_no_others(tmp_path: Path, name: str) -> None:
    config = experiment(tmp_path, DETECTORS[name])
    boxes = tmp_path / "boxes.csv"
    text = boxes.read_text()
    for good, bad in (
        ("kitchen_a,0.5,4,4,30,30", "kitchen_a,0.5,30,4,4,30"),
        ("kitchen_a,1.0,4,4,30,30", "kitchen_a,1.0,nan,4,30,30"),
        ("kitchen_b,0.5,4,4,30,30", "kitchen_b,0.5,4,4000,30,5000"),
        ("kitchen_b,1.0,4,4,30,30,0.9", "kitchen_b,1.0,4,4,30,30,inf"),
    ):
        assert good in text
        text = text.replace(good, bad)
    boxes.write_text(text)
    report = run(config)
    (stage,) = report.stages
    reasons = {failure.clip_id: failure.message for failure in stage.failures}
    assert sorted(reasons) == [
        "kitchen_a@0.5s", "kitchen_a@1s", "kitchen_b@0.5s", "kitchen_b@1s",
    ]  # fmt: skip
    assert "inverted or empty" in reasons["kitchen_a@0.5s"]
    line = 1 + text[: text.index("kitchen_a,0.5,30,4,4,30")].count("\n")
    place = f"got box 0 of video kitchen_a at 0.5 s in {boxes}, line {line}: [30.0, "
    assert reasons["kitchen_a@0.5s"].startswith(place)
    assert "not finite" in reasons["kitchen_a@1s"]
    assert "outside the" in reasons["kitchen_b@0.5s"]
    assert "not finite" in reasons["kitchen_b@1s"]
    rows = rows_of(config)
    assert len(rows) == 6
    for row in rows.values():
        assert row["count"] == 2
        assert row["boxes_xyxy_px"][:2].tolist() == [[4, 4, 30, 30], [20, 10, 60, 44]]
        assert row["features"][:2].any(axis=1).all()


@pytest.mark.parametrize("name", ["given_boxes", "faster_rcnn"])
def test_boxes_of_a_store_are_as_good_as_a_files(tmp_path: Path, name: str) -> None:
    detector = DETECTORS[name]
    by_file = experiment(tmp_path, detector)
    run(by_file)
    expected = rows_of(by_file)
    boxes = {"store": str(by_file.store.path)}
    again = experiment(tmp_path, detector, boxes)
    assert run(again).stages[0].made == 0  # the same boxes are the same rows
    elsewhere = again.model_copy(
        update={"store": again.store.model_copy(update={"path": tmp_path / "other"})}
    )
    assert run(elsewhere).stages[0].made == len(expected) == 10
    found = rows_of(elsewhere)
    assert found.keys() == expected.keys()
    for clip_id, row in expected.items():
        for output, values in row.items():
            np.testing.assert_allclose(found[clip_id][output], values, atol=1e-4)


def test_what_one_detector_found_another_describes(tmp_path: Path) -> None:
    finder = {**DETECTORS["faster_rcnn"], "score_threshold": 0.0}
    finding = experiment(tmp_path, finder, boxes=None)
    run(finding)
    found = rows_of(finding)
    assert all(row["count"] > 0 for row in found.values())
    boxes = {"store": str(finding.store.path), "key": resolve(finding).aligned.objects.key[:12]}
    described = experiment(tmp_path, DETECTORS["given_boxes"], boxes)
    report = run(described)
    assert report.stages[0].failures == []
    for clip_id, row in rows_of(described).items():
        np.testing.assert_array_equal(row["boxes_xyxy_px"], found[clip_id]["boxes_xyxy_px"])
        assert row["features"].shape == (3, 64)


def test_no_detections_are_rows_too(tmp_path: Path) -> None:
    config = experiment(tmp_path, {**DETECTORS["faster_rcnn"], "score_threshold": 1.0}, boxes=None)
    report = run(config, ("verb", "noun", "objects", "aligned"))
    assert report.complete
    assert all(row["count"] == 0 for row in rows_of(config).values())


def test_a_store_that_knows_other_videos_is_refused(tmp_path: Path) -> None:
    config = experiment(tmp_path, DETECTORS["given_boxes"])
    run(config)
    labels, videos = tmp_path / "labels.csv", tmp_path / "videos"
    labels.write_text(labels.read_text().replace("kitchen_b", "kitchen_c"))
    (videos / "kitchen_b.mp4").rename(videos / "kitchen_c.mp4")
    boxes = {"store": str(config.store.path)}
    with pytest.raises(AnnotationError, match=r"got no row for 1 labelled videos \(kitchen_c\)"):
        resolve(experiment(tmp_path, DETECTORS["given_boxes"], boxes))
