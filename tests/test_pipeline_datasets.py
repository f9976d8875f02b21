from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heads.protocols import Protocol
from pipeline.config_data import CsvData, ToyKitchenData
from pipeline.datasets import load_dataset, videos_config
from pipeline.errors import AnnotationError
from pipeline.segments import UNLABELLED, Dataset, Segment, check_segments

HEADER = "video_id,start_seconds,stop_seconds,verb_class,noun_class,split\n"


def csv_data(folder: Path, content: str, **more: Any) -> CsvData:
    file = folder / "labels.csv"
    file.write_text(content, encoding="utf-8")
    settings = {"kind": "csv", "annotations": file, "videos": {"root": folder}, **more}
    return CsvData.model_validate({"verbs": 3, "nouns": ["cup", "pan"], **settings})


def load(folder: Path, content: str, **more: Any) -> Dataset:
    return load_dataset(csv_data(folder, content, **more))


def refused(folder: Path, content: str, **more: Any) -> str:
    with pytest.raises(AnnotationError) as caught:
        load(folder, content, **more)
    return str(caught.value).removeprefix(f"{folder}/")


class TestCsv:
    def test_the_columns_that_must_be(self, tmp_path: Path) -> None:
        dataset = load(tmp_path, HEADER + "a,0.5,2,1,0,train\nb,0,1.25,2,1,val\n")
        assert dataset.segments == [
            Segment("a_0", "a", "", 0.5, 2.0, 1, 0, "train", ""),
            Segment("b_1", "b", "", 0.0, 1.25, 2, 1, "val", ""),
        ]
        assert dataset.verb_names == ("0", "1", "2")
        assert dataset.noun_names == ("cup", "pan")
        assert dataset.promised_seconds == {}
        assert dataset.split("val") == [dataset.segments[1]]

    def test_the_columns_that_may_be(self, tmp_path: Path) -> None:
        content = (
            "narration,segment_id,participant_id,video_id,start_seconds,stop_seconds,"
            'verb_class,noun_class,split\n"pour, stir",s1,P07,a,0,1,0,0,test\n'
        )
        assert load(tmp_path, content).segments == [
            Segment("s1", "a", "P07", 0.0, 1.0, 0, 0, "test", "pour, stir")
        ]

    def test_ids_made_up_stay_when_rows_are_added(self, tmp_path: Path) -> None:
        rows = [f"{video},{i},{i + 1},0,0,train\n" for i, video in enumerate("aabab")]
        before = load(tmp_path, HEADER + "".join(rows[:3])).segments
        after = load(tmp_path, HEADER + "".join(rows)).segments
        assert after[:3] == before
        assert [s.segment_id for s in after] == ["a_0", "a_1", "b_2", "a_3", "b_4"]

    def test_ids_made_up_differ_whatever_the_videos_are_called(self, tmp_path: Path) -> None:
        videos = ("a", "a_1", "a_1_2", "a_1", "a", "a_1_2")
        rows = "".join(f"{video},0,1,0,0,train\n" for video in videos)
        ids = [segment.segment_id for segment in load(tmp_path, HEADER + rows).segments]
        assert len(set(ids)) == 6

    def test_ids_made_up_do_not_take_a_given_one(self, tmp_path: Path) -> None:
        header = f"segment_id,{HEADER}"
        message = refused(tmp_path, header + ",a,0,1,0,0,train\na_0,a,1,2,0,0,train\n")
        assert message == (
            "labels.csv:3: segment 'a_0' of video 'a': this segment id is that of "
            "labels.csv:2 already; give every row an id of its own"
        )

    def test_ids_may_be_given_for_some_rows(self, tmp_path: Path) -> None:
        header = f"segment_id,{HEADER}"
        dataset = load(tmp_path, header + " ,a,0,1,0,0,train\n x ,a,1,2,0,0,train\n")
        assert [s.segment_id for s in dataset.segments] == ["a_0", "x"]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("a,2,1,0,0,train", "got start 2.0 s and stop 1.0 s, expected stop after start"),
            ("a,1,1,0,0,train", "got start 1.0 s and stop 1.0 s, expected stop after start"),
            ("a,-0.1,1,0,0,train", "got start -0.1 s, expected >= 0"),
            ("a,0,1,3,0,train", "got verb_class 3, expected 0 to 2 (3 classes)"),
            ("a,0,1,-1,0,train", "got verb_class -1, expected 0 to 2 (3 classes)"),
            ("a,0,1,0,2,train", "got noun_class 2, expected 0 to 1 (2 classes)"),
            ("a,0,1,0,0,dev", "got split 'dev', expected one of train, val, test"),
            ("a,0,1,0,0,", "got split '', expected one of train, val, test"),
            ("a,nan,1,0,0,train", "got start_seconds 'nan', expected a number"),
            ("a,0,inf,0,0,train", "got stop_seconds 'inf', expected a number"),
            ("a,0,x,0,0,train", "got stop_seconds 'x', expected a number"),
            ("a,0,1,take,0,train", "got verb_class 'take', expected a whole number"),
            ("a,0,1,0,0.0,train", "got noun_class '0.0', expected a whole number"),
            (" ,0,1,0,0,train", "video_id is empty"),
            ("a\x1b,0,1,0,0,train", "expected printable text of at most 120 bytes"),
            ("é" * 61 + ",0,1,0,0,train", "expected printable text of at most 120 bytes"),
            ("a,0,1,0,0", "got 5 fields, expected the header's 6"),
        ],
    )
    def test_what_cannot_be(self, tmp_path: Path, row: str, message: str) -> None:
        got = refused(tmp_path, f"{HEADER}ok,0,1,0,0,train\n{row}\n")
        assert got.startswith("labels.csv:3: ")
        assert got.endswith(message)

    @pytest.mark.parametrize("content", [HEADER, HEADER + "\n\n"])
    def test_a_file_without_rows(self, tmp_path: Path, content: str) -> None:
        assert refused(tmp_path, content) == "labels.csv: got no rows, expected one per segment"

    def test_a_missing_column_and_an_empty_file(self, tmp_path: Path) -> None:
        assert "missing: split" in refused(tmp_path, HEADER.replace(",split", ""))
        assert "got the columns (none)" in refused(tmp_path, "")


