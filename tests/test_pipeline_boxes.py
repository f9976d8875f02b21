from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.boxes import BoxFile
from pipeline.errors import AnnotationError

HEADER = "video_id,time_seconds,x0,y0,x1,y1,score,noun_class\n"


def load(folder: Path, rows: str, header: str = HEADER) -> BoxFile:
    file = folder / "boxes.csv"
    file.write_text(header + rows)
    return BoxFile(file)


def test_boxes_of_one_frame(tmp_path: Path) -> None:
    boxes = load(
        tmp_path,
        "a,0.5,1.5,2,30.25,40,0.75,3\n"
        "b,0.5,9,9,10,10,0.1,9\n"
        "a,1.0,5,6,7,8,0.5,4\n"
        "a,0.5,0,0,456,256,1,0\n",
    )
    found = boxes.at("a", 500_000)
    assert found.boxes_xyxy_px.tolist() == [[1.5, 2, 30.25, 40], [0, 0, 456, 256]]
    assert found.scores.tolist() == [0.75, 1.0]
    assert found.classes.tolist() == [3, 0]
    assert found.boxes_xyxy_px.dtype == np.float32
    assert found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32
    assert boxes.at("a", 1_000_000).classes.tolist() == [4]
    assert boxes.at("b", 500_000).classes.tolist() == [9]


def test_boxes_say_where_they_are_from(tmp_path: Path) -> None:
    rows = "a,1.0,1,2,3,4,0.5,0\nb,7.25,1,2,3,4,0.5,0\n\na,1.0,5,6,7,8,0.5,0\n"
    boxes = load(tmp_path, rows)
    found = boxes.at("a", 1_010_000)
    assert found.source == f"video a at 1 s in {tmp_path / 'boxes.csv'}"
    assert found.lines is not None
    assert found.lines.tolist() == [2, 5]
    assert boxes.at("b", 7_250_000).source.startswith("video b at 7.25 s in ")


def test_boxes_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"a,{time},0,0,1,1,{score},{i}\n" for i, (time, score) in enumerate(
        [(1, 0.1), (0, 0.9), (1, 0.9), (1, 0.5), (0, 0.1)]
    ))  # fmt: skip
    boxes = load(tmp_path, rows)
    assert boxes.at("a", 1_000_000).classes.tolist() == [0, 2, 3]
    assert boxes.at("a", 0).classes.tolist() == [1, 4]


def test_no_rows_mean_no_objects(tmp_path: Path) -> None:
    boxes = load(tmp_path, "a,0.5,1,2,3,4,0.75,3\n")
    for video_id, time_us in (("a", 0), ("a", 1_000_000), ("unknown", 500_000)):
        found = boxes.at(video_id, time_us)
        assert found.boxes_xyxy_px.shape == (0, 4)
        assert found.scores.shape == found.classes.shape == (0,)
    assert len(load(tmp_path, "").at("a", 500_000).scores) == 0


@pytest.mark.parametrize(
    ("written", "time_us", "is_found"),
    [
        ("0.333", 333_333, True),  # a third of a second, rounded to milliseconds
        ("0.667", 666_667, True),
        ("0.5005", 500_000, True),  # a frame of 29.97 a second, seen from the half-second grid
        ("0.5", 475_000, True),
        ("0.5", 525_000, True),
        ("0.5", 474_999, False),
        ("0.5", 525_001, False),
        ("3600.0", 3_600_000_000, True),
    ],
)
def test_times_may_be_rounded(tmp_path: Path, written: str, time_us: int, is_found: bool) -> None:
    boxes = load(tmp_path, f"a,{written},1,2,3,4,0.75,3\n")
    assert len(boxes.at("a", time_us).scores) == int(is_found)


def test_the_nearest_boxed_time_alone_gives_its_boxes(tmp_path: Path) -> None:
    boxes = load(tmp_path, "a,0.49,1,2,3,4,0.75,3\na,0.505,5,6,7,8,0.5,1\na,0.505,5,6,9,9,0.4,2\n")
    assert boxes.at("a", 500_000).classes.tolist() == [1, 2]
    assert boxes.at("a", 490_000).classes.tolist() == [3]


