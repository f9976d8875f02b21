"""Whole runs on small videos: what is computed, what is not, and that results do not depend on it.

Forward passes are counted where they happen, so that "nothing was done" is seen, not believed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cli_fixtures import table_rows
from experiment_fixtures import SEGMENTS, Silent, make_experiment, write_boxes, write_labels
from rich.console import Console
from video_files import write_video

from extractors.clip_network import ClipNetwork
from extractors.given_boxes import GivenBoxesExtractor
from pipeline import head_runs
from pipeline.console import print_run
from pipeline.errors import AnnotationError
from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from pipeline.stages import STAGE_NAMES
from stores.registry import open_store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows that went through a network since the counter was cleared, by kind of network."""
    counts: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, rows: Any, *rest: Any) -> Any:
            counts[name] += len(rows)
            return call(self, rows, *rest)

        return wrapper

    monkeypatch.setattr(ClipNetwork, "launch", counted("clips", ClipNetwork.launch))
    monkeypatch.setattr(
        GivenBoxesExtractor, "__call__", counted("frames", GivenBoxesExtractor.__call__)
    )
    return counts


def run(folder: Path, overrides: Sequence[str] = (), **options: Any) -> RunReport:
    """Bring the small experiment up to date."""
    arguments: dict[str, Any] = {"stages": STAGE_NAMES, "retry_failed": False} | options
    return run_experiment(
        resolve(make_experiment(folder, overrides)),
        reporter=Silent(),
        stop=threading.Event(),
        **arguments,
    )


def made(report: RunReport) -> dict[str, int]:
    """Rows made per stage, those with none left out."""
    return {stage.stage: stage.made for stage in report.stages if stage.made}


def stored(folder: Path) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Everything in the store: stage/key → row key → output → array."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with open_store(folder / "store", mode="r") as store:
        for info in store.generations():
            generation = store.generation(info.stage, info.key)
            keys = generation.keys()
            arrays = generation.read(keys)
            found[f"{info.stage}/{info.key}"] = {
                key: {name: values[i] for name, values in arrays.items()}
                for i, key in enumerate(keys)
            }
    return found


def assert_same_rows(got: Any, expected: Any) -> None:
    assert {stage: set(rows) for stage, rows in got.items()} == {
        stage: set(rows) for stage, rows in expected.items()
    }
    for stage, rows in expected.items():
        for key, arrays in rows.items():
            for name, values in arrays.items():
                np.testing.assert_array_equal(got[stage][key][name], values, err_msg=stage)


# Two training segments with two views each, two validation segments with one. Their 2-s windows
# on the half-second grid reach 0 … 2 s in kitchen_a and 0 … 2 s in kitchen_b.
ALL = {"verb": 6, "noun": 6, "objects": 10, "aligned": 6}


def test_first_run_makes_everything_and_the_second_nothing(
    tmp_path: Path, forwards: Counter[str]
) -> None:
    assert made(run(tmp_path)) == ALL
    assert forwards == {"clips": 12, "frames": 10}
    forwards.clear()
    report = run(tmp_path)
    assert made(report) == {}
    assert report.complete
    assert forwards == {}


def test_one_more_segment_makes_exactly_its_rows(tmp_path: Path, forwards: Counter[str]) -> None:
    run(tmp_path)
    forwards.clear()
    write_labels(tmp_path / "labels.csv", [*SEGMENTS, ("b2", "kitchen_b", 1.2, 1.6, 0, 0, "val")])
    # Its window is that of b1, whose middle is 1.4 s as well: the frames are there, and so are
    # the clips of that centre; only times that differ are new.
    assert made(run(tmp_path)) == {}
    write_labels(tmp_path / "labels.csv", [*SEGMENTS, ("b2", "kitchen_b", 1.2, 1.5, 0, 0, "val")])
    assert made(run(tmp_path)) == {"verb": 1, "noun": 1, "aligned": 1}
    assert forwards == {"clips": 2}


def test_more_test_views_find_the_rows_of_fewer(tmp_path: Path, forwards: Counter[str]) -> None:
    run(tmp_path)
    forwards.clear()
    # Two validation segments: their middles are there. The last window now reaches 2.5 s.
    added = {"verb": 4, "noun": 4, "objects": 1, "aligned": 4}
    assert made(run(tmp_path, ["views.test=3"])) == added
    assert forwards == {"clips": 8, "frames": 1}
    assert made(run(tmp_path, ["views.test=1"])) == {}


