from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from heads.protocols import Protocol
from pipeline.config_data import EgteaData, VideosConfig
from pipeline.dataset_egtea import load_egtea
from pipeline.datasets import load_dataset
from pipeline.errors import AnnotationError
from pipeline.segments import Segment
from pipeline.videos import locate_video

PIZZA = "OP01-R07-Pizza-1000-3500-F000018-F000090"
SALAD = "P04-R06-GreekSalad-69970-77130-F001662-F001869"
EGGS = "P21-R03-BaconAndEggs-5000-5500-F000114-F000138"


def label_folder(folder: Path, *, split: int = 1, names: bool = True) -> Path:
    """Three rows of three actions."""
    (folder / f"train_split{split}.txt").write_text(f"{PIZZA} 3 2 1\n{SALAD} 1 1 3 2\n")
    (folder / f"test_split{split}.txt").write_text(f"{EGGS} 2 1 1\n")
    if names:
        (folder / "verb_idx.txt").write_text("Inspect/Read 1\nMove Around 2\n")
        (folder / "noun_idx.txt").write_text("recipe 1\nbread 3\npan 2\n")
        (folder / "action_idx.txt").write_text(
            "Inspect/Read bread,pan 1\nInspect/Read recipe 2\nMove Around recipe 3\n"
        )
    return folder


def egtea_data(folder: Path, **more: Any) -> EgteaData:
    settings = {"kind": "egtea", "annotations": folder, "videos": {"root": "videos"}, **more}
    return EgteaData.model_validate(settings)


def test_official_split_1(test_data: Path) -> None:
    dataset = load_egtea(test_data / "annotations" / "egtea", split=1, clips="full")
    assert Counter(s.split for s in dataset.segments) == {"train": 8_299, "val": 2_022}
    assert (len(dataset.verb_names), len(dataset.noun_names)) == (19, 53)
    assert {s.verb_class for s in dataset.segments} == set(range(19))
    assert len({s.noun_class for s in dataset.segments}) == 51
    assert {15, 43}.isdisjoint(s.noun_class for s in dataset.segments)
    name = "P21-R04-ContinentalBreakfast-291175-294945-F006979-F007088"
    session = "P21-R04-ContinentalBreakfast"
    assert dataset.segments[0] == Segment(
        name, session, "P21", 291.175, 294.945, 0, 0, "train", "", session
    )
    assert len({s.video_id for s in dataset.segments}) == 86
    assert len({s.participant_id for s in dataset.segments}) == 32


def test_official_actions_are_pairs(test_data: Path) -> None:
    dataset = load_egtea(test_data / "annotations" / "egtea", split=1, clips="full")
    assert dataset.protocol.name == "egtea"
    actions = dataset.protocol.actions
    assert actions is not None
    assert len(actions) == len(set(actions)) == 106
    assert actions[0] == (0, 0)
    assert set(actions) == {(s.verb_class, s.noun_class) for s in dataset.segments}


def test_official_frame_numbers_are_the_annotated_time_and_a_margin(test_data: Path) -> None:
    folder = test_data / "annotations" / "egtea"
    annotated = load_egtea(folder, split=1, clips="full").segments
    trimmed = load_egtea(folder, split=1, clips="trimmed").segments
    frames = [re.findall(r"F(\d+)", segment.segment_id) for segment in annotated]
    first, last = np.array(frames, dtype=float).T
    start = np.array([s.start_seconds for s in annotated]) * 24
    stop = np.array([s.stop_seconds for s in annotated]) * 24
    margin = (stop - start) / 10
    long = stop - start >= 20
    assert np.abs(first - (start - margin))[long].max() < 1.3
    assert np.abs(last - (stop + margin))[long].max() < 1.3
    assert (last - first).min() == 24
    np.testing.assert_allclose([s.stop_seconds * 24 for s in trimmed], last - first)
    assert {s.start_seconds for s in trimmed} == {0.0}


def test_sessions(tmp_path: Path) -> None:
    dataset = load_dataset(egtea_data(label_folder(tmp_path)))
    pizza, salad, eggs = "OP01-R07-Pizza", "P04-R06-GreekSalad", "P21-R03-BaconAndEggs"
    assert dataset.segments == [
        Segment(PIZZA, pizza, "OP01", 1.0, 3.5, 1, 0, "train", "Move Around recipe", pizza),
        # The first of two nouns.
        Segment(SALAD, salad, "P04", 69.97, 77.13, 0, 2, "train", "Inspect/Read bread,pan", salad),
        Segment(EGGS, eggs, "P21", 5.0, 5.5, 0, 0, "val", "Inspect/Read recipe", eggs),
    ]
    assert dataset.verb_names == ("Inspect/Read", "Move Around")
    assert dataset.noun_names == ("recipe", "pan", "bread")
    assert dataset.protocol == Protocol("egtea", actions=((0, 2), (0, 0), (1, 0)))
    assert dataset.promised_seconds == {}