def test_videos_and_their_times(tmp_path: Path) -> None:
    rows = "".join(f"{v},{t},0,0,1,1,1,0\n" for v, t in [("b", 2), ("a", 1.5), ("b", 0), ("b", 2)])
    boxes = load(tmp_path, rows)
    assert boxes.video_ids() == ["b", "a"]
    assert boxes.times_us("b").tolist() == [0, 2_000_000]
    assert boxes.times_us("a").tolist() == [1_500_000]
    assert boxes.times_us("c").tolist() == []
    assert boxes.times_us("b").dtype == np.int64


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,nan,1,2,3,4,0.75,3", "got time_seconds 'nan', expected a number"),
        ("a,-0.5,1,2,3,4,0.75,3", "got time_seconds -0.5, expected 0 or more"),
        ("a,0,1,2,3,x,0.75,3", "got y1 'x', expected a number"),
        ("a,inf,1,2,3,4,0.75,3", "got time_seconds 'inf', expected a number"),
        ("a,0,1,2,3,4,,3", "got score '', expected a number"),
        ("a,0,1,2,3,4,0.75,3.0", "got noun_class '3.0', expected a whole number"),
        ("a,0,1,2,3,4,0.75,-1", "got noun_class -1, expected 0 or more"),
        (",0,1,2,3,4,0.75,3", "video_id is empty"),
        ("a,0,1,2,3,4,0.75", "got 7 fields, expected the header's 8"),
    ],
)
def test_what_cannot_be(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        load(tmp_path, f"a,0,1,2,3,4,1,0\n{row}\n")
    assert str(caught.value) == f"{tmp_path}/boxes.csv:3: {message}"


def test_numbers_that_no_box_can_have_are_left_to_its_frame(tmp_path: Path) -> None:
    boxes = load(tmp_path, "a,0,nan,2,inf,4,NaN,3\na,1,1,2,3,4,0.5,3\n")
    found = boxes.at("a", 0)
    assert np.isnan(found.boxes_xyxy_px[0, 0])
    assert np.isinf(found.boxes_xyxy_px[0, 2])
    assert np.isnan(found.scores[0])
    assert boxes.at("a", 1_000_000).boxes_xyxy_px.tolist() == [[1, 2, 3, 4]]


def test_a_column_that_is_absent(tmp_path: Path) -> None:
    header = "video_id,time_seconds,x,y,w,h,score,noun_class\n"
    with pytest.raises(AnnotationError, match=r"missing: x0, y0, x1, y1$"):
        load(tmp_path, "a,0,1,2,3,4,1,0\n", header)


def test_more_columns_in_any_order(tmp_path: Path) -> None:
    header = "noun_class,note,score,y1,x1,y0,x0,time_seconds,video_id\n"
    found = load(tmp_path, "7,hello,0.5,4,3,2,1,0.25,a\n", header).at("a", 250_000)
    assert found.boxes_xyxy_px.tolist() == [[1, 2, 3, 4]]
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.5], [7])


def test_many_boxes(tmp_path: Path) -> None:
    # One video of 2,000 frames with 20 boxes each: every look-up finds its own.
    rows = "".join(f"a,{t / 2},0,0,{t + 1},1,1,{k}\n" for t in range(2000) for k in range(20))
    boxes = load(tmp_path, rows)
    assert len(boxes.times_us("a")) == 2000
    for step in range(0, 2000, 7):
        found = boxes.at("a", step * 500_000)
        assert found.classes.tolist() == list(range(20))
        assert set(found.boxes_xyxy_px[:, 2]) == {step + 1}


def test_frames_without_boxes_are_counted_as_they_are_found(tmp_path: Path) -> None:
    choose = np.random.default_rng(3)
    written = np.sort(choose.integers(0, 4000, 60)) / 1000
    boxes = load(tmp_path, "".join(f"a,{t},0,0,1,1,1,0\n" for t in written))
    # A frame that somebody looked at and saw nothing in.
    boxes._videos["a"].starts[1:3] = boxes._videos["a"].starts[2]
    times_us = choose.integers(0, 4_200_000, 500)
    expected = sum(len(boxes.at("a", int(time)).scores) == 0 for time in times_us)
    assert 0 < expected < 500
    assert boxes.count_without("a", times_us) == expected
    assert boxes.count_without("b", times_us) == 500
