"""Decoding without networks: several stages beside one, and beside a plain reader with PIL.

The clips are the papers': 64 frames at a stride of 2 in a video of 60 frames a second, one every
2.5 seconds (for several stages: every 2 seconds, so that the frames of objects, two a second, are
among those of the clips and all passes need the same frames).
"""

from collections.abc import Generator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from extract_cases import CLIP_EVERY_SECONDS, RATE_FPS, Effort, timed
from extract_experiment import BEFORE_SECONDS
from figures import Figures
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from store_cases import median_ratio, take_turns

from extractors.geometry import square
from extractors.pyav_probe import probe_video
from extractors.pyav_reader import PyavReader
from extractors.video_reader import Outcome
from pipeline.clips import clip_times_us
from pipeline.decode_pass import FrameRequest, decode_all
from pipeline.rows import VideoRow

SIDE_PX = 256
FRAMES, STRIDE = 64, 2
CPU = torch.device("cpu")
Times = NDArray[np.int64]


def bench_stages(figures: Figures, effort: Effort, video: Path, seconds: float) -> None:
    """Three stages, two of which want the same clips and one single native frames."""
    centres = range(2_000_000, int((seconds - 1.25) * 1e6), 2_000_000)
    clips = [_clip_times(centre) for centre in centres]
    objects = [np.array([t]) for c in centres for t in range(c - 1_000_000, c + 500_001, 500_000)]
    verb = _requests("verb", clips, SIDE_PX)
    three = [*verb, *_requests("noun", clips, SIDE_PX), *_requests("objects", objects, None)]
    frames = {"one": 0, "three": 0}

    def decode(name: str, requests: Sequence[FrameRequest]) -> float:
        reader = _Counting(probe_video(video))
        taken = timed(partial(_pass, reader, requests), CPU)
        frames[name] = reader.given
        return taken

    tasks = {"one": partial(decode, "one", verb), "three": partial(decode, "three", three)}
    times = take_turns(effort.decode_turns, tasks)
    cost = median_ratio(times["three"], times["one"])
    figures.add("three_stages_decode_cost", cost, "decodes_of_one_stage", ("<=", 1.10))
    ratio = frames["three"] / frames["one"]
    figures.add("three_stages_frames", ratio, "frames_of_one_stage", ("<=", 1.10))


def bench_plain_reader(
    figures: Figures, effort: Effort, name: str, video: Path, count: int
) -> None:
    """The same clips at 256×256 from decode_all and from a reader as one would write it.

    The plain one decodes from the start, turns every frame to RGB and resizes it with PIL; its
    kinder form resizes only frames that some clip shows. Bare is FFmpeg alone up to the last of
    these frames. All use all cores that FFmpeg finds work for. Opening the video is included.
    """
    middles = [round((BEFORE_SECONDS + i * CLIP_EVERY_SECONDS) * 1e6) for i in range(count)]
    clips = [_clip_times(middle) for middle in middles]
    requests = _requests("verb", clips, SIDE_PX)
    indices = [np.rint(times * RATE_FPS / 1e6).astype(int).tolist() for times in clips]

    def ours() -> None:
        reader = PyavReader(probe_video(video))
        _pass(reader, requests)

    tasks = {
        "ours": partial(timed, ours, CPU),
        "bare": partial(timed, partial(_decode_only, video, max(map(max, indices))), CPU),
        "plain": partial(timed, partial(plain_clips, video, indices, every=True), CPU),
        "kinder": partial(timed, partial(plain_clips, video, indices, every=False), CPU),
    }
    times = take_turns(effort.decode_turns, tasks)
    against = {form: median_ratio(times[form], times["ours"]) for form in ("plain", "kinder")}
    figures.add(f"decode_resize_{name}_ratio", against["plain"], "x_plain_reader", (">=", 2.0))
    figures.add(f"decode_resize_{name}_needed_only_ratio", against["kinder"], "x_plain_reader")
    limit = median_ratio(times["bare"], times["ours"])
    figures.add(f"decode_resize_{name}_bare_ratio", limit, "of_decoding_alone")
    figures.add(f"decode_resize_{name}_speed", count / median(times["ours"]), "clips/s")


def plain_clips(video: Path, clips: Sequence[Sequence[int]], *, every: bool) -> list[NDArray]:
    """Clips (T, 256, 256, 3) uint8 by frame indices."""
    shown = {index for clip in clips for index in clip}
    kept: dict[int, NDArray[np.uint8]] = {}
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            picture = frame.to_image()
            if every or index in shown:
                small = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
                if index in shown:
                    kept[index] = np.asarray(small)
            if index == max(shown):
                break
    return [np.stack([kept[index] for index in clip]) for clip in clips]


def _decode_only(video: Path, last: int) -> None:
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in islice(container.decode(video=0), last + 1):
            pass


class _Counting(PyavReader):
    """Counts the frames it gives."""

    given = 0

    def outcomes(self, indices: ArrayLike) -> Generator[tuple[int, Outcome], None, None]:
        for item in super().outcomes(indices):
            self.given += 1
            yield item


def _pass(reader: PyavReader, requests: Sequence[FrameRequest]) -> None:
    for row in decode_all(reader, requests):
        np.stack(row.frames)


def _clip_times(centre_us: int) -> Times:
    return clip_times_us(centre_us, frames=FRAMES, stride=STRIDE, rate_fps=RATE_FPS)


def _requests(stage: str, times: Sequence[Times], side_px: int | None) -> list[FrameRequest]:
    geometry = None if side_px is None else square(side_px)
    rows = (VideoRow(f"{n}", "v", "s", 0, f"{n}", each, 0, 0) for n, each in enumerate(times))
    return [FrameRequest(stage, row, geometry) for row in rows]
