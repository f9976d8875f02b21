"""One video at a time: which rows fail, and that a video which changes gives none."""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from experiment_fixtures import Silent, make_experiment
from PIL import Image
from video_files import KEYS, damage, write_video

from extractors.file_stamp import file_stamp
from extractors.geometry import Geometry, square
from pipeline import decode_videos
from pipeline.decode_videos import Decoded, decode_video
from pipeline.experiment import resolve
from pipeline.rows import VideoRow
from pipeline.run import run_experiment
from pipeline.stages import STAGE_NAMES
from pipeline.videos import Video
from pipeline.work import Progress, VideoWork
from stores.base import Failure


def row(name: str, frame: int, *, count: int = 1, until_seconds: float = 0.5) -> VideoRow:
    key = hashlib.sha256(name.encode()).hexdigest()
    times = np.round((np.arange(frame, frame + count) + 0.5) / 30 * 1e6).astype(np.int64)
    return VideoRow(key, "v", "s", 0, name, times, 0.0, until_seconds)


@pytest.fixture
def work(tmp_path: Path) -> VideoWork:
    """Twenty frames; two rows of one stage, one of another."""
    path = write_video(tmp_path / "v.mp4", num_frames=20)
    video = Video("v", path, "file", None, None, stamp=file_stamp(path))
    return VideoWork(video, {"verb": [row("a", 2), row("b", 9)], "objects": [row("c", 15)]})


def outcome(items: list[Decoded]) -> tuple[list[str], dict[str, str]]:
    """Clip ids of the rows that came, and the error class of those that did not."""
    rows = [item.row.clip_id for item in items if not isinstance(item, Progress)]
    failed = [f for item in items if isinstance(item, Progress) for f in item.failures]
    return rows, {failure.clip_id: failure.error_class for failure in failed}


GEOMETRIES = {"verb": square(8), "objects": None}


def test_rows_come_as_they_are_complete(work: VideoWork) -> None:
    assert outcome(list(decode_video(work, GEOMETRIES))) == (["a", "b", "c"], {})


def test_a_segment_outside_the_video_fails_alone(work: VideoWork) -> None:
    rows = {"verb": [row("a", 2), row("far", 9, until_seconds=9.0)]}
    found = outcome(list(decode_video(VideoWork(work.video, rows), GEOMETRIES)))
    assert found == (["a"], {"far": "TruncatedVideo"})


def test_a_video_replaced_before_it_is_read_gives_no_row(work: VideoWork) -> None:
    write_video(work.video.path, num_frames=25)
    rows, failures = outcome(list(decode_video(work, GEOMETRIES)))
    assert rows == []
    assert failures == dict.fromkeys("abc", "VideoChanged")


def test_a_video_that_is_deleted_gives_no_more_rows_and_says_so(work: VideoWork) -> None:
    decoded = decode_video(work, GEOMETRIES)
    first = next(decoded)
    work.video.path.unlink()
    assert outcome([first, *decoded]) == (["a"], dict.fromkeys("bc", "VideoVanished"))
    assert outcome(list(decode_video(work, GEOMETRIES))) == (
        [],
        dict.fromkeys("abc", "VideoVanished"),
    )


def test_a_video_written_to_while_it_is_read_gives_no_more_rows(work: VideoWork) -> None:
    decoded = decode_video(work, GEOMETRIES)
    first = next(decoded)
    os.utime(work.video.path, ns=(0, 0))
    rows, failures = outcome([first, *decoded])
    assert rows == ["a"]
    assert failures == dict.fromkeys("bc", "VideoChanged")


def test_nothing_is_said_of_a_stage_none_of_whose_rows_fail(work: VideoWork) -> None:
    decoded = decode_video(work, GEOMETRIES)
    items = [next(decoded), next(decoded)]  # all rows of the first stage
    os.utime(work.video.path, ns=(0, 0))
    items += decoded
    assert outcome(items) == (["a", "b"], {"c": "VideoChanged"})
    assert [i.stage for i in items if isinstance(i, Progress)] == ["objects"]