class TestUnlabelled:
    def test_rows_of_test_may_be_without_classes(self, tmp_path: Path) -> None:
        rows = "a,0,1,1,0,train\na,1,2,,,test\na,2,3, , ,test\n"
        dataset = load(tmp_path, HEADER + rows)
        assert [(s.verb_class, s.noun_class) for s in dataset.segments] == [
            (1, 0),
            (UNLABELLED, UNLABELLED),
            (UNLABELLED, UNLABELLED),
        ]
        assert [s.labelled for s in dataset.segments] == [True, False, False]
        assert dataset.splits == ("train", "test")

    @pytest.mark.parametrize(("first", "second"), [("1,0", ","), (",", "1,0")])
    def test_some_of_test_may_not(self, tmp_path: Path, first: str, second: str) -> None:
        got = refused(tmp_path, f"{HEADER}a,0,1,0,0,val\na,0,1,{first},test\na,1,2,{second},test\n")
        labels = "no labels" if second == "," else "labels"
        assert got == (
            f"labels.csv:4: segment 'a_2': got {labels} in split 'test', expected all or none to "
            "have them, as in labels.csv:3"
        )

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("a,0,1,,,train", "got verb_class '', expected a whole number"),
            ("a,0,1,,,val", "got verb_class '', expected a whole number"),
            ("a,0,1,,0,test", "got verb_class '', expected a whole number"),
            ("a,0,1,0,,test", "got noun_class '', expected a whole number"),
            ("a,0,1,-1,-1,val", "got verb_class -1, expected 0 to 2 (3 classes)"),
            ("a,0,1,0,-1,test", "got noun_class -1, expected 0 to 1 (2 classes)"),
        ],
    )
    def test_nothing_else_may(self, tmp_path: Path, row: str, message: str) -> None:
        got = refused(tmp_path, f"{HEADER}{row}\n")
        assert got.startswith("labels.csv:2: ")
        assert got.endswith(message)


