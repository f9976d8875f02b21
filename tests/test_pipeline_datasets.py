from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_data import CsvData, Epic55Data, ToyKitchenData
from pipeline.datasets import load_dataset, load_epic55, videos_config
from pipeline.errors import AnnotationError
from pipeline.segments import Dataset, Segment, check_segments

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
            "labels.csv:3: segment 'a_0' of video 'a': this segment id is that of line 2 already; "
            "give every row an id of its own"
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


EPIC_HEADER = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,verb_class,noun_class\n"
)


def epic_folder(folder: Path, rows: str, *, verbs: str = "0,take,x\n1,put,y\n") -> Path:
    (folder / "EPIC_train_action_labels.csv").write_text(EPIC_HEADER + rows)
    (folder / "EPIC_verb_classes.csv").write_text("verb_id,class_key,verbs\n" + verbs)
    (folder / "EPIC_noun_classes.csv").write_text("noun_id,class_key,nouns\n1,pan,p\n0,cup,c\n")
    return folder


class TestEpic55:
    def test_official_labels(self, test_data: Path) -> None:
        dataset = load_epic55(test_data / "annotations" / "epic55")
        assert len(dataset.segments) == 28_472
        assert (len(dataset.verb_names), len(dataset.noun_names)) == (125, 352)
        assert Counter(s.split for s in dataset.segments) == {"train": 23_191, "val": 5_281}
        assert dataset.segments[0] == Segment(
            "0", "P01_01", "P01", 0.14, 3.37, 2, 8, "train", "open door"
        )
        assert (dataset.verb_names[2], dataset.noun_names[8]) == ("open", "cupboard")
        assert dataset.promised_seconds["P01_01"] == 1652.152817
        train, val = dataset.split("train"), dataset.split("val")
        assert {s.participant_id for s in val} == {"P26", "P27", "P28", "P29", "P30", "P31"}
        assert max(s.participant_id for s in train) == "P25"
        assert len({s.verb_class for s in dataset.segments}) == 119
        assert len({s.noun_class for s in dataset.segments}) == 321
        pairs = {(s.verb_class, s.noun_class) for s in dataset.segments}
        assert len(pairs) == 2_513

    def test_only_some_videos_of_it(self, test_data: Path) -> None:
        data = Epic55Data.model_validate(
            {
                "kind": "epic55",
                "annotations": test_data / "annotations" / "epic55",
                "videos": {"root": "videos"},
                "only": {"video_ids": ["P01_01"], "segment_ids": ["1", "0"]},
            }
        )
        assert [s.narration for s in load_dataset(data).segments] == ["open door", "turn on light"]
        assert videos_config(data) is data.videos

    def test_times_and_splits(self, tmp_path: Path) -> None:
        rows = (
            "7,P25,P25_01,wash,00:00:00.14,01:02:03.45,0,1\n"
            "8,P26,P26_01,dry,00:59:59.999999,01:00:00,1,0\n"
        )
        dataset = load_epic55(epic_folder(tmp_path, rows))
        first, second = dataset.segments
        assert (first.start_seconds, first.stop_seconds, first.split) == (0.14, 3723.45, "train")
        assert (second.start_seconds, second.stop_seconds) == (3599.999999, 3600.0)
        assert second.split == "val"
        assert dataset.noun_names == ["cup", "pan"]  # by id, not by line
        assert dataset.promised_seconds == {}

    @pytest.mark.parametrize(
        "clock", ["", "3.5", "00:03.5", "00:60:00", "00:00:60", "a:b:c", "0:0:nan", "00:00:00:01"]
    )
    def test_times_that_are_none(self, tmp_path: Path, clock: str) -> None:
        folder = epic_folder(tmp_path, f"7,P25,P25_01,wash,{clock},01:02:03.45,0,1\n")
        with pytest.raises(AnnotationError, match=r"labels\.csv:2: got start_timestamp "):
            load_epic55(folder)

    @pytest.mark.parametrize("participant", ["X01", "P", "P1x", "P²", "01"])
    def test_participants_that_are_none(self, tmp_path: Path, participant: str) -> None:
        folder = epic_folder(tmp_path, f"7,{participant},v,wash,00:00:00,00:00:01,0,1\n")
        with pytest.raises(AnnotationError, match=r"labels\.csv:2: got participant_id"):
            load_epic55(folder)

    @pytest.mark.parametrize(
        ("verbs", "message"),
        [
            ("0,take,x\n2,put,y\n", "expected verb_id to count 0, 1, 2, … without gaps"),
            ("0,take,x\n1,put,y\n1,cut,z\n", r"classes\.csv:4: got verb_id 1 a second time"),
            ("0,take,x\none,put,y\n", r"classes\.csv:3: got verb_id 'one'"),
        ],
    )
    def test_class_files_with_errors(self, tmp_path: Path, verbs: str, message: str) -> None:
        folder = epic_folder(tmp_path, "7,P25,v,wash,00:00:00,00:00:01,0,1\n", verbs=verbs)
        with pytest.raises(AnnotationError, match=message):
            load_epic55(folder)

    def test_a_class_out_of_range_names_the_line(self, tmp_path: Path) -> None:
        rows = "7,P25,v,a,00:00:00,00:00:01,0,1\n8,P25,v,b,00:00:00,00:00:01,0,2\n"
        with pytest.raises(AnnotationError, match=r"labels\.csv:3: segment '8'.* got noun_class 2"):
            load_epic55(epic_folder(tmp_path, rows))


def test_check_segments_looks_at_every_segment() -> None:
    good = {line: Segment(f"s{line}", "v", "", 0, 1, 0, 0, "train") for line in range(2, 9)}
    check_segments(good, num_verbs=1, num_nouns=1, source=Path("f"))
    bad = Segment("s9", "v", "", 0, 1, 0, 1, "train")
    with pytest.raises(AnnotationError, match=r"^f:9: segment 's9' of video 'v': got noun_class 1"):
        check_segments({**good, 9: bad}, num_verbs=1, num_nouns=1, source=Path("f"))


def test_the_toy_kitchens_videos_lie_like_epics(tmp_path: Path) -> None:
    data = ToyKitchenData.model_validate({"kind": "toy_kitchen", "folder": tmp_path})
    config = videos_config(data)
    assert (config.root, config.pattern) == (tmp_path, "{participant_id}/{video_id}.MP4")
