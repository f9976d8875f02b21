"""Small videos written on the spot, for tests of whatever reads videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from extractors.video import VideoReader

WIDTH_PX, HEIGHT_PX = 64, 48
NUM_FRAMES = 120

KEYS = "keyint=30:min-keyint=30:scenecut=0:b-adapt=0"
UNEVEN_MS = np.cumsum(np.random.default_rng(3).integers(10, 90, NUM_FRAMES)).tolist()
LATE_MS = [5000 + 33 * index for index in range(NUM_FRAMES)]


def picture(index: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """A picture unlike its neighbours: a fixed texture that shifts, under a moving bar."""
    texture = np.random.default_rng(7).integers(40, 200, (height_px // 4, width_px // 4, 3))
    pixels = texture.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    pixels = np.roll(pixels, 3 * index, axis=1)
    bar = 4 * (index % (height_px // 4))
    pixels[bar : bar + 4] = (index * 37) % 256
    return np.ascontiguousarray(pixels)


def write_video(
    path: Path,
    *,
    num_frames: int = NUM_FRAMES,
    codec: str = "libx264",
    rate_fps: int = 30,
    codec_options: str = "",
    container_options: dict[str, str] | None = None,
    times_ms: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    size_px: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
) -> Path:
    """Encode `picture(0)`, `picture(1)`, … into a video file.

    Args:
        codec_options: of x264 or x265, as in "keyint=12:bframes=3".
        times_ms: when each frame comes on screen; None spaces them evenly.
        size_px: width and height.
    """
    options = {"preset": "ultrafast", "crf": "18", "threads": "1"} if "x26" in codec else {}
    if codec_options:
        options["x265-params" if codec == "libx265" else "x264-params"] = codec_options
    if codec == "libx265":
        options["x265-params"] = f"log-level=none:{codec_options}".rstrip(":")
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate_fps)
        stream.width, stream.height = size_px
        stream.pix_fmt = pixel_format
        stream.options = options
        if times_ms is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size_px), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut_off(path: Path, share: float) -> Path:
    """A copy of a file that ends after a share of its bytes."""
    cut = path.with_stem(f"{path.stem}_cut")
    data = path.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    return cut


def plain_decode(path: Path) -> list[NDArray[np.uint8]]:
    """All frames of a file from start to end, straight from FFmpeg, turned upright."""
    with av.open(str(path)) as container:
        return [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            for frame in container.decode(video=0)
        ]


def assert_exact(
    open_reader: Callable[[], VideoReader], expected: list[NDArray[np.uint8]], *, seed: int
) -> None:
    """Whole, sparse, shuffled and repeated reading all give the frames of the plain decode."""
    rng = np.random.default_rng(seed)
    count = len(expected)
    with open_reader() as reader:
        assert reader.num_frames == count
        passes = [list(range(count)), [count - 1], [0]]
        passes += [np.unique(rng.integers(0, count, size)).tolist() for size in (2, 4, 9)]
        passes += [[int(index)] for index in rng.permutation(count)[:3]]
        for wanted in passes:
            _assert_pass(reader, wanted, expected)
    with open_reader() as fresh:
        _assert_pass(fresh, [int(rng.integers(count))], expected)


def _assert_pass(reader: VideoReader, wanted: list[int], expected: list[NDArray[np.uint8]]) -> None:
    given = []
    for index, frame in reader.frames(wanted):
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        assert np.array_equal(frame, expected[index]), f"frame {index} in {wanted}"
        given.append(index)
    assert given == wanted


DAMAGED_FRAMES = range(40, 60)


def damage(path: Path, frames: Sequence[int] | None = None, *, share: float = 0.5) -> Path:
    """A copy of a file with wrong bytes at the end of packets.

    Args:
        share: of each packet.
        frames: as they are shown; None damages the packets that `DAMAGED_FRAMES` counts.
    """
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets: list[Any] = [p for p in container.demux(video=0) if p.pos is not None and p.size]
    damaged_packets = packets[DAMAGED_FRAMES.start : DAMAGED_FRAMES.stop]
    if frames is not None:
        shown = sorted(packets, key=lambda packet: packet.pts)
        damaged_packets = [shown[frame] for frame in frames]
    for packet in damaged_packets:
        num_wrong = math.ceil(packet.size * share)
        end = packet.pos + packet.size
        data[end - num_wrong : end] = bytes(num_wrong)
    damaged = path.with_stem(f"{path.stem}_damaged")
    damaged.write_bytes(data)
    return damaged


# Streams that are told apart by what a jump into the middle of them may spoil.
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "closed-gop-mp4": ("a.mp4", {"codec_options": f"{KEYS}:bframes=3"}),
    "closed-gop-mkv": ("a.mkv", {"codec_options": f"{KEYS}:bframes=3"}),
    "open-gop-mp4": ("a.mp4", {"codec_options": f"{KEYS}:bframes=3:open-gop=1"}),
    "open-gop-mkv": ("a.mkv", {"codec_options": f"{KEYS}:bframes=3:open-gop=1"}),
    "one-gop": ("a.mp4", {"codec_options": "keyint=infinite:scenecut=0:bframes=8:b-adapt=0"}),
    "no-b-frames": ("a.mp4", {"codec_options": f"{KEYS}:bframes=0"}),
    "intra-refresh": ("a.mp4", {"codec_options": "intra-refresh=1:keyint=25:bframes=0"}),
    "uneven-mp4": ("a.mp4", {"codec_options": f"{KEYS}:bframes=3", "times_ms": UNEVEN_MS}),
    "uneven-mkv": ("a.mkv", {"codec_options": f"{KEYS}:bframes=3", "times_ms": UNEVEN_MS}),
    "late-start": ("a.mkv", {"codec_options": f"{KEYS}:bframes=3", "times_ms": LATE_MS}),
    "fragments": (
        "a.mp4",
        {
            "codec_options": f"{KEYS}:bframes=3",
            "container_options": {"movflags": "frag_keyframe+empty_moov"},
        },
    ),
    "full-range": ("a.mp4", {"pixel_format": "yuvj420p"}),
}
COUNTED_STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "mpeg4-avi": ("a.avi", {"codec": "mpeg4"}),
    "mpeg4-mp4": ("a.mp4", {"codec": "mpeg4"}),
    "h264-avi": ("a.avi", {"codec_options": f"{KEYS}:bframes=3"}),
    "h264-ts": ("a.ts", {"codec_options": f"{KEYS}:bframes=3"}),
}
OTHER_STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ten-bit": ("a.mp4", {"pixel_format": "yuv420p10le"}),
    "hevc-open-gop": ("a.mp4", {"codec": "libx265", "codec_options": f"{KEYS}:open-gop=1"}),
    "hevc-mkv": ("a.mkv", {"codec": "libx265", "codec_options": f"{KEYS}:open-gop=1"}),
    "mjpeg": ("a.mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9"}),
}
