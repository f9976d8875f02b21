from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from heads.protocols import Protocol
from pipeline.config_data import Epic100Data
from pipeline.dataset_epic100 import load_epic100
from pipeline.datasets import load_dataset
from pipeline.errors import AnnotationError
from pipeline.segments import UNLABELLED, Segment

TIMES = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp"
LABELS = f"{TIMES},narration,verb_class,noun_class"


def label_folder(folder: Path) -> Path:
    """Two labelled rows, one in each file, and one row of test."""
    files = {
        "train": f"{LABELS}\nP01_01_0,P01,P01_01,00:00:01,00:00:02.5,open door,1,0\n",
        "validation": f"{LABELS}\nP02_101_3,P02,P02_101,00:00:00,00:00:01,take tap,0,1\n",
        "test_timestamps": f"{TIMES}\nP33_01_0,P33,P33_01,00:00:00,00:00:01\n",
        "verb_classes": "id,key,instances,category\n1,open,[],x\n0,take,[],x\n",
        "noun_classes": "id,key,instances,category\n0,tap,[],x\n1,spoon,[],x\n2,pan,[],x\n",
        "video_info": "video_id,duration,fps,resolution\nP01_01,10.5,60,1x1\n",
        "tail_verbs": "verb\n1\n",
        "tail_nouns": "noun\n2\n0\n",
        "unseen_participant_ids_validation": "participant_id\nP02\n",
        "unseen_participant_ids_test": "participant_id\nP33\n",
    }
    for name, content in files.items():
        (folder / f"EPIC_100_{name}.csv").write_text(content)
    return folder


def epic_data(folder: Path, **more: Any) -> Epic100Data:
    settings = {"kind": "epic100", "annotations": folder, "videos": {"root": "videos"}, **more}
    return Epic100Data.model_validate(settings)


def test_official_validation_and_test_files(test_data: Path) -> None:
    dataset = load_epic100(test_data / "annotations" / "epic100", splits=["val", "test"])
    val, test = dataset.split("val"), dataset.split("test")
    assert (len(val), len(test)) == (9_668, 13_092)
    assert (len(dataset.verb_names), len(dataset.noun_names)) == (97, 300)
    assert (dataset.verb_names[:3], dataset.noun_names[2]) == (("take", "put", "wash"), "plate")
    assert val[0] == Segment("P01_11_0", "P01_11", "P01", 0.0, 1.89, 0, 2, "val", "take plate")
    assert test[0] == Segment(
        "P01_101_0", "P01_101", "P01", 2.86, 3.87, UNLABELLED, UNLABELLED, "test"
    )
    assert len({s.verb_class for s in val}) == 78
    assert len({s.noun_class for s in val}) == 211
    assert {s.video_id for s in dataset.segments} <= set(dataset.promised_seconds)
    assert dataset.promised_seconds["P01_01"] == 1652.152817


def test_official_subsets(test_data: Path) -> None:
    dataset = load_epic100(test_data / "annotations" / "epic100", splits=["val"])
    protocol = dataset.protocol
    assert protocol.name == "epic100"
    assert (len(protocol.tail_verbs), len(protocol.tail_nouns)) == (86, 228)
    assert (protocol.tail_verbs[:3], protocol.tail_nouns[:3]) == ((10, 12, 13), (56, 59, 61))
    assert protocol.unseen_participants == ("P18", "P32")
    unseen = [s for s in dataset.segments if s.participant_id in protocol.unseen_participants]
    assert len(unseen) == 1_065


def test_every_split(tmp_path: Path) -> None:
    data = epic_data(label_folder(tmp_path), splits=["test", "val", "train"])
    dataset = load_dataset(data)
    assert dataset.segments == [
        Segment("P01_01_0", "P01_01", "P01", 1.0, 2.5, 1, 0, "train", "open door"),
        Segment("P02_101_3", "P02_101", "P02", 0.0, 1.0, 0, 1, "val", "take tap"),
        Segment("P33_01_0", "P33_01", "P33", 0.0, 1.0, UNLABELLED, UNLABELLED, "test"),
    ]
    assert (dataset.verb_names, dataset.noun_names) == (("take", "open"), ("tap", "spoon", "pan"))
    assert dataset.promised_seconds == {"P01_01": 10.5}
    assert dataset.protocol == Protocol(
        "epic100", tail_verbs=(1,), tail_nouns=(0, 2), unseen_participants=("P02", "P33")
    )


