"""Whole trainings on a GPU at the size of EPIC-55: seconds per epoch, and of fifteen of them.

The rows are random and the same few again and again, in as many places in memory as there would be
segments. This part has not been run yet.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Figures
from heads_cases import (
    Effort,
    create_saoa,
    make_samples,
    random_rows,
    seconds_of,
    specs_of,
)
from numpy.typing import NDArray

from heads.settings import TrainSettings
from heads.table import FeatureTable
from heads.training import train_head
from stores import ArraySpec, FeatureReader
from stores.checks import allocate, wanted_outputs

DIFFERENT_ROWS = 64


class RepeatingReader(FeatureReader):
    """Any row key; few different rows."""

    def __init__(self, effort: Effort) -> None:
        self.specs: Mapping[str, ArraySpec] = specs_of(effort.dims)
        self._rows = random_rows(effort.dims, DIFFERENT_ROWS)

    def missing(self, keys: Iterable[str]) -> list[str]:
        return []

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        arrays = allocate(self.specs, len(keys), wanted_outputs(self.specs, outputs, out), out)
        numbers = np.array([int(key[-8:], 16) % DIFFERENT_ROWS for key in keys])
        for name, array in arrays.items():
            np.take(self._rows[name], numbers, axis=0, out=array, mode="clip")
        return arrays

    def keys(self) -> list[str]:
        return []

    def __len__(self) -> int:
        return 0


def bench_whole_runs(figures: Figures, effort: Effort, folder: Path) -> None:
    """SAOA in both precisions, resident; validation and files of every epoch included."""
    reader, outputs = RepeatingReader(effort), tuple(specs_of(effort.dims))
    first, count = effort.epoch_clips, effort.validation_clips
    tables = [
        FeatureTable(reader, samples, outputs=outputs, resident_mib=2**20)
        for samples in (make_samples(first), make_samples(count, first))
    ]
    for precision in ("float32", "bfloat16"):
        settings = TrainSettings(
            epochs=effort.epochs, batch_size=effort.batch_size, precision=precision
        )
        epochs: list[float] = []
        torch.cuda.reset_peak_memory_stats()
        whole = seconds_of(
            lambda settings=settings, epochs=epochs: train_head(
                folder / settings.precision,
                create_saoa(effort),
                tables[0],
                validation_table=tables[1],
                settings=settings,
                device="cuda",
                on_epoch=lambda report: epochs.append(report.seconds),
            ),
            "cuda",
        )
        name = f"cuda_{precision}"
        figures.add(f"{name}_epoch", statistics.median(epochs), "s")
        figures.add(f"{name}_whole_run", whole, "s")
        peak = torch.cuda.max_memory_allocated() / 1e6
        figures.add(f"{name}_peak_device_memory", peak, "MB")
