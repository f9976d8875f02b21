"""`symbio explain`: which setting, video or label changed, or which error there was."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from cli_fixtures import symbio, write_experiment
from docs_pages import section, table_rows
from experiment_fixtures import SEGMENTS, write_labels
from video_files import write_video

from extractors.resnet3d import ResNet3D
from extractors.weights import save_checkpoint
from pipeline.explain import ReasonName


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with everything stored; tests only read it."""
    config = write_experiment(tmp_path_factory.mktemp("finished"))
    assert symbio("run", config, "--quiet").code == 0
    return config


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    shutil.copytree(finished.parent, tmp_path / "copy")
    config = tmp_path / "copy" / "small.yaml"
    config.write_text(config.read_text().replace(str(finished.parent), str(config.parent)))
    return config


def explained(config: Path, stage: str, *options: str) -> dict[str, Any]:
    done = symbio("explain", config, "--stage", stage, *options, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def differences(config: Path, stage: str, *overrides: str) -> list[tuple[str, str, str]]:
    options = [word for override in overrides for word in ("--set", override)]
    nearest = explained(config, stage, *options)["nearest"]
    return sorted((found["path"], found["old"], found["new"]) for found in nearest["differences"])


def reasons(config: Path, stage: str, *options: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason in explained(config, stage, *options)["reasons"]:
        found[reason["name"]] = found.get(reason["name"], 0) + reason["rows"]
    return found


def files_of(store: Path) -> dict[Path, bytes]:
    """What a store is made of, without what readers of a database leave beside it."""
    files = (path for path in store.rglob("*") if path.is_file())
    return {file: file.read_bytes() for file in files if not file.name.endswith(("-shm", "-wal"))}


def test_nothing_is_missing(finished: Path) -> None:
    found = explained(finished, "verb")
    assert (found["wanted"], found["present"], found["missing"]) == (6, 6, 0)
    assert (found["nearest"], found["reasons"], found["missing_videos"]) == (None, [], {})
    done = symbio("explain", finished, "--stage", "verb")
    assert "6 of 6 rows are stored, 0 are missing, 0 failed" in done.out


@pytest.mark.parametrize(
    ("stage", "override", "difference"),
    [
        ("verb", "stages.verb.clip.stride=4", ("stages.verb.clip.stride", "2", "4")),
        ("verb", "stages.verb.network.width=8", ("stages.verb.network.width", "4", "8")),
        ("verb", "stages.verb.dtype=float32", ("stages.verb.dtype", "float16", "float32")),
        (
            "verb",
            "stages.verb.weights_seed=9",
            ("stages.verb.weights", "random, seed 1", "random, seed 9"),
        ),
        (
            "noun",
            "stages.noun.outputs=[map,pooled]",
            ("stages.noun.outputs", '["map"]', '["map","pooled"]'),
        ),
        (
            "noun",
            "stages.noun.size_px=48",
            ("stages.noun.size_px", "32", "48"),
        ),
        ("objects", "stages.objects.top_k=2", ("stages.objects.top_k", "3", "2")),
        (
            "objects",
            "stages.objects.detector.layer=layer2",
            ("stages.objects.detector.layer", "layer1", "layer2"),
        ),
        (
            "aligned",
            "stages.aligned.local_window_seconds=2",
            ("stages.aligned.local_window_seconds", "1.0", "2.0"),
        ),
        # Derived rows: what differs of the stages they are made from.
        ("aligned", "stages.verb.clip.stride=4", ("stages.verb.clip.stride", "2", "4")),
        ("aligned", "stages.objects.top_k=2", ("stages.objects.top_k", "3", "2")),
    ],
)
def test_the_setting_that_differs_from_the_nearest_generation(
    stage: str, override: str, difference: tuple[str, str, str], finished: Path
) -> None:
    assert differences(finished, stage, override) == [difference]
    old, new = difference[1:]
    done = symbio("explain", finished, "--stage", stage, "--set", override)
    assert f"{difference[0]} {old} → {new}" in done.out


def test_the_nearest_generation_has_the_fewest_differences(copied: Path) -> None:
    other = ("--set", "stages.verb.clip.stride=3", "--set", "stages.verb.dtype=float32")
    assert symbio("run", copied, "--stage", "verb", *other, "--quiet").code == 0
    near = ("stages.verb.clip.stride=3", "stages.verb.dtype=bfloat16")
    assert differences(copied, "verb", *near) == [("stages.verb.dtype", "float32", "bfloat16")]
    assert differences(copied, "verb", "stages.verb.clip.stride=4") == [
        ("stages.verb.clip.stride", "2", "4")
    ]


def test_how_frames_are_resized_is_told_by_the_setting_that_decides_it(copied: Path) -> None:
    published = ("stages.verb.geometry=published", "stages.verb.size_px=null")
    assert differences(copied, "verb", *published) == [
        ("stages.verb.geometry", "square", "published")
    ]
    options = [word for override in published for word in ("--set", override)]
    assert symbio("run", copied, "--stage", "verb", "--quiet", *options).code == 0
    # Two generations are as near now, and the newer one is told of.
    assert differences(copied, "verb", "stages.verb.size_px=48") == [
        ("stages.verb.geometry", "published", "square")
    ]
    other = "stages.verb.network={name: r2plus1d, depth: 18}"
    of_publishers = [
        found for found in differences(copied, "verb", *published, other) if "geometry" in found[0]
    ]
    assert of_publishers == [
        (
            "stages.verb.geometry",
            "published, 112 px cropped to 112",
            "published, 128 px cropped to 112",
        )
    ]


def test_sizes_of_flow_are_told_by_their_settings(copied: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'symbio[flow]'")
    network = "stages.noun.network={name: i3d, modality: flow}"
    flow = "stages.noun.flow={method: tvl1, short_side_px: 32}"
    found = dict.fromkeys(path for path, _, _ in differences(copied, "noun", network, flow))
    assert "stages.noun.flow.short_side_px" in found
    assert not {"stages.noun.size_px", "stages.noun.geometry"} & {*found}  # which are as before
    options = ("--set", network, "--set", flow)
    assert symbio("run", copied, "--stage", "noun", "--quiet", *options).code == 0
    assert differences(copied, "noun", network, flow, "stages.noun.size_px=48") == [
        ("stages.noun.size_px", "32", "48")
    ]
    shorter = flow.replace("short_side_px: 32", "short_side_px: 40")
    assert differences(copied, "noun", network, shorter) == [
        ("stages.noun.flow.short_side_px", "32", "40")
    ]


def test_an_upstream_generation_that_is_gone(copied: Path) -> None:
    shutil.rmtree(next((copied.parent / "store" / "verb").glob("*/")))
    ((path, old, new),) = differences(copied, "aligned", "stages.verb.clip.stride=4")
    assert path == "stage verb"
    assert old.endswith(", which is stored no more")
    assert new.startswith("generation ")


def test_weights_are_told_by_digest_and_file(copied: Path) -> None:
    files = []
    for seed in (1, 2):
        file = copied.parent / f"weights{seed}.safetensors"
        torch.manual_seed(seed)
        save_checkpoint(file, ResNet3D(10, width=4))
        files.append(file)
    first, second = (
        ("stages.verb.weights_seed=null", f"stages.verb.weights={file}") for file in files
    )
    options = [word for override in first for word in ("--set", override)]
    assert symbio("run", copied, "--stage", "verb", "--quiet", *options).code == 0
    ((path, old, new),) = differences(copied, "verb", *second)
    assert path == "stages.verb.weights"
    assert (old.split()[0], old.split()[2]) == ("sha256", f"({files[0]})")
    assert (new.split()[0], new.split()[2]) == ("sha256", f"({files[1]})")
    assert old.split()[1] != new.split()[1]


def test_no_generation_at_all(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    found = explained(config, "verb")
    assert found["nearest"] is None
    assert reasons(config, "verb") == {"no_generation": 6}
    assert reasons(config, "aligned") == {"upstream_missing": 6}
    assert not (tmp_path / "store").exists()


def test_a_video_that_changed(copied: Path) -> None:
    video = copied.parent / "videos" / "kitchen_b.mp4"
    write_video(video, num_frames=65, rate_fps=30)
    assert reasons(copied, "verb") == {"content_changed": 2}
    assert reasons(copied, "objects") == {"content_changed": 5}
    assert reasons(copied, "aligned") == {"upstream_missing": 2}
    (reason,) = explained(copied, "verb")["reasons"]
    assert reason["examples"] == ["kitchen_b/b0/0", "kitchen_b/b1/0"]
    assert reason["text"].startswith("video kitchen_b: its content changed")
    found = explained(copied, "verb", "--clip", "kitchen_b/b1/0")
    assert (found["state"], found["reason"]) == ("missing", "content_changed")


def test_labels_that_moved(copied: Path) -> None:
    moved = ("b0", "kitchen_b", 0.1, 1.1, 1, 1, "val")
    new = ("b2", "kitchen_b", 0.2, 0.9, 1, 1, "val")
    elsewhere = ("c0", "kitchen_c", 0.2, 0.9, 1, 1, "val")
    write_labels(copied.parent / "labels.csv", [*SEGMENTS[:2], moved, SEGMENTS[3], new, elsewhere])
    video = copied.parent / "videos" / "kitchen_c.mp4"
    write_video(video, num_frames=61, rate_fps=30)
    boxes = copied.parent / "boxes.csv"
    boxes.write_text(boxes.read_text() + "kitchen_c,0,4,4,30,30,0.9,1\n")
    assert reasons(copied, "verb") == {"times_changed": 1, "never_made": 1, "new_video": 1}
    found = {reason["name"]: reason["text"] for reason in explained(copied, "verb")["reasons"]}
    # Four frames of stride 2 at 30 fps, the third of them in the middle of the segment.
    assert found["times_changed"] == (
        "video kitchen_b: frames were at 0.37–0.57 s and are at 0.47–0.67 s"
    )
    moved_more = ("b1", "kitchen_b", 1.1, 2.0, 0, 0, "val")
    assert moved_more[:2] == SEGMENTS[3][:2]
    write_labels(copied.parent / "labels.csv", [*SEGMENTS[:2], moved, moved_more, elsewhere])
    found = {reason["name"]: reason for reason in explained(copied, "verb")["reasons"]}
    assert (found["times_changed"]["rows"], found["times_changed"]["text"]) == (
        2,
        "video kitchen_b: frames are at other times, such as 0.37–0.57 s then and 0.47–0.67 s now",
    )
    video.unlink()
    assert explained(copied, "verb")["missing_videos"] == {"kitchen_c": f"{video}: no such file"}
    done = symbio("explain", copied, "--stage", "verb", "--clip", "kitchen_c/c0/0")
    assert (done.code, "its video is missing" in done.err) == (2, True)


def test_a_video_that_is_known_and_gone(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.identity.RACY_NANOSECONDS", 0)
    assert symbio("run", copied, "--quiet").code == 0  # which remembers the content of videos
    (copied.parent / "videos" / "kitchen_b.mp4").unlink()
    options = ("--set", "stages.verb.clip.stride=1")
    assert reasons(copied, "verb", *options) == {"no_generation": 4, "video_gone": 2}


def test_rows_that_failed_and_trying_one_again(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    video = tmp_path / "videos" / "kitchen_b.mp4"
    whole = video.read_bytes()
    video.write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    stored = files_of(tmp_path / "store")
    assert reasons(config, "verb") == {"failed": 2}
    lines = symbio("explain", config, "--stage", "verb").out.splitlines()
    (again,) = (line for line in lines if "see it again: " in line)
    words = shlex.split(again.partition("see it again: ")[2])
    assert words[3:] == ["--stage", "verb", "--clip", "kitchen_b/b0/0", "--try"]
    (reason,) = explained(config, "aligned")["reasons"]
    assert (reason["name"], reason["rows"]) == ("upstream_failed", 2)
    assert reason["text"] == (
        "rows of verb and noun and objects that it is made from failed (9 unreadable_video)"
    )
    found = explained(config, "verb", "--clip", "kitchen_b/b0/0")
    assert (found["state"], found["reason"], found["tried"]) == ("failed", "unreadable_video", None)
    failures = json.loads(symbio("failures", config, "--stage", "objects", "--json").out)
    done = symbio(*shlex.split(failures["failures"][0]["reproduce"])[1:])
    assert done.code == 1
    assert "tried now: it fails: unreadable_video: " in done.out
    assert str(video) in done.out
    video.write_bytes(whole)
    done = symbio("explain", config, "--stage", "verb", "--clip", "kitchen_b/b0/0", "--try")
    assert (done.code, "it can be made" in done.out) == (0, True)
    assert files_of(tmp_path / "store") == stored


def test_rows_that_failed_before_their_video_or_label_changed(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    video = tmp_path / "videos" / "kitchen_b.mp4"
    video.write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    video.write_text("not a video either")
    assert reasons(config, "verb") == {"failed_before": 2}
    (reason,) = explained(config, "verb")["reasons"]
    assert reason["text"] == (
        "video kitchen_b: failed then as unreadable_video; its times or content have changed since"
    )
    (reason,) = explained(config, "objects")["reasons"]
    assert (reason["name"], reason["rows"]) == ("failed_before", 5)
    assert "; its content or the boxes given for it have changed" in reason["text"]
    new = ("b2", "kitchen_b", 0.2, 0.9, 1, 1, "val")
    write_labels(config.parent / "labels.csv", [*SEGMENTS, new])
    found = {reason["name"]: reason for reason in explained(config, "verb")["reasons"]}
    assert {name: reason["rows"] for name, reason in found.items()} == {
        "failed_before": 2,
        "never_made": 1,
    }
    assert found["never_made"]["text"] == (
        "video kitchen_b: not made yet; others of it failed as unreadable_video"
    )


def test_one_row_that_is_stored(finished: Path) -> None:
    found = explained(finished, "aligned", "--clip", "kitchen_a/a0/1", "--try")
    assert (found["state"], found["video"], found["tried"]) == (
        "stored",
        "kitchen_a",
        {"made": True},
    )
    assert found["stored_at"].startswith("20")
    assert Path(found["log"]).is_file()
    done = symbio("explain", finished, "--stage", "objects", "--clip", "kitchen_b@1.5s")
    assert "kitchen_b@1.5s: stored: stored in " in done.out


def test_rows_that_there_are_not(finished: Path) -> None:
    done = symbio("explain", finished, "--stage", "verb", "--clip", "kitchen_a/a0/7")
    assert done.code == 2
    assert "has no row 'kitchen_a/a0/7'" in done.err
    assert "kitchen_a/a0/0" in done.err
    done = symbio("explain", finished, "--stage", "verb", "--try")
    assert (done.code, "--try goes with --clip" in done.err) == (2, True)


def test_the_documentation_lists_the_reasons() -> None:
    rows = table_rows(section("docs/extraction.md", "Why rows are missing"))
    assert [row[0].strip("`") for row in rows] == list(get_args(ReasonName))
