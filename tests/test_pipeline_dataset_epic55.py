from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config_data import Epic55Data
from pipeline.dataset_epic55 import load_epic55
from pipeline.datasets import load_dataset, videos_config
from pipeline.errors import AnnotationError
from pipeline.segments import UNLABELLED, Segment

EPIC_HEADER = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,verb_class,noun_class\n"
)


def epic_folder(folder: Path, rows: str, *, verbs: str = "0,take,x\n1,put,y\n") -> Path:
    (folder / "EPIC_train_action_labels.csv").write_text(EPIC_HEADER + rows)
    (folder / "EPIC_verb_classes.csv").write_text("verb_id,class_key,verbs\n" + verbs)
    (folder / "EPIC_noun_classes.csv").write_text("noun_id,class_key,nouns\n1,pan,p\n0,cup,c\n")
    return folder


def test_official_labels(test_data: Path) -> None:
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


def epic_data(folder: Path, **more: Any) -> Epic55Data:
    settings = {"kind": "epic55", "annotations": folder, "videos": {"root": "videos"}, **more}
    return Epic55Data.model_validate(settings)


MANY_SHOT = {"verbs": "EPIC_many_shot_verbs.csv", "nouns": "EPIC_many_shot_nouns.csv"}


def test_counting_gives_the_official_many_shot_classes(test_data: Path, tmp_path: Path) -> None:
    official = test_data / "annotations" / "epic55"
    protocol = load_epic55(official).protocol
    assert protocol.name == "epic55"
    assert (len(protocol.many_shot_verbs), len(protocol.many_shot_nouns)) == (26, 71)
    assert protocol.many_shot_verbs[:4] == (0, 1, 2, 3)
    for file in official.iterdir():
        if file.name not in MANY_SHOT.values():
            (tmp_path / file.name).symlink_to(file)
    assert load_epic55(tmp_path, splits=["val"]).protocol == protocol  # counted on every row


def test_official_test_splits(test_data: Path) -> None:
    folder = test_data / "annotations" / "epic55"
    dataset = load_epic55(folder, splits=["test_s2", "test_s1"])
    assert dataset.splits == ("test_s1", "test_s2")
    seen, unseen = dataset.split("test_s1"), dataset.split("test_s2")
    assert (len(seen), len(unseen)) == (8_047, 2_929)
    assert not any(segment.labelled for segment in dataset.segments)
    assert seen[0] == Segment("1924", "P01_11", "P01", 0.0, 1.89, UNLABELLED, UNLABELLED, "test_s1")
    assert {s.participant_id for s in unseen} == {"P09", "P11", "P18", "P32"}


def test_all_labelled_rows_train_for_a_submission(test_data: Path) -> None:
    data = epic_data(
        test_data / "annotations" / "epic55",
        splits=["train", "val", "test_s1", "test_s2"],
        train_on="all",
    )
    counts = Counter(s.split for s in load_dataset(data).segments)
    assert counts == {"train": 28_472, "test_s1": 8_047, "test_s2": 2_929}


def test_only_some_videos_of_it(test_data: Path) -> None:
    data = epic_data(
        test_data / "annotations" / "epic55",
        only={"video_ids": ["P01_01"], "segment_ids": ["1", "0"]},
    )
    assert [s.narration for s in load_dataset(data).segments] == ["open door", "turn on light"]
    assert videos_config(data) is data.videos


def test_times_and_splits(tmp_path: Path) -> None:
    rows = (
        "7,P25,P25_01,wash,00:00:00.14,01:02:03.45,0,1\n"
        "8,P26,P26_01,dry,00:59:59.999999,01:00:00,1,0\n"
    )
    dataset = load_epic55(epic_folder(tmp_path, rows))
    first, second = dataset.segments
    assert (first.start_seconds, first.stop_seconds, first.split) == (0.14, 3723.45, "train")
    assert (second.start_seconds, second.stop_seconds) == (3599.999999, 3600.0)
    assert second.split == "val"
    assert dataset.noun_names == ("cup", "pan")  # by id, not by line
    assert dataset.promised_seconds == {}


@pytest.mark.parametrize(
    "clock", ["", "3.5", "00:03.5", "00:60:00", "00:00:60", "a:b:c", "0:0:nan", "00:00:00:01"]
)
def test_times_that_are_none(tmp_path: Path, clock: str) -> None:
    folder = epic_folder(tmp_path, f"7,P25,P25_01,wash,{clock},01:02:03.45,0,1\n")
    with pytest.raises(AnnotationError, match=r"labels\.csv:2: got start_timestamp "):
        load_epic55(folder)


