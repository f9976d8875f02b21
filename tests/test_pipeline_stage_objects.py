from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_fixtures import READING, clip_table, keys_of, make_clip, make_objects_stage

from extractors.given_boxes import GivenBoxesExtractor
from extractors.registry import FRAME_EXTRACTORS, extractor_settings
from pipeline.boxes import BoxFile
from pipeline.config_stages import ObjectsConfig
from pipeline.errors import ConfigError

# Field → (another value, whether the numbers of a row change with it). Which frames are looked at
# is said by the rows, each of which is one frame.
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "detector": ({"detector": {"name": "faster_rcnn", "nms_threshold": 0.3}}, True),
    "top_k": ({"top_k": 4}, True),
    "dtype": ({"dtype": "float32"}, True),
    "rate_fps": ({"rate_fps": 4}, False),
    "times": ({"times": "centred"}, False),
    "precision": ({"precision": "bfloat16"}, True),
    "compile": ({"compile": True}, False),
    "batch_size": ({"batch_size": 3}, False),
    "weights": ({"weights": "elsewhere/w.pt"}, False),
    "weights_seed": ({"weights": "random", "weights_seed": 4}, False),
    "boxes": ({"boxes": "elsewhere/boxes.csv"}, False),  # the boxes of a frame are in its row key
}


def write_boxes(folder: Path, rows: str, name: str = "boxes.csv") -> BoxFile:
    file = folder / name
    file.write_text("video_id,time_seconds,x0,y0,x1,y1,score,noun_class\n" + rows)
    return BoxFile(file)


def test_a_key_made_by_hand() -> None:
    settings = {
        "schema": 1,
        "stage": "objects",
        "version": 1,
        "detector": extractor_settings(FRAME_EXTRACTORS, "faster_rcnn", {}),
        "weights": {"sha256": "ab" * 32},
        "top_k": 5,
        "reading": {"reader": "pyav", "policy": "1", "av": "14.0"},
        "dtype": "float16",
    }
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert make_objects_stage().key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("field", ObjectsConfig.model_fields)
def test_the_key_changes_with_what_decides_the_numbers(field: str) -> None:
    changed, matters = CHANGES[field]
    base: dict[str, Any] = {"detector": {"name": "given_boxes"}, "boxes": "b.csv"}
    base = base if field == "boxes" else {}
    key = make_objects_stage(**base).key
    assert (make_objects_stage(**{**base, **changed}).key != key) is matters


def test_the_key_changes_with_weights_and_reader_and_not_with_the_window() -> None:
    keys = {
        make_objects_stage().key,
        make_objects_stage(weights_settings={"random": 0}).key,
        make_objects_stage(reading={**READING, "policy": "2"}).key,
    }
    assert len(keys) == 3
    assert make_objects_stage(window_seconds=4.0).key in keys


def test_a_detector_at_given_boxes_has_a_key_of_its_own() -> None:
    found, given = make_objects_stage(), make_objects_stage(boxes="b.csv")
    assert given.settings == {**found.settings, "boxes": "given"}


def test_given_boxes_reach_the_detector() -> None:
    detector = {"name": "faster_rcnn", "builder": "fasterrcnn_mobilenet_v3_large_320_fpn"}
    config = {"detector": detector, "weights": "random", "weights_seed": 0}
    assert make_objects_stage(**config, boxes="b.csv").create("cpu").needs_boxes
    assert not make_objects_stage(**config).create("cpu").needs_boxes


def test_an_unknown_detector_names_its_section() -> None:
    with pytest.raises(ConfigError, match=r"^stages\.objects\.detector: got frame extractor 'x'"):
        _ = make_objects_stage(detector={"name": "x"}).key


def test_times_on_the_grid_and_centred() -> None:
    clip = make_clip(centre_us=10_100_000)
    grid = make_objects_stage().times_us(clip)
    assert grid.tolist() == [7_500_000 + 500_000 * i for i in range(12)]
    centred = make_objects_stage(times="centred").times_us(clip)
    assert centred.tolist() == [7_350_000 + 500_000 * i for i in range(12)]
    narrow = make_objects_stage(window_seconds=2.0, rate_fps=1.0).times_us(clip)
    assert narrow.tolist() == [10_000_000, 11_000_000]


