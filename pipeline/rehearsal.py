"""Making rows without keeping them: to see one fail, and to measure how fast rows are made."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from numpy.typing import NDArray

from pipeline.aligner import Aligner
from pipeline.errors import RowsMissing
from pipeline.experiment import Experiment
from pipeline.generations import open_generation
from pipeline.rows import DerivedRow
from pipeline.run_setup import make_setup
from pipeline.work import Progress, Unit, VideoWork
from pipeline.workbench import Workbench
from stores.base import ArraySpec, FeatureStore, Store
from stores.checks import allocate
from stores.memory_store import MemoryStore

__all__ = ["rehearse", "rehearse_aligned"]


def rehearse(
    experiment: Experiment,
    works: Sequence[VideoWork],
    specs: Mapping[str, Mapping[str, ArraySpec]],
) -> Iterator[Progress]:
    """Decode videos and send rows through the networks, as a run does; what comes is forgotten.

    Args:
        works: videos with the rows to make.
        specs: outputs of a row, by stage; only these stages have networks.

    Yields:
        How far it is. Receipts name rows that would have been stored.

    Raises:
        ConfigError: weights do not fit.
    """
    memory = MemoryStore()
    generations: dict[str, FeatureStore] = {
        name: memory.generation(name, experiment.video_stages[name].key, outputs)
        for name, outputs in specs.items()
    }
    unit = Unit(0, works, {name: itertools.count() for name in specs})
    with closing(Workbench(make_setup(experiment, generations))) as bench:
        for said in bench.run([unit], threading.Event()):
            if isinstance(said, Progress):
                yield said


def rehearse_aligned(
    experiment: Experiment, store: Store | None, row: DerivedRow, specs: Mapping[str, ArraySpec]
) -> dict[str, NDArray[Any]]:
    """Make the outputs of a derived row, (1, ...) each, from stored ones, without storing them.

    Raises:
        RowsMissing: rows that it is made from are not stored.
        OverflowError: as `Aligner.fill`.
    """
    opened = {stage.name: open_generation(store, stage) for stage in experiment.aligned.upstream}
    readers = {name: generation for name, generation in opened.items() if generation is not None}
    lacking = [
        name
        for name, generation in opened.items()
        if generation is None or generation.missing(row.upstream[name])
    ]
    if lacking:
        raise RowsMissing(
            f"{row.info.clip_id}: got no rows of {' and '.join(lacking)}, expected those that it "
            "is made from; explain these first"
        )
    arrays = allocate(specs, 1, list(specs), None)
    with closing(Aligner(experiment.aligned, readers, specs)) as aligner:
        aligner.fill([row], arrays)
    return arrays