@pytest.mark.parametrize("participant", ["X01", "P", "P1x", "P²", "01"])
def test_participants_that_are_none(tmp_path: Path, participant: str) -> None:
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
def test_class_files_with_errors(tmp_path: Path, verbs: str, message: str) -> None:
    folder = epic_folder(tmp_path, "7,P25,v,wash,00:00:00,00:00:01,0,1\n", verbs=verbs)
    with pytest.raises(AnnotationError, match=message):
        load_epic55(folder)


def test_a_class_out_of_range_names_the_line(tmp_path: Path) -> None:
    rows = "7,P25,v,a,00:00:00,00:00:01,0,1\n8,P25,v,b,00:00:00,00:00:01,0,2\n"
    with pytest.raises(AnnotationError, match=r"labels\.csv:3: segment '8'.* got noun_class 2"):
        load_epic55(epic_folder(tmp_path, rows))


TIMES = "uid,participant_id,video_id,start_timestamp,stop_timestamp\n"
ROWS = "7,P25,P25_01,wash,00:00:00,00:00:01,0,1\n8,P26,P26_01,dry,00:00:02,00:00:03,1,0\n"


@pytest.mark.parametrize(
    ("splits", "ids"), [(["val"], ["8"]), (["train"], ["7"]), (["test_s2", "train"], ["7", "9"])]
)
def test_only_the_splits_asked_for_are_loaded(
    tmp_path: Path, splits: list[str], ids: list[str]
) -> None:
    folder = epic_folder(tmp_path, ROWS)
    (folder / "EPIC_test_s2_timestamps.csv").write_text(f"{TIMES}9,P09,P09_01,00:00:00,00:00:01\n")
    dataset = load_dataset(epic_data(folder, splits=splits))
    assert [segment.segment_id for segment in dataset.segments] == ids


def test_test_splits_need_no_labels(tmp_path: Path) -> None:
    folder = epic_folder(tmp_path, "")
    (folder / "EPIC_train_action_labels.csv").unlink()
    (folder / "EPIC_test_s1_timestamps.csv").write_text(f"{TIMES}9,P09,P09_01,00:00:00,00:00:01\n")
    dataset = load_epic55(folder, splits=["test_s1"])
    assert dataset.splits == ("test_s1",)
    assert dataset.protocol.many_shot_verbs == ()


def test_many_shot_is_more_than_a_hundred_rows(tmp_path: Path) -> None:
    rows = [f"{i},P{1 + i % 31:02},v,wash,00:00:00,00:00:01,{i % 2},0\n" for i in range(201)]
    protocol = load_epic55(epic_folder(tmp_path, "".join(rows))).protocol
    assert protocol.many_shot_verbs == (0,)  # 101 rows; class 1 has 100
    assert protocol.many_shot_nouns == (0,)
    (tmp_path / "EPIC_many_shot_verbs.csv").write_text("verb_class,verb\n1,put\n")
    assert load_epic55(tmp_path).protocol.many_shot_verbs == (1,)
    (tmp_path / "EPIC_many_shot_nouns.csv").write_text("noun_class,noun\n1,pan\n2,?\n")
    with pytest.raises(AnnotationError, match=r"nouns\.csv:3: got noun_class 2, expected 0 to 1"):
        load_epic55(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            ["test_s1"],
            r"s1_timestamps\.csv: no such label file for split 'test_s1'; take it",
        ),
        (
            ["test_s2"],
            r"s2_timestamps\.csv:2: got verb_class, expected no labels in split",
        ),
        (["train", "val"], "split 'val' has no rows, only train have"),
    ],
)
def test_splits_that_cannot_be(tmp_path: Path, splits: list[str], message: str) -> None:
    folder = epic_folder(tmp_path, ROWS.partition("8,")[0])
    columns = TIMES.replace("\n", ",verb_class\n")
    (folder / "EPIC_test_s2_timestamps.csv").write_text(
        f"{columns}9,P09,P09_01,00:00:00,00:00:01,1\n"
    )
    with pytest.raises(AnnotationError, match=message):
        load_epic55(folder, splits=splits)


def test_an_id_of_a_test_split_that_training_has(tmp_path: Path) -> None:
    folder = epic_folder(tmp_path, ROWS)
    (folder / "EPIC_test_s2_timestamps.csv").write_text(f"{TIMES}8,P09,P09_01,00:00:00,00:00:01\n")
    with pytest.raises(AnnotationError, match=r"s2_timestamps\.csv:2: .*labels\.csv:3 already"):
        load_epic55(folder, splits=["train", "val", "test_s2"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ["train", "test"]}, "'train', 'val', 'test_s1' or 'test_s2'"),
        ({"splits": []}, "at least 1"),
        ({"splits": ["val", "val"]}, "expected each name once"),
        ({"splits": ["train"], "train_on": "all"}, "expected train and val among them"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        epic_data(Path("labels"), **settings)