def test_neighbouring_clips_share_frames() -> None:
    stage = make_objects_stage()
    clips = [make_clip(centre_us=c) for c in (10_100_000, 10_400_000, 10_600_000)]
    # Windows 7.5–13, 7.5–13 and 8–13.5 s: 13 frames in all.
    rows = stage.rows(clip_table(*clips))
    assert [int(row.times_us[0]) for row in rows] == [7_500_000 + 500_000 * i for i in range(13)]
    assert all(len(row.times_us) == 1 for row in rows)
    wanted = {key for clip in clips for key in keys_of(stage, clip)}
    assert {row.key for row in rows} == wanted
    assert rows[0].clip_id == "P01_01@7.5s"
    assert (rows[0].segment_id, rows[0].view) == ("", 0)


def test_a_frame_is_needed_for_the_segment_that_ends_first() -> None:
    clips = [
        make_clip(segment_id="long", centre_us=10_100_000, stop_seconds=30.0),
        make_clip(segment_id="short", centre_us=11_100_000, stop_seconds=12.0),
    ]
    rows = make_objects_stage().rows(clip_table(*clips))
    needed = {row.clip_id: row.needed_to_seconds for row in rows}
    assert needed["P01_01@8s"] == 30.0  # in the first clip's window only
    assert needed["P01_01@8.5s"] == 12.0
    assert needed["P01_01@14s"] == 12.0


def test_times_before_the_video_are_its_first_frame() -> None:
    stage = make_objects_stage()
    clip = make_clip(centre_us=1_000_000)  # -2 to 3.5 s
    keys = keys_of(stage, clip)
    assert len(keys) == 12
    assert len(set(keys)) == 8
    assert len(set(keys[:5])) == 1  # -2, -1.5, -1, -0.5 and 0 s
    assert [row.key for row in stage.rows(clip_table(clip))] == list(dict.fromkeys(keys))


def test_files_of_equal_content_share_rows() -> None:
    rows = make_objects_stage().rows(
        clip_table(make_clip("P01_01"), make_clip("copy"), make_clip("P01_02"))
    )
    assert len(rows) == 24


def test_given_boxes_are_part_of_the_content(tmp_path: Path) -> None:
    first = "P01_01,8.0,1,2,3,4,0.5,7\n"
    stage = make_objects_stage(box_file=write_boxes(tmp_path, first))
    row = next(row for row in stage.rows(clip_table(make_clip())) if row.clip_id == "P01_01@8s")
    assert row.boxes is not None
    assert row.boxes.boxes_xyxy_px.tolist() == [[1, 2, 3, 4]]
    extra = np.array([1, 2, 3, 4, 0.5], "<f4").tobytes() + np.array([7], "<i4").tobytes()
    times = np.array([8_000_000], "<i8").tobytes()
    content = b"\0".join([b"symbio row", b"11" * 32, times, extra])
    assert row.key == hashlib.sha256(content).hexdigest()


def test_only_the_frames_whose_boxes_change_get_other_keys(tmp_path: Path) -> None:
    rows = "P01_01,8.0,1,2,3,4,0.5,7\nP01_01,9.0,1,2,3,4,0.5,7\n"
    clip = make_clip()

    def keys(content: str, name: str) -> dict[int, str]:
        stage = make_objects_stage(box_file=write_boxes(tmp_path, content, name))
        return {int(row.times_us[0]): row.key for row in stage.rows(clip_table(clip))}

    before = keys(rows, "a.csv")
    after = keys(rows.replace("9.0,1,2,3,4,0.5,7", "9.0,1,2,3,4,0.5,8"), "moved.csv")
    assert [time for time in before if before[time] != after[time]] == [9_000_000]


def test_a_frame_without_boxes_has_a_row_too(tmp_path: Path) -> None:
    stage = make_objects_stage(box_file=write_boxes(tmp_path, "P01_02,1,1,2,3,4,0.5,7\n"))
    rows = stage.rows(clip_table(make_clip("P01_01")))
    assert len(rows) == 12
    assert all(row.boxes is not None and len(row.boxes.scores) == 0 for row in rows)


def test_the_detector_is_built_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        GivenBoxesExtractor, "__init__", lambda self, o, **given: made.update(given)
    )
    settings = {"detector": {"name": "given_boxes", "backbone": "resnet10"}, "boxes": "boxes.csv"}
    make_objects_stage(**settings, precision="bfloat16", compile=True, top_k=3).create("cpu")
    assert made == {
        "weights": Path("w.pt"),
        "seed": None,
        "top_k": 3,
        "given": True,
        "dtype": "float16",
        "device": "cpu",
        "precision": "bfloat16",
        "compile": True,
    }