def test_a_changed_stride_concerns_its_stage_and_what_is_derived(
    tmp_path: Path, forwards: Counter[str]
) -> None:
    run(tmp_path)
    before = stored(tmp_path)
    forwards.clear()
    assert made(run(tmp_path, ["stages.verb.clip.stride=1"])) == {"verb": 6, "aligned": 6}
    assert forwards == {"clips": 6}
    forwards.clear()
    assert made(run(tmp_path)) == {}
    assert forwards == {}
    after = stored(tmp_path)
    assert_same_rows({stage: after[stage] for stage in before}, before)


def test_a_renamed_video_is_the_same_video(tmp_path: Path, forwards: Counter[str]) -> None:
    run(tmp_path)
    forwards.clear()
    (tmp_path / "videos" / "kitchen_b.mp4").rename(tmp_path / "videos" / "kitchen_c.mp4")
    renamed = [(s[0], s[1].replace("_b", "_c"), *s[2:]) for s in SEGMENTS]
    write_labels(tmp_path / "labels.csv", renamed)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(boxes.read_text().replace("kitchen_b", "kitchen_c"))
    report = run(tmp_path)
    assert made(report) == {}
    assert report.complete
    assert forwards == {}


def test_replaced_content_makes_that_video_anew(tmp_path: Path, forwards: Counter[str]) -> None:
    run(tmp_path)
    forwards.clear()
    write_video(tmp_path / "videos" / "kitchen_b.mp4", num_frames=64, rate_fps=30)
    report = run(tmp_path)
    assert made(report) == {"verb": 2, "noun": 2, "objects": 5, "aligned": 2}
    assert forwards == {"clips": 4, "frames": 5}


def test_changed_boxes_make_those_frames_anew(tmp_path: Path, forwards: Counter[str]) -> None:
    run(tmp_path)
    forwards.clear()
    boxes = tmp_path / "boxes.csv"
    changed = boxes.read_text().replace("kitchen_a,1.0,4,4,30,30", "kitchen_a,1.0,5,4,30,30")
    assert changed != boxes.read_text()
    boxes.write_text(changed)
    assert made(run(tmp_path)) == {"objects": 1, "aligned": 4}
    assert forwards == {"frames": 1}


def test_one_stage_alone(tmp_path: Path, forwards: Counter[str]) -> None:
    assert made(run(tmp_path, stages=("verb",))) == {"verb": 6}
    assert forwards == {"clips": 6}
    report = run(tmp_path, stages=("aligned",))
    assert made(report) == {}
    assert report.stages[0].skipped == 6
    assert not report.complete
    assert made(run(tmp_path)) == {"noun": 6, "objects": 10, "aligned": 6}


