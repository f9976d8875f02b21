"""Rows per second of 1, 2 and 4 workers that do nothing but decode, beside bare decoding."""

import time
from pathlib import Path
from statistics import median
from typing import Any

from extract_videos import repeat_video, write_scene
from figures import Figures
from scale_cases import STAGE, Effort, experiment, run, steady_speed

from pipeline.decode_videos import decode_video
from pipeline.decoder import usable_cores
from pipeline.work import VideoWork

WORKERS = (1, 2, 4)
BARE_VIDEOS = 16
TARGET_EFFICIENCY = 0.8


def bench_decoding(figures: Figures, effort: Effort, folder: Path) -> None:
    """Bare decoding of one process with one thread takes turns with runs."""
    (folder / "videos").mkdir()
    scene = write_scene(folder / "scene.mp4", effort.size_px, effort.clips + 2)
    videos = [
        repeat_video(scene, folder / "videos" / f"{number}.mp4", title=f"{number}")
        for number in range(effort.videos)
    ]
    bare: list[float] = []
    speeds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    efficiencies: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(effort.turns):
        wanted = experiment(folder, videos[:BARE_VIDEOS], effort.clips)
        bare.append(len(wanted.clips) / _bare_seconds(wanted))
        for workers in WORKERS:
            wanted = experiment(folder, videos, effort.clips, f"executor.workers={workers}")
            run(wanted)
            speeds[workers].append(steady_speed(folder, effort.clips))
            ideal = bare[-1] * min(workers, usable_cores())
            efficiencies[workers].append(speeds[workers][-1] / ideal)
    figures.add("bare_decode_speed", median(bare), "rows/s")
    for workers in WORKERS:
        name = f"workers_{workers}"
        figures.add(f"{name}_speed", median(speeds[workers]), "rows/s")
        figures.add(
            f"{name}_efficiency", median(efficiencies[workers]), "x", (">=", TARGET_EFFICIENCY)
        )


def _bare_seconds(wanted: Any) -> float:
    stage = wanted.video_stages[STAGE]
    by_video = stage.rows(wanted.table).by_source()
    works = [
        VideoWork(wanted.videos[source], {STAGE: list(rows)}) for source, rows in by_video.items()
    ]
    started = time.perf_counter()
    for work in works:
        for _ in decode_video(work, {STAGE: stage.decoded_geometry}, num_threads=1):
            pass
    return time.perf_counter() - started