def test_trimmed_clips(tmp_path: Path) -> None:
    data = egtea_data(label_folder(tmp_path), clips="trimmed", only={"video_ids": [PIZZA]})
    (pizza,) = load_dataset(data).segments
    assert (pizza.video_id, pizza.session_id) == (PIZZA, "OP01-R07-Pizza")
    assert (pizza.start_seconds, pizza.stop_seconds) == (0.0, 3.0)  # 72 frames
    where = VideosConfig(root=tmp_path, pattern="{session_id}/{video_id}.mp4")
    assert locate_video(pizza, where, {}).path == tmp_path / "OP01-R07-Pizza" / f"{PIZZA}.mp4"


def test_frames_at_24_fps(tmp_path: Path) -> None:
    segment = load_egtea(label_folder(tmp_path), split=1, clips="full").segments[0]
    where = VideosConfig(
        root=tmp_path, kind="frames", frame_rate_fps=24, pattern="{participant_id}/{video_id}"
    )
    video = locate_video(segment, where, {})
    assert (video.path, video.frame_rate_fps) == (tmp_path / "OP01" / "OP01-R07-Pizza", 24.0)


def test_without_the_files_of_names(tmp_path: Path) -> None:
    dataset = load_egtea(label_folder(tmp_path, names=False), split=1, clips="full")
    assert dataset.verb_names == tuple(str(i) for i in range(1, 20))
    assert dataset.noun_names == tuple(str(i) for i in range(1, 54))
    assert {s.narration for s in dataset.segments} == {""}


@pytest.mark.parametrize("split", [2, 3])
def test_the_other_splits(tmp_path: Path, split: int) -> None:
    data = egtea_data(label_folder(tmp_path, split=split), split=split)
    assert len(load_dataset(data).segments) == 3
    with pytest.raises(AnnotationError, match=r"train_split1\.txt: no such label file; take it"):
        load_dataset(egtea_data(tmp_path, split=1))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_split1.txt", f"\n{PIZZA} 3 2\n", r"txt:2: got 3 columns, expected clip name, act"),
        ("train_split1.txt", f"{PIZZA} 3 3 1\n", "txt:1: got verb 3, expected 1 to 2"),
        ("train_split1.txt", f"{PIZZA} 3 0 1\n", "txt:1: got verb 0, expected 1 to 2"),
        ("train_split1.txt", f"{PIZZA} 3 2 4\n", "txt:1: got noun 4, expected 1 to 3"),
        ("train_split1.txt", f"{PIZZA} 3 2 1 -1\n", "txt:1: got noun -1, expected 1 to 3"),
        ("train_split1.txt", f"{PIZZA} 4 2 1\n", "txt:1: got action 4, expected 1 to 3"),
        ("train_split1.txt", f"{PIZZA} open 2 1\n", "txt:1: got action 'open', expected a whole"),
        ("train_split1.txt", f"{PIZZA} 3 2 1.0\n", "txt:1: got noun '1.0', expected a whole numb"),
        ("train_split1.txt", f"{PIZZA}.mp4 3 2 1\n", "txt:1: got clip name 'OP01.*expected one su"),
        ("train_split1.txt", "P04-R06-Pizza-1-2 3 2 1\n", "txt:1: got clip name 'P04-R06-Pizza-1"),
        (
            "train_split1.txt",
            "P04-R06-Pizza-9-9-F000001-F000025 3 2 1\n",
            "txt:1: .*expected stop after start",
        ),
        ("train_split1.txt", "", "split 'train' has no rows, only val have"),
        ("test_split1.txt", f"{EGGS} 3 1 1\n", "test_split1.txt:1: got action 3 with verb 1 and n"),
        ("test_split1.txt", f"{EGGS} 2 2 1\n", "got actions 2 and 3 for verb 2 and noun 1"),
        ("test_split1.txt", f"{PIZZA} 3 2 1\n", "txt:1: .*that of train_split1.txt:1 already"),
        ("verb_idx.txt", "Read 1\nOpen 3\n", "verb_idx.txt: expected ids that count 1, 2, 3"),
        ("verb_idx.txt", "Read 1\nOpen 1\n", "verb_idx.txt:2: got 'Open 1', expected a name and a"),
        ("verb_idx.txt", "1\n", "verb_idx.txt:1: got '1', expected a name and a new id"),
        ("noun_idx.txt", "1 recipe\n", "noun_idx.txt:1: got id 'recipe', expected a whole number"),
        ("noun_idx.txt", "", "noun_idx.txt: expected ids that count 1, 2, 3"),
    ],
)
def test_what_cannot_be(tmp_path: Path, name: str, content: str, message: str) -> None:
    (label_folder(tmp_path) / name).write_text(content)
    with pytest.raises(AnnotationError, match=message):
        load_egtea(tmp_path, split=1, clips="full")


def test_a_trimmed_clip_without_frames(tmp_path: Path) -> None:
    name = "P04-R06-Pizza-8-9-F000025-F000025"
    (label_folder(tmp_path) / "train_split1.txt").write_text(f"{name} 3 2 1\n")
    with pytest.raises(AnnotationError, match=r"txt:1: .*expected stop after start"):
        load_egtea(tmp_path, split=1, clips="trimmed")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (label_folder(tmp_path) / "test_split1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match=r"test_split1\.txt: cannot be read as text"):
        load_egtea(tmp_path, split=1, clips="full")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"split": 4}, "1, 2 or 3"), ({"clips": "cropped"}, "'full' or 'trimmed'")],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        egtea_data(Path("labels"), **settings)