@pytest.mark.parametrize(("together", "processes"), [(True, 0), (True, 2), (False, 1)])
def test_results_do_not_depend_on_batches_company_or_processes(
    tmp_path: Path, together: bool, processes: int
) -> None:
    overrides = [f"stages.{name}.dtype=float32" for name in ("verb", "noun", "objects")]
    run(tmp_path / "one", overrides)
    overrides.append(f"engine.decode_processes={processes}")
    overrides += [
        f"stages.{name}.batch_size={size}"
        for name, size in (("verb", 5), ("noun", 1), ("objects", 3))
    ]
    shutil.copytree(tmp_path / "one" / "videos", tmp_path / "two" / "videos")
    for name in ("labels.csv", "boxes.csv"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
    for stages in (STAGE_NAMES,) if together else tuple((name,) for name in STAGE_NAMES):
        run(tmp_path / "two", overrides, stages=stages)
    assert_same_rows(stored(tmp_path / "two"), stored(tmp_path / "one"))


def test_a_killed_run_goes_on_with_what_was_not_committed(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    expected = stored(tmp_path / "whole")
    half = tmp_path / "half"
    make_experiment(half)
    shutil.rmtree(half / "videos")
    shutil.copytree(tmp_path / "whole" / "videos", half / "videos")
    # The child commits the verb shard, says so, and never gets to the others.
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "import test_end_to_end as t, pipeline.run as r\n"
        "from stores.folder_generation import FolderGeneration as G\n"
        "commit = G.commit\n"
        "def slow(self, *a, **k):\n"
        "    commit(self, *a, **k); print('committed', self.stage, flush=True); time.sleep(60)\n"
        "G.commit = slow\n"
        "t.run(Path(sys.argv[1]))\n"
    )
    arguments = [sys.executable, "-c", script, str(half), str(ROOT), str(ROOT / "tests")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "committed verb\n"
        child.send_signal(signal.SIGKILL)
    report = run(half)
    # A shard that was whole but not committed may have been adopted.
    assert "verb" not in made(report)
    assert made(report)["aligned"] == 6
    assert_same_rows(stored(half), expected)


def test_an_interrupted_run_keeps_what_is_finished(tmp_path: Path) -> None:
    experiment = resolve(make_experiment(tmp_path, ["stages.verb.batch_size=1"]))
    stop = threading.Event()

    calls = 0
    original = ClipNetwork.launch

    def stopping(self: ClipNetwork, clips: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            stop.set()
        return original(self, clips)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipNetwork, "launch", stopping)
        report = run_experiment(
            experiment, stages=STAGE_NAMES, retry_failed=False, reporter=Silent(), stop=stop
        )
    assert report.interrupted
    assert not report.complete
    kept = made(report)
    assert 0 < sum(kept.values()) < sum(ALL.values())
    assert {stage.stage: stage.made + stage.left for stage in report.stages} == ALL
    assert [stage.skipped for stage in report.stages] == [0, 0, 0, 0]
    out = io.StringIO()
    print_run(Console(file=out, width=80), report, quiet=False)
    left = sum(stage.left for stage in report.stages)
    assert f"{left} rows are still to be made\n" in out.getvalue()
    assert table_rows(out.getvalue(), ["left"])["aligned"]["left"] == "6"
    assert "skipped because" not in out.getvalue()
    rest = made(run(tmp_path))
    assert {name: kept.get(name, 0) + rest.get(name, 0) for name in ALL} == ALL


def test_the_store_explains_itself(tmp_path: Path) -> None:
    run(tmp_path)
    group = zarr.open_group(tmp_path / "store", mode="r")
    generations = {name: next(iter(group[name].group_keys())) for name in STAGE_NAMES}
    maps = group[f"verb/{generations['verb']}/map"]
    assert maps.metadata.dimension_names == ("row", "time", "y", "x", "channel")
    boxes = group[f"objects/{generations['objects']}/boxes_xyxy_px"]
    assert boxes.attrs["units"] == "px"
    file = tmp_path / "store" / "verb" / generations["verb"] / "stage.json"
    stage = json.loads(file.read_text())["provenance"]
    assert stage["settings"]["weights"] == {"random": 1}
    assert stage["settings"]["sampling"] == {"frames": 4, "stride": 2, "rate_fps": 30.0}
    table = (tmp_path / "store" / "verb" / generations["verb"] / "rows.csv").read_text()
    assert "kitchen_a/a0/1" in table


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    """The small experiment with kitchen_b damaged."""
    make_experiment(tmp_path)
    return tmp_path / "videos" / "kitchen_b.mp4"


def test_a_damaged_video_fails_and_the_others_finish(unreadable: Path, tmp_path: Path) -> None:
    whole = unreadable.read_bytes()
    unreadable.write_bytes(b"not a video at all")
    report = run(tmp_path)
    assert made(report) == {"verb": 4, "noun": 4, "objects": 5, "aligned": 4}
    verb = report.stages[0]
    assert {failure.video_id for failure in verb.failures} == {"kitchen_b"}
    assert {failure.error_class for failure in verb.failures} == {"UnreadableVideo"}
    assert str(unreadable) in verb.failures[0].message
    assert not report.complete
    # Left alone until it is asked for …
    again = run(tmp_path)
    assert made(again) == {}
    assert again.stages[0].failed_before == 2
    assert not again.complete
    assert len(run(tmp_path, retry_failed=True).stages[0].failures) == 2
    # … and made without asking once the file is another one.
    unreadable.write_bytes(whole)
    assert made(run(tmp_path)) == {"verb": 2, "noun": 2, "objects": 5, "aligned": 2}


def test_a_cut_off_video_is_refused_not_padded(unreadable: Path, tmp_path: Path) -> None:
    # Matroska promises a duration in its header and decodes to the cut without a word.
    video = write_video(tmp_path / "whole.mkv", num_frames=66, rate_fps=30)
    data = video.read_bytes()
    unreadable.unlink()
    unreadable.with_suffix(".mkv").write_bytes(data[: len(data) // 2])
    (tmp_path / "videos" / "kitchen_a.mp4").rename(tmp_path / "videos" / "kitchen_a.mkv")
    report = run(tmp_path, ["data.videos.pattern={video_id}.mkv"])
    assert {f.error_class for f in report.stages[0].failures} == {"TruncatedVideo"}
    assert made(report)["verb"] == 4


def test_a_segment_beyond_the_video_fails_alone(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    late = ("a9", "kitchen_a", 1.0, 9.0, 0, 0, "val")
    write_labels(tmp_path / "labels.csv", [*SEGMENTS, late])
    report = run(tmp_path)
    failures = report.stages[0].failures
    assert [failure.clip_id for failure in failures] == ["kitchen_a/a9/0"]
    assert "got 2.00 s of video, expected a segment from 1.00 to 9.00 s" in failures[0].message
    assert made(report)["verb"] == 6


def test_a_missing_video_is_named_and_the_others_finish(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    (tmp_path / "videos" / "kitchen_b.mp4").unlink()
    report = run(tmp_path)
    assert made(report) == {"verb": 4, "noun": 4, "objects": 5, "aligned": 4}
    assert [missing.video.video_id for missing in report.missing_videos] == ["kitchen_b"]
    assert report.missing_videos[0].count == 2
    assert not report.complete


def test_the_prior_counts_training_segments_without_features_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training as in evaluation, so that one does not choose by what the other does not see."""
    config = make_experiment(tmp_path)
    gone = ("c0", "kitchen_c", 0.1, 0.9, 1, 2, "train")
    write_labels(tmp_path / "labels.csv", [*SEGMENTS, gone])
    write_boxes(tmp_path / "boxes.csv", ("kitchen_a", "kitchen_b", "kitchen_c"))
    assert not run(tmp_path).complete
    given: dict[str, Any] = {}
    monkeypatch.setattr(head_runs, "train_head", lambda *_, **options: given.update(options))
    head_runs.train_run(
        resolve(config),
        tmp_path / "head",
        resume=False,
        skip_missing=True,
        on_epoch=lambda *_: None,
    )
    third = 1 / 3
    assert given["prior"].tolist() == [[0, third, 0], [third, 0, third]]


def test_a_video_may_be_deleted_once_its_rows_are_stored(
    tmp_path: Path, forwards: Counter[str]
) -> None:
    make_experiment(tmp_path)
    for video in (tmp_path / "videos").iterdir():
        old = time.time() - 3600
        os.utime(video, (old, old))
    time.sleep(2.1)  # files that changed a moment ago are not remembered
    run(tmp_path)
    shutil.rmtree(tmp_path / "videos")
    (tmp_path / "videos").mkdir()
    forwards.clear()
    report = run(tmp_path)
    assert report.complete
    assert forwards == {}


def test_times_before_and_after_the_video_are_flagged(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    write_labels(
        tmp_path / "labels.csv",
        [
            ("e", "kitchen_a", 0.0, 0.1, 0, 0, "val"),
            ("m", "kitchen_a", 0.9, 1.1, 0, 0, "val"),
            ("z", "kitchen_a", 1.9, 2.0, 0, 0, "val"),
        ],
    )
    run(tmp_path, stages=("verb",))
    folder = next((tmp_path / "store" / "verb").glob("*/rows.csv"))
    rows = {line.split(",")[4]: line for line in folder.read_text().splitlines()}
    assert {name: "clamped" in rows[name] for name in "emz"} == {"e": True, "m": False, "z": True}


@pytest.mark.parametrize("truncated", ["refuse", "clamp"])
def test_a_segment_wholly_after_the_video_fails(tmp_path: Path, truncated: str) -> None:
    make_experiment(tmp_path)
    late = ("late", "kitchen_a", 2.3, 2.9, 0, 0, "val")
    write_labels(tmp_path / "labels.csv", [*SEGMENTS, late])
    report = run(tmp_path, [f"data.videos.truncated={truncated}"])
    failures = report.stages[0].failures
    assert [failure.clip_id for failure in failures] == ["kitchen_a/late/0"]


def test_a_video_that_vanished_is_missing_not_failed(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    time.sleep(2.1)  # files that changed a moment ago are not remembered
    run(tmp_path)
    video = tmp_path / "videos" / "kitchen_b.mp4"
    aside = video.rename(tmp_path / "aside.mp4")
    report = run(tmp_path, ["stages.verb.weights_seed=9"])
    assert [missing.video.video_id for missing in report.missing_videos] == ["kitchen_b"]
    assert made(report) == {"verb": 4, "aligned": 4}
    assert report.stages[0].present == 0
    assert not any(stage.failures for stage in report.stages)
    aside.rename(video)
    assert made(run(tmp_path, ["stages.verb.weights_seed=9"])) == {"verb": 2, "aligned": 2}


def test_boxes_of_another_spelling_are_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(boxes.read_text().replace("kitchen_a", "Kitchen_a"))
    with pytest.raises(AnnotationError, match=r"no line for 1 labelled videos \(kitchen_a\)"):
        run(tmp_path)
