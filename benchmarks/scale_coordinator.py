"""Rows per second that one coordinator hands out and commits, whoever makes them."""

import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from extract_videos import write_scene
from figures import Figures
from scale_cases import Effort, experiment, run

import pipeline.run
from pipeline.generations import create_network
from pipeline.journal import Journal
from pipeline.patience import Patience
from pipeline.run_setup import stage_shards
from pipeline.stages import VideoStage
from pipeline.unit_queue import StageShards, UnitQueue
from pipeline.work import Progress, Unit
from pipeline.workbench import Setup
from stores.base import FeatureStore, Row

# Rows of a shard: of objects or trimmed features, and of maps of a ResNet-50, 1 MiB each.
CASES = (("small_rows", 3_000, (">=", 5_000)), ("maps", 32, None))
GPU_CLIPS_PER_SECOND = (10, 50, 200)
VIDEOS = 16


class ReadyWorkers:
    """Units come back at once: their shards were written while the clock stood still.

    Args:
        rows_per_shard: as if rows were so large.

    Attributes:
        seconds: that the coordinator took to hand out units, and to commit what came back.
    """

    workers = 64

    def __init__(self, rows_per_shard: int) -> None:
        self.rows_per_shard = rows_per_shard
        self.seconds = 0.0

    def stage_shards(self, generation: FeatureStore, patience: Patience) -> StageShards:
        """What the queue reserves shards for."""
        return replace(stage_shards(generation, patience), rows_per_shard=self.rows_per_shard)

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: object, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `pipeline.executors.Executor`."""
        shapes = {name: _map_shape(stage) for name, stage in setup.stages.items()}
        while queue.open:
            started = time.perf_counter()
            unit = queue.take()
            self.seconds += time.perf_counter() - started
            assert unit is not None
            made = _make(setup, unit, shapes, self.rows_per_shard)
            started = time.perf_counter()
            journal.event("unit_started", unit=unit.number)
            for progress in made:
                queue.note(unit, progress)
                yield progress
            yield None  # commit
            queue.done(unit)
            self.seconds += time.perf_counter() - started


def _make(
    setup: Setup, unit: Unit, shapes: Mapping[str, tuple[int, ...]], size: int
) -> list[Progress]:
    """Shards of zeros."""
    made = []
    for name, writer in setup.writers.items():
        rows = [row for work in unit.videos for row in work.rows[name]]
        numbers = iter(unit.shards[name])
        for start in range(0, len(rows), size):
            some = [
                Row(row.key, {"map": np.zeros(shapes[name], np.float16)}, row.info(clamped=False))
                for row in rows[start : start + size]
            ]
            made.append(Progress(name, computed=len(some)))
            made.append(Progress(name, receipt=writer.write_shard(next(numbers), some)))
    return made


def _map_shape(stage: VideoStage) -> tuple[int, ...]:
    return create_network(stage, "meta").outputs["map"].shape


def bench_coordinator(figures: Figures, effort: Effort, folder: Path) -> None:
    """Speed, and how many GPUs it is enough for where rows are maps."""
    (folder / "videos").mkdir()
    videos = [
        write_scene(folder / "videos" / f"{number}.mp4", (64, 48), 1 + number / 10)
        for number in range(VIDEOS)
    ]
    for name, rows_per_shard, target in CASES:
        speeds = []
        for _ in range(effort.turns):
            clips = -(-effort.rows // VIDEOS)
            wanted = experiment(folder, videos, clips)
            workers = ReadyWorkers(rows_per_shard)
            pipeline.run.create_executor = lambda *_, ready=workers: ready
            pipeline.run.stage_shards = workers.stage_shards
            speeds.append(run(wanted).made / workers.seconds)
        figures.add(f"coordinator_{name}_speed", median(speeds), "rows/s", target)
    speed = median(speeds)
    for clips_per_second in GPU_CLIPS_PER_SECOND:
        name = f"gpus_fed_at_{clips_per_second}_clips_per_second"
        figures.add(name, speed / clips_per_second, "gpus")
