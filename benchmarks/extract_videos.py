"""H.264 videos to measure with: a textured scene, an unsteady camera, hands, noise of a sensor.

The papers' videos may not be passed on. What decoding costs depends on size, bits per pixel and
distance of key frames, and on pictures that no other picture is built on (B-frames), which a reader
may leave out. Scenes have a key frame a second, and B-frames as x264 sets them, like copies that
somebody made smaller, or none, like what comes from a camera; 30 Mbit/s in full HD, which is what
the 750 GB of EPIC-KITCHENS-55's 55 hours come to, and in proportion below.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from extract_cases import RATE_FPS
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
MARGIN_PX = 48
BITS_PER_PIXEL = 30e6 / (1920 * 1080 * 60)


def write_scene(
    path: Path, size_px: tuple[int, int], seconds: float, *, b_frames: bool = True
) -> Path:
    """Encode a scene of 60 frames a second with x264; `size_px`: width and height."""
    width, height = size_px
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE_FPS)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = round(BITS_PER_PIXEL * width * height * RATE_FPS)
        stream.options = {"preset": "veryfast", "g": str(RATE_FPS)}
        if not b_frames:
            stream.options |= {"bf": "0"}
        for picture in _scene(size_px, round(seconds * RATE_FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def repeat_video(source: Path, path: Path, times: int = 1, title: str = "") -> Path:
    """Copy the packets of a video `times` after one another; `title` makes another file of it."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        made.metadata["title"] = title
        packets = [packet for packet in given.demux(stream) if packet.pts is not None]
        stamps = [(packet.pts, packet.dts) for packet in packets]
        length = sum(packet.duration for packet in packets)
        for turn in range(times):
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts = pts + turn * length, dts + turn * length
                packet.stream = copy
                packet.time_base = stream.time_base
                made.mux(packet)
    return path


def _scene(size_px: tuple[int, int], count: int) -> Iterator[Picture]:
    """Pictures (H, W, 3): a wandering view of a still scene, with two hands moving in it."""
    width, height = size_px
    random = np.random.default_rng(0)
    still = _texture(random, width + 2 * MARGIN_PX, height + 2 * MARGIN_PX)
    hand = _texture(random, width // 4, height // 2) // 2 + 90
    noise = random.normal(0, 3, (height + MARGIN_PX, width + MARGIN_PX, 1)).astype(np.int16)
    for index in range(count):
        seconds = index / RATE_FPS
        x = round(MARGIN_PX * (1 + 0.6 * np.sin(1.1 * seconds) + 0.2 * np.sin(7 * seconds)))
        y = round(MARGIN_PX * (1 + 0.6 * np.sin(0.8 * seconds) + 0.2 * np.sin(5 * seconds)))
        picture = still[y : y + height, x : x + width].astype(np.int16)
        for side, pace in ((0.2, 1.7), (0.6, 2.3)):
            left = round(width * (side + 0.1 * np.sin(pace * seconds)))
            top = round(height * (0.4 + 0.1 * np.cos(pace * seconds)))
            picture[top : top + height // 2, left : left + width // 4] = hand
        top, left = random.integers(0, MARGIN_PX, 2)
        picture += noise[top : top + height, left : left + width]
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, width: int, height: int) -> Picture:
    """(H, W, 3): detail of every size, as in photographs; the finer, the weaker."""
    total = np.full((height, width, 3), 128.0)
    for cell_px, strength in ((128, 60), (32, 40), (8, 25), (2, 10)):
        cells = random.integers(0, 256, (height // cell_px + 2, width // cell_px + 2, 3), np.uint8)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(smooth) - 128.0) / 128 * strength
    return np.clip(total, 0, 255).astype(np.uint8)