class TestOnly:
    ROWS = f"segment_id,{HEADER}" + "".join(
        f"s{i},{video},{i},{i + 1},0,0,train\n" for i, video in enumerate("aabbc")
    )

    @pytest.mark.parametrize(
        ("only", "ids"),
        [
            ({}, ["s0", "s1", "s2", "s3", "s4"]),
            ({"video_ids": ["c", "a"]}, ["s0", "s1", "s4"]),
            ({"segment_ids": ["s3", "s0"]}, ["s0", "s3"]),
            ({"video_ids": ["b"], "segment_ids": ["s3"]}, ["s3"]),
        ],
    )
    def test_what_is_kept(self, tmp_path: Path, only: dict[str, Any], ids: list[str]) -> None:
        dataset = load(tmp_path, self.ROWS, only=only)
        assert [segment.segment_id for segment in dataset.segments] == ids
        assert dataset.noun_names == ("cup", "pan")

    @pytest.mark.parametrize(
        ("only", "message"),
        [
            ({"video_ids": ["x", "a", "d"]}, "data.only.video_ids: no segment has video_id d, x"),
            ({"segment_ids": ["s9"]}, "data.only.segment_ids: no segment has segment_id s9"),
            (
                {"video_ids": ["a"], "segment_ids": ["s3"]},
                "data.only.segment_ids: no segment has segment_id s3",
            ),
        ],
    )
    def test_ids_that_name_nothing(
        self, tmp_path: Path, only: dict[str, Any], message: str
    ) -> None:
        assert refused(tmp_path, self.ROWS, only=only).startswith(message)


def test_check_segments_looks_at_every_segment() -> None:
    good = {f"f:{i}": Segment(f"s{i}", "v", "", 0, 1, 0, 0, "train") for i in range(2, 9)}
    check_segments(good, num_verbs=1, num_nouns=1)
    bad = Segment("s9", "v", "", 0, 1, 0, 1, "train")
    with pytest.raises(AnnotationError, match=r"^f:9: segment 's9' of video 'v': got noun_class 1"):
        check_segments({**good, "f:9": bad}, num_verbs=1, num_nouns=1)


def test_the_toy_kitchens_videos_lie_like_epics(tmp_path: Path) -> None:
    data = ToyKitchenData.model_validate({"kind": "toy_kitchen", "folder": tmp_path})
    config = videos_config(data)
    assert (config.root, config.pattern) == (tmp_path, "{participant_id}/{video_id}.MP4")


def test_the_toy_kitchen_has_no_official_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = (
        "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,verb_class,noun_class"
    )
    files = {
        "train_action_labels": f"{labels}\n"
        + "".join(
            f"{i},{'P26' if i > 101 else 'P01'},v,take,00:00:00,00:00:01,0,0\n" for i in range(103)
        ),
        "verb_classes": "verb_id,class_key\n0,take\n",
        "noun_classes": "noun_id,class_key\n0,cup\n",
    }

    def render(folder: Path, **counts: int) -> None:
        assert counts == {"seed": 3, "num_train_segments": 102, "num_val_segments": 1}
        for name, content in files.items():
            (folder / f"EPIC_{name}.csv").write_text(content)

    monkeypatch.setattr("pipeline.toy_kitchen.render_toy_kitchen", render)
    data = ToyKitchenData(
        kind="toy_kitchen", folder=tmp_path, seed=3, train_segments=102, val_segments=1
    )
    dataset = load_dataset(data)
    assert dataset.splits == ("train", "val")
    assert dataset.protocol == Protocol("plain")
