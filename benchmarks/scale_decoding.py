"""Rows per second of 1, 2 and 4 workers that mostly decode, beside one core without any of them."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from extract_videos import repeat_video, write_scene
from figures import Figures
from scale_cases import STAGE, Effort, experiment, run, steady_speed

from pipeline.decode_videos import decode_video
from pipeline.decoder import usable_cores
from pipeline.generations import create_network
from pipeline.work import Progress, VideoWork

WORKERS = (1, 2, 4)
BARE_VIDEOS = 16
TARGET_EFFICIENCY = 0.8


def bench_decoding(figures: Figures, effort: Effort, folder: Path) -> None:
    """The bare work, in this process with one thread, takes turns with runs."""
    (folder / "videos").mkdir()
    scene = write_scene(folder / "scene.mp4", effort.size_px, effort.clips + 2)
    videos = [
        repeat_video(scene, folder / "videos" / f"{number}.mp4", title=f"{number}")
        for number in range(effort.videos)
    ]
    bare: list[float] = []
    decoding: list[float] = []
    speeds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    efficiencies: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(effort.turns):
        wanted = experiment(folder, videos[:BARE_VIDEOS], effort.clips)
        decode_seconds, forward_seconds = _bare_seconds(wanted)
        bare.append(len(wanted.clips) / (decode_seconds + forward_seconds))
        decoding.append(decode_seconds / (decode_seconds + forward_seconds))
        for workers in WORKERS:
            wanted = experiment(folder, videos, effort.clips, f"executor.workers={workers}")
            run(wanted)
            speeds[workers].append(steady_speed(folder, effort.clips))
            ideal = bare[-1] * min(workers, usable_cores())
            efficiencies[workers].append(speeds[workers][-1] / ideal)
    figures.add("bare_core_speed", median(bare), "rows/s")
    figures.add("bare_core_share_of_decoding", median(decoding), "x")
    for workers in WORKERS:
        name = f"workers_{workers}"
        figures.add(f"{name}_speed", median(speeds[workers]), "rows/s")
        figures.add(
            f"{name}_efficiency", median(efficiencies[workers]), "x", (">=", TARGET_EFFICIENCY)
        )


def _bare_seconds(wanted: Any) -> tuple[float, float]:
    """Of decoding, and of the network on pairs of clips as on any CPU."""
    stage = wanted.video_stages[STAGE]
    by_video = stage.rows(wanted.table).by_source()
    works = [
        VideoWork(wanted.videos[source], {STAGE: list(rows)}) for source, rows in by_video.items()
    ]
    network: Any = create_network(stage, "cpu")
    decode_seconds = forward_seconds = 0.0
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for work in works:
        started = time.perf_counter()
        decoded = decode_video(work, {STAGE: stage.decoded_geometry}, num_threads=1)
        clips = [np.array(item.frames) for item in decoded if not isinstance(item, Progress)]
        decode_seconds += time.perf_counter() - started
        started = time.perf_counter()
        for first in range(0, len(clips), 2):
            network(torch.from_numpy(np.stack(clips[first : first + 2])))
        forward_seconds += time.perf_counter() - started
    torch.set_num_threads(before)
    return decode_seconds, forward_seconds
