from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.base import GivenBoxes, object_outputs
from extractors.objects import pack_objects
from pipeline import boxes_store
from pipeline.boxes import BoxFile
from pipeline.boxes_store import BoxStore, load_boxes
from pipeline.config_stages import BoxStoreConfig
from pipeline.errors import AnnotationError, ConfigError
from stores import ArraySpec, Row, RowInfo, open_store
from stores.base import FeatureStore

K = 3
FRAME = np.zeros((48, 64, 3), np.uint8)
SPECS = {name: ArraySpec(**vars(spec)) for name, spec in object_outputs(K, 2, "float32").items()}
KEY, OTHER_KEY = "ab" * 32, "cd" * 32


def objects(n: int, first: float = 0.0) -> GivenBoxes:
    corners = np.array([[first + i, i, first + i + 9, i + 8] for i in range(n)], np.float32)
    scores = np.linspace(0.9, 0.5, n, dtype=np.float32)
    return GivenBoxes(corners.reshape(n, 4), scores, np.arange(5, 5 + n, dtype=np.int32))


def row(video_id: str, seconds: float, found: GivenBoxes, *, content: str = "") -> Row:
    values = pack_objects(np.ones((len(found.scores), 2), np.float32), found, FRAME, K)
    name = f"{video_id}@{seconds:g}s"
    key = hashlib.sha256(f"{name}{content}".encode()).hexdigest()
    return Row(key, values, RowInfo(name, video_id, first_seconds=seconds, last_seconds=seconds))


def write(
    folder: Path, rows: Sequence[Row], *, key: str = KEY, stage: str = "objects", **changes: Any
) -> None:
    with open_store(folder, mode="a") as store:
        generation: FeatureStore = store.generation(stage, key, {**SPECS, **changes})
        if rows:
            generation.append(rows)


def open_boxes(folder: Path, **config: Any) -> BoxStore:
    return BoxStore(BoxStoreConfig(store=folder, **config))


def test_boxes_are_those_of_the_rows(tmp_path: Path) -> None:
    frames = {("a", 1.5): 2, ("b", 0.0): 3, ("a", 0.0): 1, ("a", 0.5): 0}
    found = {place: objects(n, first=10 * i) for i, (place, n) in enumerate(frames.items())}
    write(tmp_path / "store", [row(*place, boxes) for place, boxes in found.items()])
    boxes = open_boxes(tmp_path / "store")
    assert sorted(boxes.video_ids()) == ["a", "b"]
    for (video_id, seconds), expected in found.items():
        given = boxes.at(video_id, round(seconds * 1e6))
        assert given.boxes_xyxy_px.tolist() == expected.boxes_xyxy_px.tolist()
        assert given.scores.tolist() == expected.scores.tolist()
        assert given.classes.tolist() == expected.classes.tolist()
        assert given.frame_size_px == (64, 48)
        assert given.source == f"video {video_id} at {seconds:g} s in {tmp_path / 'store'}"
        assert given.lines is None
        types = (given.boxes_xyxy_px.dtype, given.scores.dtype, given.classes.dtype)
        assert types == (np.float32, np.float32, np.int32)
    assert boxes.times_us("a").tolist() == [0, 1_500_000]  # at 0.5 s somebody looked in vain
    assert boxes.times_us("c").tolist() == []


def test_times_may_be_rounded_and_far_ones_have_no_boxes(tmp_path: Path) -> None:
    write(tmp_path, [row("a", 0.333, objects(1)), row("a", 0.4, objects(0))])
    boxes = open_boxes(tmp_path)
    assert len(boxes.at("a", 333_333).scores) == 1
    assert len(boxes.at("a", 308_000).scores) == 1
    assert len(boxes.at("a", 307_999).scores) == 0
    assert len(boxes.at("a", 380_000).scores) == 0  # nearest to the frame without boxes
    assert len(boxes.at("b", 333_333).scores) == 0


