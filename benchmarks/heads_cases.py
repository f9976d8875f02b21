"""What the benchmarks of heads share: sizes, a store of random rows, tables, heads, turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.base import Batch, Head, HeadDims
from heads.optimizer import create_optimizer
from heads.registry import create_head
from heads.settings import TrainSettings
from heads.table import FeatureTable, Sample
from heads.training_pass import Learner
from stores import ArraySpec, FeatureStore, Row, RowInfo, open_store

STAGE, KEY = "aligned", "0" * 64
NUM_VERBS, NUM_NOUNS = 125, 352  # EPIC-55
PAPER = HeadDims(2048, 2048, 1024, num_objects=60, num_local_objects=40)
SMALL = HeadDims(32, 32, 16, num_objects=6, num_local_objects=4)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        dims: of the rows and heads.
        batch_size: segments per step.
        batches: of a training pass.
        turns: how often everybody has a turn.
        scored: segments that are evaluated.
        gemm_sides: of square matrices.
        epoch_clips, validation_clips, epochs: of a whole run on a GPU.
    """

    dims: HeadDims = PAPER
    batch_size: int = 32
    batches: int = 12
    turns: int = 5
    scored: int = 9668  # the validation split of EPIC-100
    gemm_sides: tuple[int, ...] = (1024, 2048)
    epoch_clips: int = 23_191  # EPIC-55, training and validation by participant
    validation_clips: int = 5_281
    epochs: int = 15

    @property
    def is_quick(self) -> bool:
        return self.dims is SMALL

    @property
    def segments(self) -> int:
        return self.batches * self.batch_size


FULL = Effort()
QUICK = Effort(SMALL, 4, 3, 1, 300, (64, 128), 32, 8, 2)


def specs_of(dims: HeadDims) -> dict[str, ArraySpec]:
    """Of the rows of stage `aligned`."""
    verb, noun = dims.verb_channels, dims.noun_channels
    objects, local = dims.num_objects, dims.num_local_objects
    return {
        "verb_gap": ArraySpec(("verb_channel",), (verb,), "float16"),
        "noun_gap": ArraySpec(("noun_channel",), (noun,), "float16"),
        "verb_roi": ArraySpec(("local_object", "verb_channel"), (local, verb), "float16"),
        "object_features": ArraySpec(
            ("object", "object_channel"), (objects, dims.object_channels), "float16"
        ),
        "object_mask": ArraySpec(("object",), (objects,), "uint8"),
    }


def random_rows(dims: HeadDims, count: int) -> dict[str, NDArray[np.generic]]:
    """Rows like the output of a ReLU, all objects real: output → (count, *shape)."""
    random = np.random.default_rng(0)
    rows: dict[str, NDArray[np.generic]] = {}
    for name, spec in specs_of(dims).items():
        values = np.maximum(random.standard_normal((count, *spec.shape), np.float32), 0)
        rows[name] = (values if name != "object_mask" else np.ones_like(values)).astype(spec.dtype)
    return rows


def write_rows(folder: Path, effort: Effort) -> None:
    """Make a store with a row for each segment of a pass."""
    rows = random_rows(effort.dims, effort.segments)
    made = [
        Row(f"{number:064x}", {name: array[number] for name, array in rows.items()}, RowInfo("c"))
        for number in range(effort.segments)
    ]
    with open_store(folder, "a") as store:
        store.generation(STAGE, KEY, specs_of(effort.dims)).append(made)


def make_table(reader: FeatureStore, effort: Effort, *, resident: bool) -> FeatureTable:
    """A table of the rows in a store made by `write_rows`."""
    samples = make_samples(effort.segments)
    outputs = tuple(specs_of(effort.dims))
    return FeatureTable(reader, samples, outputs=outputs, resident_mib=2**20 if resident else 0)


def make_samples(count: int, first: int = 0) -> list[Sample]:
    """Segments with one row each and random labels."""
    random = np.random.default_rng(first)
    verbs, nouns = random.integers(NUM_VERBS, size=count), random.integers(NUM_NOUNS, size=count)
    return [
        Sample(f"s{first + n}", (f"{first + n:064x}",), int(verbs[n]), int(nouns[n]))
        for n in range(count)
    ]


def make_learner(effort: Effort, name: str, device: str, precision: str = "float32") -> Learner:
    """A head with what trains it, as `heads.train_head` sets it up."""
    head = create_saoa(effort, name).to(device)
    settings = TrainSettings(batch_size=effort.batch_size, precision=precision)
    optimizer = create_optimizer(head.parameters(), settings)
    return Learner(head, head, optimizer, settings, torch.device(device))


def create_saoa(effort: Effort, name: str = "saoa") -> Head:
    """A head for the rows."""
    specs = specs_of(effort.dims)
    return create_head(name, specs=specs, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)


def random_batch(effort: Effort, device: str) -> tuple[Batch, Batch]:
    """A batch as heads get it, and its labels."""
    rows = random_rows(effort.dims, effort.batch_size)
    batch = {name: torch.from_numpy(array).float().to(device) for name, array in rows.items()}
    batch["object_mask"] = batch["object_mask"].bool()
    return batch, random_labels(effort.batch_size, device)


def random_labels(count: int, device: str) -> Batch:
    """`verb` and `noun` (count,)."""
    sizes = {"verb": NUM_VERBS, "noun": NUM_NOUNS}
    labels: dict[str, Tensor] = {}
    for name, size in sizes.items():
        labels[name] = torch.randint(size, (count,), device=device)
    return labels


def seconds_of(work: Callable[[], object], device: str = "cpu") -> float:
    """Seconds that some work takes, to its end on the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