@pytest.mark.parametrize("kind", ["file", "frames", "tar"])
def test_a_row_whose_video_changed_by_its_last_frame_is_none(
    work: VideoWork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Literal["file", "frames", "tar"],
) -> None:
    path = work.video.path
    if kind != "file":
        path = tmp_path / "frames"
        path.mkdir()
        for number in range(1, 21):
            Image.new("RGB", (8, 6)).save(path / f"frame_{number:02d}.png")
    if kind == "tar":
        with tarfile.open(tmp_path / "frames.tar", "w") as archive:
            archive.add(path, ".")
        path = tmp_path / "frames.tar"
    rate = None if kind == "file" else 30.0
    video = Video("v", path, kind, rate, None, stamp=file_stamp(path))
    apply, seen = Geometry.apply, []

    def resizing(geometry: Geometry, frame: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:  # after what the reader itself looks at
            os.utime(path, ns=(0, 0))
        return apply(geometry, frame)

    monkeypatch.setattr(Geometry, "apply", resizing)
    decoded = decode_video(VideoWork(video, work.rows), GEOMETRIES)
    rows, failures = outcome(list(decoded))
    assert rows == ["a"]
    assert failures == dict.fromkeys("bc", "VideoChanged")


@pytest.fixture
def gap(work: VideoWork, tmp_path: Path) -> VideoWork:
    """Twenty images but for the one that row b looks at; row c looks at one after it."""
    for number in range(1, 21):
        Image.new("RGB", (8, 6)).save(tmp_path / f"frame_{number:02d}.png")
    (tmp_path / "frame_09.png").unlink()
    return VideoWork(Video("v", tmp_path, "frames", 30.0, None), work.rows)


def test_a_missing_image_fails_the_rows_that_look_at_it(gap: VideoWork) -> None:
    rows, failures = outcome(list(decode_video(gap, GEOMETRIES)))
    assert rows == ["a", "c"]
    assert failures == {"b": "FrameDecodeError"}


def test_every_row_fares_as_it_does_alone(tmp_path: Path, gap: VideoWork) -> None:
    """Clips of eight frames, which share frames with each other, and single frames."""
    whole = write_video(tmp_path / "w.mkv", codec_options=f"{KEYS}:bframes=3")
    damaged = Video("v", damage(whole), "file", None, None)
    clips = [row(f"c{i}", i, count=8) for i in range(0, 110, 5)]
    rows = {"verb": clips, "objects": [row(f"o{i}", i) for i in range(0, 120, 6)]}
    (gap.video.path / "frame_13.png").write_bytes(b"no image")
    images = {"verb": clips[:3], "objects": [row(f"o{i}", i) for i in range(0, 20, 2)]}
    for work in (VideoWork(damaged, rows), replace(gap, rows=images)):
        together = fates(work)
        assert {type(fate) for fate in together.values()} == {Failure, bytes}
        for stage, each in work.rows.items():
            for one in each:
                alone = fates(VideoWork(work.video, {stage: [one]}))
                assert alone == {(stage, one.clip_id): together[stage, one.clip_id]}


def fates(work: VideoWork) -> dict[tuple[str, str], Failure | bytes]:
    """The pixels of each row, or its failure."""
    found: dict[tuple[str, str], Failure | bytes] = {}
    for item in decode_video(work, GEOMETRIES):
        if isinstance(item, Progress):
            named: dict[str, Failure | bytes] = {f.clip_id: f for f in item.failures}
            assert named
        else:
            named = {item.row.clip_id: np.stack(item.frames).tobytes()}
        for clip_id, fate in named.items():
            assert (item.stage, clip_id) not in found
            found[item.stage, clip_id] = fate
    assert len(found) == sum(map(len, work.rows.values()))
    return found


def test_a_folder_cut_short_is_refused_whatever_else_it_misses(gap: VideoWork) -> None:
    promised = replace(gap.video, promised_seconds=2.0)
    rows, failures = outcome(list(decode_video(VideoWork(promised, gap.rows), GEOMETRIES)))
    assert rows == []
    assert failures == dict.fromkeys("abc", "TruncatedVideo")


def test_whatever_a_library_raises_concerns_this_video(
    work: VideoWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("in a library")

    monkeypatch.setattr(decode_videos, "decode_pass", broken)
    rows, failures = outcome(list(decode_video(work, GEOMETRIES)))
    assert rows == []
    assert failures == dict.fromkeys("abc", "RuntimeError")


def test_stages_that_have_all_their_rows_fail_none(work: VideoWork) -> None:
    """Whoever takes failures looks at the first of them to know whose they are."""
    decoded = decode_video(work, GEOMETRIES)
    first = [next(decoded), next(decoded)]
    os.utime(work.video.path, ns=(0, 0))
    rest = list(decoded)
    assert outcome([*first, *rest]) == (["a", "b"], {"c": "VideoChanged"})
    assert [len(item.failures) for item in rest if isinstance(item, Progress)] == [1]


def test_a_run_refuses_a_video_that_changed_since_it_was_planned(tmp_path: Path) -> None:
    config = make_experiment(tmp_path)
    experiment = resolve(config)
    write_video(tmp_path / "videos" / "kitchen_a.mp4", num_frames=70)

    def run() -> tuple[Counter[str], set[str]]:
        report = run_experiment(
            experiment,
            stages=STAGE_NAMES,
            retry_failed=False,
            reporter=Silent(),
            stop=threading.Event(),
        )
        failures = [f for stage in report.stages for f in stage.failures]
        made = Counter({stage.stage: stage.made for stage in report.stages})
        return made, {f"{f.video_id} {f.error_class}" for f in failures}

    made, failures = run()
    assert failures == {"kitchen_a VideoChanged"}
    assert made["verb"] == 2  # of the other video
    # Another content has other row keys: nothing of it has failed before.
    experiment = resolve(config)
    made, failures = run()
    assert failures == set()
    assert made["verb"] == 4
