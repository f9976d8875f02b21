"""Peak memory of runs, each in a process of its own: per network, and by length of the video.

`peak_rss` is the sum of what each process of a run had resident at most: the one with the network,
the one that decodes, and the small server that starts the latter. What they share counts each
time: libraries, and the ring of frames. Lengths are compared without the server.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from extract_cases import PAPER, SMALL, TINY, Effort, run_child
from extract_experiment import Material, run
from figures import Figures
from store_scale import peak_rss_mb, proc_status_mb

LOOK_SECONDS = 0.05


def bench_memory(
    figures: Figures,
    effort: Effort,
    device: str,
    one_batch: Material,
    by_length: Sequence[Material] = (),
) -> None:
    """A batch of each network; the same small network over a short and a long video."""
    precision = "float32" if device == "cpu" else "bfloat16"
    runs = [(backbone, one_batch) for backbone in effort.backbones]
    runs += [(TINY, material) for material in by_length]
    requests = [
        {
            "backbone": backbone.name,
            "small": effort.is_quick,
            "batch_size": effort.batch_size,
            "videos": [str(video) for video in material.videos],
            "clips": material.clips,
            "every_seconds": material.every_seconds,
            "device": device,
            "precision": precision,
        }
        for backbone, material in runs
    ]
    if effort.is_quick:
        answers = run_child("extract_memory", requests)
    else:
        answers = [run_child("extract_memory", [request])[0] for request in requests]
    for backbone, got in zip(effort.backbones, answers, strict=False):
        name = backbone.name if device == "cpu" else f"{device}_{precision}_{backbone.name}"
        figures.add(f"{name}_peak_rss", got["all_mb"], "MB")
        figures.add(f"{name}_decode_process_peak_rss", got["decode_mb"], "MB")
        if device != "cpu":
            figures.add(f"{name}_peak_device_memory", got["device_mb"], "MB")
    if by_length:
        _add_lengths(figures, *answers[len(effort.backbones) :])


def _add_lengths(figures: Figures, short: dict[str, Any], long: dict[str, Any]) -> None:
    parts = ("main_mb", "decode_mb")
    ratio = sum(long[part] for part in parts) / sum(short[part] for part in parts)
    figures.add("long_video_memory", ratio, "of_short_video", ("<=", 1.10))
    for name, got in (("short", short), ("long", long)):
        figures.add(f"{name}_video_main_peak_rss", got["main_mb"], "MB")
        figures.add(f"{name}_video_decode_process_peak_rss", got["decode_mb"], "MB")


def answer(
    backbone: str,
    small: bool,
    batch_size: int,
    videos: list[str],
    clips: int,
    every_seconds: float,
    device: str,
    precision: str,
) -> dict[str, float]:
    """Run an experiment in this process; memory in MB."""
    import torch

    known = {each.name: each for each in (*(SMALL if small else PAPER), TINY)}
    with tempfile.TemporaryDirectory(prefix="bench_extract_") as folder:
        os.symlink(Path(videos[0]).parent, Path(folder) / "videos")
        material = Material(Path(folder), [Path(video) for video in videos], clips, every_seconds)
        with _watch() as (peaks, parents):
            run(material.experiment(known[backbone], batch_size, device, precision))
    on_device = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    main_mb = peak_rss_mb()
    return {
        "main_mb": main_mb,
        "all_mb": main_mb + sum(peaks.values()),
        "decode_mb": max(peak for pid, peak in peaks.items() if pid not in parents),
        "device_mb": on_device / 1e6,
    }


@contextmanager
def _watch() -> Iterator[tuple[dict[int, float], set[int]]]:
    """Yield the peaks (MB) of all processes below this one, and which of them have children.

    Both grow while the processes run. One that has just been started may still end up among those
    with children.
    """
    peaks: dict[int, float] = {}
    parents: set[int] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            for parent, pid in _below(os.getpid()):
                parents.add(parent)
                with suppress(OSError, StopIteration):  # it has ended since
                    peaks[pid] = proc_status_mb("VmHWM", pid)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks, parents
    finally:
        ended.set()
        thread.join()


def _below(pid: int) -> Iterator[tuple[int, int]]:
    """Parent and child, for all processes that this one and its children have started."""
    children: list[str] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    for child in map(int, children):
        yield pid, child
        yield from _below(child)
