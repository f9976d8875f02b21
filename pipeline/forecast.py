"""What a run would make, what it would take on disk, and how long."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.error_classes import Retry
from pipeline.experiment import Experiment
from pipeline.explain_rows import info_of
from pipeline.generations import provenance_of
from pipeline.plan import StagePlan, plan_aligned
from pipeline.rates import Rate
from pipeline.rows import VideoRow
from pipeline.sizing import Size, future_layout, stored_size
from stores.base import Store
from stores.layout import GenerationLayout, read_layout
from stores.marker import read_format

__all__ = ["StageForecast", "forecast", "free_nbytes", "surely_needed_nbytes"]

SAMPLES = 16  # rows whose names are looked at for their length


@dataclass(frozen=True)
class StageForecast:
    """One stage of a plan, for people and programs.

    Attributes:
        wanted, present, failed, missing: rows; failed ones are left alone.
        waiting: rows whose video is gone, or that are made from rows that failed, whose video is
            gone, or that jobs are making.
        out: rows that jobs on a cluster are making.
        row_nbytes: of one row, uncompressed.
        nbytes: of the shards to be written; the most there can be where `at_most`.
        rate: how fast rows are made; None if nobody knows.
        seconds: for the missing rows at that rate.
    """

    stage: str
    key: str
    wanted: int
    present: int
    failed: int
    missing: int
    waiting: int
    out: int
    reason: str
    row_nbytes: int
    nbytes: int
    at_most: bool
    shards: int
    rate: Rate | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; see docs/extraction.md for the fields."""
        return asdict(self)


def forecast(
    experiment: Experiment, plan: StagePlan[Any], rates: Mapping[str, Rate]
) -> StageForecast:
    """What becomes of one planned stage. ``rates``: by stage, those that are known."""
    size = missing_size(experiment, plan)
    rate, missing = rates.get(plan.stage.name), len(plan.todo)
    seconds = None if rate is None else missing / rate.rows_per_second
    return StageForecast(
        stage=plan.stage.name,
        key=plan.stage.key,
        wanted=plan.wanted,
        present=plan.present,
        failed=plan.failed,
        missing=missing,
        waiting=plan.waiting,
        out=plan.out,
        reason=plan.reason,
        row_nbytes=plan.row_nbytes,
        nbytes=size.nbytes,
        at_most=size.at_most,
        shards=size.shards,
        rate=rate,
        seconds=seconds if missing else 0.0,
    )


def missing_size(experiment: Experiment, plan: StagePlan[Any]) -> Size:
    """Bytes of the shards that the missing rows of a stage would make."""
    if not plan.todo:
        return Size(0, 0, at_most=False)
    places = np.unique(np.linspace(0, len(plan.todo) - 1, SAMPLES).astype(int))
    infos = [info_of(plan.todo[int(place)]) for place in places]
    return stored_size(_layout(experiment, plan), len(plan.todo), infos)


def surely_needed_nbytes(
    experiment: Experiment,
    store: Store | None,
    plans: Mapping[str, StagePlan[VideoRow]],
    stages: Collection[str],
    retry_failed: Retry,
) -> int:
    """Bytes that a run writes for certain: shards that are not compressed.

    Args:
        plans: of the stages that read videos, of those asked for.
        stages: names of all stages asked for.
    """
    busy: list[StagePlan[Any]] = [plan for plan in plans.values() if plan.todo]
    specs = {name: plan.specs for name, plan in plans.items()}
    aligned = experiment.aligned
    if busy and aligned.name in stages and len(specs) == len(aligned.upstream):
        busy.append(plan_aligned(experiment, store, specs, retry_failed=retry_failed))
    sizes = [missing_size(experiment, plan) for plan in busy]
    return sum(size.nbytes for size in sizes if not size.at_most)


def free_nbytes(folder: Path) -> int:
    """Free space of the file system that a folder is or will be on."""
    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if path.exists())
    return shutil.disk_usage(nearest).free


def _layout(experiment: Experiment, plan: StagePlan[Any]) -> GenerationLayout:
    if plan.generation is not None:
        return read_layout(plan.generation.path)
    store = experiment.config.store
    shard_mib, compression = store.of_stage(plan.stage.name)
    format = store.format or (read_format(store.path) if store.path.is_dir() else None)
    # A file of HDF5 has it inside; it takes the networks' libraries to write down.
    provenance = provenance_of(experiment, plan.stage) if format == "hdf5" else {}
    return future_layout(
        store.path.absolute(),
        plan.stage.name,
        plan.stage.key,
        plan.specs,
        provenance,
        format=format,
        shard_mib=shard_mib,
        compression=compression,
    )
