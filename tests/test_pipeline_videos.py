from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from video_files import cut_off, write_video

from extractors.video import TruncatedVideo
from pipeline.config_data import VideosConfig
from pipeline.errors import AnnotationError
from pipeline.segments import Segment
from pipeline.videos import epic_rate_fps, locate_video


def segment(video_id: str, participant_id: str = "P01") -> Segment:
    return Segment("7", video_id, participant_id, 0.0, 1.0, 0, 0, "train")


def config(**settings: Any) -> VideosConfig:
    return VideosConfig.model_validate({"root": "/data", **settings})


def test_a_file_under_its_plain_name() -> None:
    video = locate_video(segment("kitchen"), config(), {"kitchen": 12.5, "other": 1.0})
    assert video.path == Path("/data/kitchen.mp4")
    assert (video.video_id, video.kind) == ("kitchen", "file")
    assert video.frame_rate_fps is None
    assert video.promised_seconds == 12.5


def test_a_pattern_with_both_ids() -> None:
    where = config(pattern="{participant_id}/videos/{video_id}.MP4")
    video = locate_video(segment("P01_01"), where, {})
    assert video.path == Path("/data/P01/videos/P01_01.MP4")
    assert video.promised_seconds is None


def test_a_pattern_with_the_session() -> None:
    cut = replace(segment("S1-10-20"), session_id="S1")
    where = config(pattern="{session_id}/{video_id}.mp4")
    assert locate_video(cut, where, {}).path == Path("/data/S1/S1-10-20.mp4")
    with pytest.raises(AnnotationError, match=r"no session_id, which data\.videos\.pattern"):
        locate_video(segment("S1-10-20"), where, {})
    with pytest.raises(AnnotationError, match=r"got session_id .*, expected a plain name"):
        locate_video(replace(cut, session_id="../S1"), where, {})


@pytest.mark.parametrize(("kind", "pattern"), [("frames", "{video_id}"), ("tar", "{video_id}.tar")])
def test_frames_have_the_rate_of_the_config(kind: str, pattern: str) -> None:
    where = config(kind=kind, frame_rate_fps=24, pattern=pattern)
    video = locate_video(segment("kitchen"), where, {})
    assert (video.path, video.kind) == (Path("/data") / pattern.format(video_id="kitchen"), kind)
    assert video.frame_rate_fps == 24.0


@pytest.mark.parametrize(
    ("video_id", "rate_fps"),
    [("P01_01", 60.0), ("P37_10", 60.0), ("P01_101", 50.0), ("P37_103", 50.0)],
)
def test_epics_rule_for_rates(video_id: str, rate_fps: float) -> None:
    assert epic_rate_fps(video_id) == rate_fps
    where = config(kind="frames", frame_rate_fps="epic", pattern="{video_id}")
    assert locate_video(segment(video_id), where, {}).frame_rate_fps == rate_fps


@pytest.mark.parametrize("video_id", ["abc", "P01", "P01_1", "P01_1001", "P01_abc", "x_P01_01"])
def test_epics_rule_is_for_epics_videos_only(video_id: str) -> None:
    with pytest.raises(AnnotationError, match=f"got video_id '{video_id}', expected one such as"):
        epic_rate_fps(video_id)


@pytest.mark.parametrize("bad", ["a/b", "../secret", "..", ".", "/etc/passwd", "a\\b", "a\0b"])
def test_ids_that_lead_out_of_the_folder(bad: str) -> None:
    where = config(pattern="{participant_id}/{video_id}")
    with pytest.raises(AnnotationError, match=r"segment '7': got video_id .* plain name"):
        locate_video(segment(bad), where, {})
    with pytest.raises(AnnotationError, match=r"segment '7': got participant_id .* plain name"):
        locate_video(segment("good", bad), where, {})


def test_a_participant_that_the_pattern_needs() -> None:
    # An empty one would make "/P01_01.MP4" of this pattern: a path from the root of the disk.
    with pytest.raises(AnnotationError, match=r"segment '7': has no participant_id"):
        locate_video(segment("P01_01", ""), config(pattern="{participant_id}/{video_id}"), {})
    assert locate_video(segment("v", ""), config(), {}).path == Path("/data/v.mp4")


def test_ids_with_braces_and_dots_are_plain_names() -> None:
    assert locate_video(segment("{0}..x"), config(), {}).path == Path("/data/{0}..x.mp4")


def test_a_cut_off_video_says_which_setting_takes_it_as_it_is(tmp_path: Path) -> None:
    cut_off(write_video(tmp_path / "a.mkv", num_frames=60), 0.6)
    place = {"root": tmp_path, "pattern": "{video_id}_cut.mkv"}
    with pytest.raises(
        TruncatedVideo, match=r"get the whole file, or set data\.videos\.truncated: "
    ):
        locate_video(segment("a"), config(**place), {}).open()
    locate_video(segment("a"), config(**place, truncated="clamp"), {}).open().close()
