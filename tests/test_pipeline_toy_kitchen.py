"""The rendered data set: its files, its classes, and when it is rendered."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import toy_kitchen
from pipeline.toy_kitchen import ToyKitchen, render_toy_kitchen
from pipeline.toy_plan import RATE_FPS, TRAIN_PARTICIPANTS, VAL_PARTICIPANTS, plan_videos
from pipeline.toy_scene import NOUNS, VERBS, Action, Scene
from pipeline.toy_view import Painter, sight_jars

SMALL = {"num_train_segments": 3, "num_val_segments": 2, "segments_per_video": 2, "num_workers": 1}
CSVS = (
    "EPIC_train_action_labels.csv",
    "EPIC_verb_classes.csv",
    "EPIC_noun_classes.csv",
    "EPIC_video_info.csv",
    "boxes.csv",
)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> ToyKitchen:
    return render_toy_kitchen(tmp_path_factory.mktemp("toy") / "kitchen", seed=3, **SMALL)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_videos_are_h264_at_the_rate_and_length_they_say(kitchen: ToyKitchen) -> None:
    info = _rows(kitchen.folder / "EPIC_video_info.csv")
    assert [row["video"] for row in info] == ["P01_01", "P02_01", "P26_01"]
    for row in info:
        assert row["resolution"] == "456x256"
        with av.open(str(kitchen.video(row["video"]))) as container:
            stream = container.streams.video[0]
            times = [frame.time for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert (stream.width, stream.height) == (456, 256)
            assert stream.average_rate == RATE_FPS == float(row["fps"])
        assert times == pytest.approx(np.arange(len(times)) / RATE_FPS, abs=1e-4)
        assert len(times) == pytest.approx(float(row["duration"]) * RATE_FPS, abs=1e-3)


def test_decoded_frames_keep_the_fine_detail(kitchen: ToyKitchen) -> None:
    [video] = plan_videos(2, 2, VAL_PARTICIPANTS, seed=3)
    painter = Painter(video.scene)
    with av.open(str(kitchen.video(video.video_id))) as container:
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    index = 30
    jar = sight_jars(video.scene, np.array([index / RATE_FPS]))[0]
    x0, y0, x1, y1 = jar.boxes_xyxy_px[0].round().astype(int)
    drawn = painter.draw(index / RATE_FPS)[y0:y1, x0:x1] @ np.array([0.299, 0.587, 0.114])
    correlation = np.corrcoef(drawn.ravel(), decoded[index][y0:y1, x0:x1].ravel())[0, 1]
    assert correlation > 0.95


def test_labels_have_epics_columns_and_frame_numbers(kitchen: ToyKitchen) -> None:
    path = kitchen.folder / "EPIC_train_action_labels.csv"
    assert path.read_text().splitlines()[0] == (
        "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,"
        "stop_frame,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
    )
    rows = _rows(path)
    assert [row["uid"] for row in rows] == ["0", "1", "2", "3", "4"]
    # Two of the first video, one of the second, two of the validation video.
    assert [row["video_id"] for row in rows] == ["P01_01"] * 2 + ["P02_01"] + ["P26_01"] * 2
    for row in rows:
        verb, noun = int(row["verb_class"]), int(row["noun_class"])
        assert (row["verb"], row["noun"]) == (VERBS[verb], NOUNS[noun])
        assert row["narration"] == f"{VERBS[verb]} {NOUNS[noun]}"
        assert row["all_nouns"] == f"['{NOUNS[noun]}']"
        assert row["all_noun_classes"] == f"[{noun}]"
        assert row["participant_id"] == row["video_id"][:3]
    first = rows[0]
    assert (first["start_timestamp"], first["start_frame"]) == ("00:00:00.30", "18")
    seconds = float(first["stop_timestamp"].removeprefix("00:00:"))
    assert 1.8 <= seconds <= 2.2
    assert int(first["stop_frame"]) == int(seconds * 60 + 1e-6)


def test_segments_lie_in_their_video_one_after_the_other(kitchen: ToyKitchen) -> None:
    lengths = {
        row["video"]: float(row["duration"])
        for row in _rows(kitchen.folder / "EPIC_video_info.csv")
    }
    ends: dict[str, float] = {}
    for row in _rows(kitchen.folder / "EPIC_train_action_labels.csv"):
        start, stop = (float(row[f"{edge}_timestamp"][6:]) for edge in ("start", "stop"))
        assert ends.get(row["video_id"], 0.0) < start < stop < lengths[row["video_id"]]
        ends[row["video_id"]] = stop


def test_class_files_name_every_class(kitchen: ToyKitchen) -> None:
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        rows = _rows(kitchen.folder / f"EPIC_{kind}_classes.csv")
        assert [int(row[f"{kind}_id"]) for row in rows] == list(range(len(names)))
        assert [row["class_key"] for row in rows] == list(names)
        assert [row[f"{kind}s"] for row in rows] == [f"['{name}']" for name in names]


def test_boxes_are_given_at_frame_times_inside_the_frame(kitchen: ToyKitchen) -> None:
    rows = _rows(kitchen.boxes)
    columns = ["video_id", "time_seconds", "x0", "y0", "x1", "y1", "score", "noun_class"]
    assert list(rows[0]) == columns
    values = np.array([[float(row[column]) for column in columns[1:]] for row in rows])
    frames = values[:, 0] * RATE_FPS
    assert np.abs(frames - frames.round()).max() < 1e-4
    x0, y0, x1, y1, score = values[:, 1:6].T
    assert (x0 >= 0).all()
    assert (y0 >= 0).all()
    assert (x1 <= 456).all()
    assert (y1 <= 256).all()
    assert (x1 - x0 > 8).all()
    assert (y1 - y0 > 8).all()
    assert ((score >= 0.4) & (score <= 1)).all()
    assert set(values[:, 6]) <= set(range(len(NOUNS)))


def test_the_target_is_boxed_all_through_its_action(kitchen: ToyKitchen) -> None:
    boxed = {(r["video_id"], r["time_seconds"], r["noun_class"]) for r in _rows(kitchen.boxes)}
    for row in _rows(kitchen.folder / "EPIC_train_action_labels.csv"):
        start, stop = (float(row[f"{edge}_timestamp"][6:]) for edge in ("start", "stop"))
        for index in range(int(np.ceil(start * RATE_FPS)), int(stop * RATE_FPS) + 1):
            time = f"{index / RATE_FPS:.6f}"
            assert (row["video_id"], time, row["noun_class"]) in boxed


def test_classes_are_balanced_and_participants_disjoint() -> None:
    train = plan_videos(140, 5, TRAIN_PARTICIPANTS, seed=0)
    val = plan_videos(70, 5, VAL_PARTICIPANTS, seed=0)
    assert {v.participant for v in train} == set(range(1, 26))
    assert {v.participant for v in val} == set(range(26, 32))
    pairs = Counter(label for video in val for label in video.labels)
    assert pairs == Counter({(v, n): 1 for v in range(len(VERBS)) for n in range(len(NOUNS))})
    nouns = Counter(noun for video in train for _, noun in video.labels)
    assert set(nouns.values()) == {14}
    assert len(nouns) == len(NOUNS)


def test_favourite_mats_are_a_tendency() -> None:
    actions: list[Action] = []
    for video in plan_videos(400, 5, TRAIN_PARTICIPANTS, seed=0):
        actions += video.scene.actions
    share = np.mean([action.mat_noun_class == action.target.noun_class for action in actions])
    assert 0.40 < share < 0.61  # 0.45 + 0.55 / 10 = 0.505, give or take four deviations


def test_the_same_arguments_give_the_same_bytes(kitchen: ToyKitchen, tmp_path: Path) -> None:
    """Also from two processes, each with its own share of the videos."""
    again = render_toy_kitchen(tmp_path / "again", seed=3, **{**SMALL, "num_workers": 2})
    assert _digests(again.folder) == _digests(kitchen.folder)
    assert set(_digests(kitchen.folder)) == {
        *CSVS,
        "toy_kitchen.json",
        *("P01/P01_01.MP4", "P02/P02_01.MP4", "P26/P26_01.MP4"),
    }


def test_another_seed_gives_another_data_set() -> None:
    one, other = (plan_videos(5, 5, TRAIN_PARTICIPANTS, seed)[0] for seed in (0, 1))
    assert one.times_centiseconds != other.times_centiseconds
    assert not np.array_equal(Painter(one.scene).draw(1.0), Painter(other.scene).draw(1.0))


def test_a_rerun_renders_only_what_is_missing(
    kitchen: ToyKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _digests(kitchen.folder)
    rendered: list[str] = []
    render = toy_kitchen._render_video

    def spy(path: Path, scene: Scene, num_frames: int) -> None:
        rendered.append(path.name)
        render(path, scene, num_frames)

    monkeypatch.setattr(toy_kitchen, "_render_video", spy)
    render_toy_kitchen(kitchen.folder, seed=3, **SMALL)
    assert rendered == []

    kitchen.video("P02_01").unlink()
    kitchen.boxes.unlink()
    (kitchen.folder / "P02" / ".P02_01.MP4.partial").write_bytes(b"cut short")
    render_toy_kitchen(kitchen.folder, seed=3, **SMALL)
    assert rendered == ["P02_01.MP4"]
    assert _digests(kitchen.folder) == before


def test_a_folder_with_other_settings_is_refused(kitchen: ToyKitchen) -> None:
    before = _digests(kitchen.folder)
    with pytest.raises(ValueError, match=r"'seed': 3.*expected.*'seed': 4.*choose another folder"):
        render_toy_kitchen(kitchen.folder, seed=4, **SMALL)
    assert _digests(kitchen.folder) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        render_toy_kitchen(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", list(SMALL))
def test_counts_below_one_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"got {name}=0, expected 1 or more"):
        render_toy_kitchen(tmp_path, **{**SMALL, name: 0})


def test_more_videos_than_two_digits_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 595 videos for 6 participants, expected at most 99"):
        render_toy_kitchen(
            tmp_path / "kitchen", num_train_segments=1, num_val_segments=595, segments_per_video=1
        )
