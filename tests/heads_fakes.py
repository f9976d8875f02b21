"""Stored rows for the tests of heads: small, in memory, with something to learn in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.table import Sample
from stores.base import ArraySpec, FeatureReader
from stores.checks import allocate, wanted_outputs

CV, CN, C1, N, N_LOCAL = 8, 12, 5, 6, 4
NUM_VERBS, NUM_NOUNS = 4, 7

SPECS = {
    "verb_gap": ArraySpec(("verb_channel",), (CV,), "float16"),
    "noun_gap": ArraySpec(("noun_channel",), (CN,), "float16"),
    "verb_roi": ArraySpec(("local_object", "verb_channel"), (N_LOCAL, CV), "float16"),
    "object_features": ArraySpec(("object", "object_channel"), (N, C1), "float16"),
    "object_mask": ArraySpec(("object",), (N,), "uint8"),
    "object_boxes_xyxy_px": ArraySpec(("object", "corner"), (N, 4), "float32"),
    "noun_roi": ArraySpec(("local_object", "noun_channel"), (N_LOCAL, CN), "float16"),
}


class FakeReader(FeatureReader):
    """Rows in a dict; counts how often it is read."""

    def __init__(
        self, rows: dict[str, dict[str, NDArray[Any]]], specs: Mapping[str, ArraySpec] = SPECS
    ) -> None:
        self.rows = rows
        self.specs = specs
        self.num_reads = 0

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in dict.fromkeys(keys) if key not in self.rows]

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        self.num_reads += 1
        arrays = allocate(self.specs, len(keys), wanted_outputs(self.specs, outputs, out), out)
        for name, array in arrays.items():
            np.stack([self.rows[key][name] for key in keys], out=array)
        return arrays

    def keys(self) -> list[str]:
        return list(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def make_row(verb: int, noun: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    """A row that tells its labels: noise plus a bump in one channel per class."""
    num_real = int(generator.integers(1, N + 1))
    row: dict[str, NDArray[Any]] = {
        name: generator.random(spec.shape).astype(spec.dtype) for name, spec in SPECS.items()
    }
    row["verb_gap"][verb] += 2
    row["verb_roi"][:, verb] += 2
    row["noun_gap"][noun] += 2
    row["object_mask"] = (np.arange(N) < num_real).astype(np.uint8)
    return row


def make_data(
    num_segments: int, *, views: int = 1, seed: int = 0
) -> tuple[FakeReader, list[Sample]]:
    """A reader and samples `s0`, `s1`, ... with `views` rows each."""
    generator = np.random.default_rng(seed)
    rows, samples = {}, []
    for number in range(num_segments):
        verb, noun = int(generator.integers(NUM_VERBS)), int(generator.integers(NUM_NOUNS))
        keys = tuple(f"{seed}-{number}-{view}" for view in range(views))
        rows.update({key: make_row(verb, noun, generator) for key in keys})
        samples.append(Sample(f"s{number}", keys, verb, noun))
    return FakeReader(rows), samples


def random_batch(
    batch_size: int, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """A batch of all inputs in which every clip has real and padded objects."""
    generator = torch.Generator().manual_seed(seed)
    batch = {
        name: torch.randn(batch_size, *spec.shape, generator=generator, dtype=dtype)
        for name, spec in SPECS.items()
    }
    batch["object_mask"] = torch.ones(batch_size, N, dtype=torch.bool)
    batch["object_mask"][:, 2] = False  # among the local ones (1 to 4)
    batch["object_mask"][0, 5] = False
    return batch