def test_more_rows_than_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes_store, "ROWS_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    counts = {(video, t / 2): int(rng.integers(K + 1)) for video in "ab" for t in range(10)}
    places = [list(counts)[i] for i in rng.permutation(len(counts))]
    write(tmp_path, [row(*p, objects(counts[p], first=p[1] * 2)) for p in places])
    boxes = open_boxes(tmp_path)
    for (video, seconds), n in counts.items():
        expected = objects(n, first=seconds * 2).boxes_xyxy_px
        assert np.array_equal(boxes.at(video, int(seconds * 1e6)).boxes_xyxy_px, expected)


def test_of_two_rows_of_a_frame_the_later_counts(tmp_path: Path) -> None:
    write(tmp_path, [row("a", 0.5, objects(1), content="old"), row("a", 1.0, objects(1))])
    write(tmp_path, [row("a", 0.5, objects(2), content="new")])
    assert len(open_boxes(tmp_path).at("a", 500_000).scores) == 2


def test_a_generation_by_its_key(tmp_path: Path) -> None:
    write(tmp_path, [row("a", 0.5, objects(1))])
    write(tmp_path, [row("a", 0.5, objects(2))], key=OTHER_KEY)
    write(tmp_path, [row("a", 0.5, objects(3))], key=OTHER_KEY, stage="found")
    assert len(open_boxes(tmp_path, key="ab").at("a", 500_000).scores) == 1
    assert len(open_boxes(tmp_path, key=OTHER_KEY).at("a", 500_000).scores) == 2
    assert len(open_boxes(tmp_path, stage="found").at("a", 500_000).scores) == 3
    with pytest.raises(ConfigError) as caught:
        open_boxes(tmp_path)
    assert str(caught.value) == (
        f"stages.objects.boxes: {tmp_path}: got 2 generations of stage 'objects', expected one; "
        "give stages.objects.boxes.key: the store has abababababab, cdcdcdcdcdcd"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"key": "ff"}, "got 0 generations of stage 'objects' under a key that starts with ff, "),
        ({"stage": "verb"}, "got 0 generations of stage 'verb', expected one; .* the store has no"),
        ({"stage": "maps"}, "got stage 'maps' without boxes_xyxy_px, scores, classes, count, fr"),
        (
            {"store": Path("/nowhere/at/all")},
            "^stages.objects.boxes: /nowhere/at/all: got no store",
        ),
    ],
)
def test_what_is_not_there(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write(tmp_path, [row("a", 0.5, objects(1))])
    with open_store(tmp_path, mode="a") as store:
        store.generation("maps", KEY, {"map": ArraySpec(("x",), (1,), "float32")})
    with pytest.raises(ConfigError, match=message):
        BoxStore(BoxStoreConfig(**{"store": tmp_path, **config}))


def test_a_stage_without_rows_has_no_videos(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert open_boxes(tmp_path).video_ids() == []


def test_damaged_rows_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, [row("a", 0.5, objects(2))])
    (shard,) = [p for p in tmp_path.rglob("c.0*") if "boxes_xyxy_px" in str(p)]
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ConfigError, match=r"stages\.objects\.boxes: .*checksum"):
        open_boxes(tmp_path)


def test_a_count_that_cannot_be(tmp_path: Path) -> None:
    wrong = row("a", 0.5, objects(2))
    wrong.arrays["count"] = np.array(K + 1, np.int32)
    write(tmp_path, [row("b", 0.5, objects(2)), wrong])
    with pytest.raises(AnnotationError, match=r"got 4 boxes in row a@0.5s, expected 0 to 3"):
        open_boxes(tmp_path)


def test_a_file_or_a_store(tmp_path: Path) -> None:
    write(tmp_path / "store", [row("a", 0.5, objects(2))])
    (tmp_path / "a.csv").write_text("video_id,time_seconds,x0,y0,x1,y1,score,noun_class\n")
    assert isinstance(load_boxes(tmp_path / "a.csv"), BoxFile)
    assert isinstance(load_boxes(BoxStoreConfig(store=tmp_path / "store")), BoxStore)