def test_all_labelled_rows_train_for_a_submission(tmp_path: Path) -> None:
    folder = label_folder(tmp_path)
    dataset = load_dataset(epic_data(folder, splits=["train", "val", "test"], train_on="all"))
    assert Counter(s.split for s in dataset.segments) == {"train": 2, "test": 1}
    assert dataset.protocol.unseen_participants == ("P33",)  # P02 is seen now


@pytest.mark.parametrize(
    ("splits", "unseen"), [(["train"], ()), (["val"], ("P02",)), (["train", "test"], ("P33",))]
)
def test_only_the_splits_asked_for_are_loaded(
    tmp_path: Path, splits: list[str], unseen: tuple[str, ...]
) -> None:
    folder = label_folder(tmp_path)
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test_timestamps")):
        if split not in splits:
            (folder / f"EPIC_100_{name}.csv").unlink()
    dataset = load_epic100(folder, splits=splits)
    assert list(dataset.splits) == splits
    assert dataset.protocol.unseen_participants == unseen


def test_without_the_lists_there_are_no_subsets(tmp_path: Path) -> None:
    folder = label_folder(tmp_path)
    for name in ("tail_verbs", "tail_nouns", "unseen_participant_ids_validation"):
        (folder / f"EPIC_100_{name}.csv").unlink()
    assert load_epic100(folder).protocol == Protocol("epic100")


def test_some_segments_of_it(tmp_path: Path) -> None:
    data = epic_data(label_folder(tmp_path), only={"segment_ids": ["P02_101_3"]})
    assert [s.video_id for s in load_dataset(data).segments] == ["P02_101"]


def test_the_training_file_that_is_not_there(tmp_path: Path) -> None:
    (label_folder(tmp_path) / "EPIC_100_train.csv").unlink()
    with pytest.raises(AnnotationError) as caught:
        load_epic100(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/EPIC_100_train.csv: no such label file for split 'train'; take it from "
        "github.com/epic-kitchens/epic-kitchens-100-annotations, or leave the split out of "
        "data.splits"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", f"{LABELS}\nx,P01,v,00:00:01,00:00:02,open,2,0\n", "train.csv:2: .*verb_class 2"),
        ("train", f"{LABELS}\nx,P01,v,00:00:01,00:00:02,open,0,-1\n", "csv:2: .*noun_class -1"),
        ("train", f"{LABELS}\nx,P01,v,00:00:01,00:00:02,open,,0\n", "csv:2: got verb_class ''"),
        ("train", f"{LABELS}\n,P01,v,00:00:01,00:00:02,open,0,0\n", "csv:2: narration_id is em"),
        ("train", f"{LABELS}\nx,,v,00:00:01,00:00:02,open,0,0\n", "csv:2: participant_id is em"),
        ("train", f"{LABELS}\nx,P01,v,00:00:03,00:00:02,open,0,0\n", "csv:2: .*stop after start"),
        ("train", f"{TIMES}\nx,P01,v,00:00:03,00:00:02\n", "missing: verb_class, noun_class, narr"),
        ("train", f"{LABELS}\n", "split 'train' has no rows, only val, test have"),
        (
            "validation",
            f"{LABELS}\nP01_01_0,P01,v,00:00:01,00:00:02,open,0,0\n",
            r"validation\.csv:2: .*that of EPIC_100_train\.csv:2 already",
        ),
        (
            "test_timestamps",
            f"{LABELS}\nP33_01_0,P33,P33_01,00:00:00,00:00:01,open,1,0\n",
            r"timestamps\.csv:2: got verb_class and noun_class, expected no labels in split 'test'",
        ),
        ("tail_verbs", "verb\n1\n2\n", r"tail_verbs\.csv:3: got verb 2, expected 0 to 1"),
        ("tail_nouns", "class\n1\n", r"tail_nouns\.csv: .*missing: noun"),
        ("unseen_participant_ids_test", "participant_id\n \n", r"test\.csv:2: participant_id is"),
        ("noun_classes", "id,key\n0,tap\n2,pan\n", "expected id to count 0, 1, 2"),
        ("video_info", "video_id,duration\nP01_01,long\n", r"info\.csv:2: got duration 'long'"),
    ],
)
def test_what_cannot_be(tmp_path: Path, name: str, content: str, message: str) -> None:
    (label_folder(tmp_path) / f"EPIC_100_{name}.csv").write_text(content)
    with pytest.raises(AnnotationError, match=message):
        load_epic100(tmp_path, splits=["train", "val", "test"])


def test_splits_of_another_data_set() -> None:
    with pytest.raises(ValidationError, match="'train', 'val' or 'test'"):
        epic_data(Path("labels"), splits=["test_s1"])
