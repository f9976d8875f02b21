"""Video files that ask for too much, or are no files: refused before they cost anything."""

import os
import socket
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import cut_off, picture, write_video

from extractors import pyav_container, pyav_probe
from extractors.pyav_probe import probe_video
from extractors.video import FrameDecodeError, UnreadableVideo, VideoError, open_video

PIXELS = 64 * 48


def reordered(source: Path, target: Path, block: int) -> Path:
    """A copy whose packets say that pictures are shown in blocks of reversed order."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        step = packets[0].duration or 1
        for place, packet in enumerate(packets):
            # The first stays first, or the file would be decoded by counting.
            start, within = divmod(place - 1, block)
            shown = start * block + block - within if place else 0
            packet.pts = step * (shown + 2 * block)
            packet.dts = step * place
            packet.stream = copy
            made.mux(packet)
    return target


@pytest.mark.parametrize("block", [17, 40])
def test_an_order_that_no_decoder_has_is_an_error(
    tmp_path: Path, block: int, small_process: Any
) -> None:
    """In a process of its own: FFmpeg used to end it."""
    source = write_video(tmp_path / "a.mp4", codec_options="keyint=200:bframes=0")
    path = reordered(source, tmp_path / "b.mkv", block)
    message = small_process(error_of_a_full_pass, path)
    assert "the decoder passed over it" in message


def error_of_a_full_pass(path: Path, **settings: Any) -> str:
    """What went wrong, or "frames" if nothing did."""
    try:
        with open_video(path, **{"check_complete": False} | settings) as reader:
            count = sum(1 for _ in reader.frames(range(reader.num_frames)))
            return "frames" if count == reader.num_frames else "too few frames"
    except VideoError as error:
        return str(error)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=3)
    monkeypatch.setattr(pyav_container, "MAX_FRAME_PIXELS", PIXELS)
    assert probe_video(path).num_frames == 3
    monkeypatch.setattr(pyav_container, "MAX_FRAME_PIXELS", PIXELS - 1)
    with pytest.raises(UnreadableVideo, match="frames of 64 × 48 pixels, expected at most 3,071"):
        probe_video(path)


@pytest.mark.parametrize("name", ["a.h264", "a.ts"])
def test_pictures_that_grow_beyond_the_limit_are_not_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small = write_video(tmp_path / f"small_{name}", num_frames=40)
    large = write_video(tmp_path / f"large_{name}", num_frames=3, size_px=(640, 480))
    path = tmp_path / name
    path.write_bytes(small.read_bytes() + large.read_bytes())

    with open_video(path, check_complete=False) as reader:
        assert reader.num_frames == 43
        with pytest.raises(FrameDecodeError, match=r"frame 40 of shape \(480, 640, 3\)"):
            list(reader.frames(range(43)))
    monkeypatch.setattr(pyav_container, "MAX_FRAME_PIXELS", PIXELS)
    with pytest.raises(UnreadableVideo, match="decoding stopped at frame 40"):
        probe_video(path)
    assert capfd.readouterr().err == ""


def test_too_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = write_video(tmp_path / "a.mp4", num_frames=5)
    counted = write_video(tmp_path / "a.avi", num_frames=5, codec="mpeg4")
    monkeypatch.setattr(pyav_probe, "MAX_FRAMES", 4)
    for path in (timed, counted):
        with pytest.raises(UnreadableVideo, match="more than 4 frames"):
            probe_video(path)
    monkeypatch.setattr(pyav_probe, "MAX_FRAMES", 5)
    for path in (timed, counted):
        assert probe_video(path).num_frames == 5


def test_too_many_hours(tmp_path: Path) -> None:
    day_ms = 24 * 3600 * 1000
    path = write_video(tmp_path / "a.mkv", num_frames=3, times_ms=[0, 40, day_ms])
    with pytest.raises(UnreadableVideo, match=r"24\.0 hours of video, expected at most 24"):
        open_video(path)
    path = write_video(tmp_path / "b.mkv", num_frames=3, times_ms=[0, 40, day_ms - 60_000])
    assert open_video(path).num_frames == 3


def test_too_many_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("mpeg4", rate=10) for _ in range(3)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(2):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    monkeypatch.setattr(pyav_container, "MAX_STREAMS", 3)
    assert probe_video(path).num_frames == 2
    monkeypatch.setattr(pyav_container, "MAX_STREAMS", 2)
    with pytest.raises(UnreadableVideo, match="got 3 streams, expected at most 2"):
        probe_video(path)


def test_a_codec_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UnreadableVideo, match="FFmpeg has no decoder for"):
        open_video(path)


def test_what_is_no_plain_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnreadableVideo, match="got a named pipe, expected a plain file"):
        open_video(tmp_path / "pipe.mp4")
    with pytest.raises(UnreadableVideo, match="got a device"):
        open_video("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(UnreadableVideo, match="got a socket"):
            open_video(tmp_path / "s")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(UnreadableVideo, match=r"cannot be opened .*symbolic links"):
        open_video(tmp_path / "loop.mp4")
    with pytest.raises(UnreadableVideo, match=r"cannot be opened .*too long"):
        open_video(tmp_path / ("a" * 300))
    with pytest.raises(UnreadableVideo, match=r'got a folder.*kind="frames"'):
        open_video(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("kind", ["file", "tar", "frames", "flow"])
def test_what_may_not_be_read_is_told(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "a.mp4"
    path.mkdir() if kind in ("frames", "flow") else write_video(path, num_frames=3)
    path.chmod(0)
    rate = None if kind == "file" else 60.0
    try:
        with pytest.raises(UnreadableVideo, match="Permission denied"):
            open_video(path, kind=kind, frame_rate_fps=rate)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_random_damage_is_an_error_or_a_frame(
    tmp_path: Path, name: str, reader: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever bytes are wrong, opening and reading end in frames or in a `VideoError`."""
    whole = write_video(tmp_path / name, num_frames=30).read_bytes()
    rng = np.random.default_rng(5)
    for trial in range(12):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 20):
            data[place] = rng.integers(256)
        path = tmp_path / f"{trial}_{name}"
        path.write_bytes(data)
        if trial % 3 == 0:
            path = cut_off(path, float(rng.random()))
        told = error_of_a_full_pass(path, reader=reader, check_complete=trial % 2 == 0)
        assert told == "frames" or str(path) in told
    assert capfd.readouterr().err == ""
