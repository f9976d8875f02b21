"""Labelled segments and where their features are: what training and evaluation iterate over."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.base import Batch

if TYPE_CHECKING:
    from stores.base import FeatureReader

Indices = Sequence[int] | NDArray[np.int64]

_MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One segment: its stored rows, one per view (a view = one clip centre), and its labels."""

    segment_id: str
    row_keys: tuple[str, ...]
    verb: int
    noun: int


class FeatureTable:
    """Samples with random access to their features.

    Rows are held in memory, as stored (16 bits stay 16 bits), where they fit under a cap; otherwise
    each batch is read from the store. Both give the same batches. `heads.loader` makes batches
    ahead of the loop that needs them.

    Args:
        reader: an opened store.
        samples: at least one; ids differ.
        outputs: names of the stored outputs to read, mostly `head.inputs`.
        resident_mib: the cap in MiB; 0 never holds rows in memory.

    Raises:
        ValueError: no samples, a sample without rows, an id twice, or an output that the store
            does not have.
        LookupError: rows that the store does not hold.
    """

    def __init__(
        self,
        reader: FeatureReader,
        samples: Sequence[Sample],
        *,
        outputs: Sequence[str],
        resident_mib: float = 4096.0,
    ) -> None:
        _check_samples(samples)
        if unknown := [name for name in outputs if name not in reader.specs]:
            raise ValueError(f"got outputs {unknown}, expected some of {sorted(reader.specs)}")
        self.samples = tuple(samples)
        self.outputs = tuple(outputs)
        self.verbs = np.array([sample.verb for sample in samples], dtype=np.int64)
        self.nouns = np.array([sample.noun for sample in samples], dtype=np.int64)
        self.num_views = np.array([len(sample.row_keys) for sample in samples], dtype=np.int64)
        # Segments may share a row (two labels on one clip): hold and count it once.
        keys = list(dict.fromkeys(key for sample in samples for key in sample.row_keys))
        if missing := reader.missing(keys):
            raise LookupError(
                f"got {len(keys)} rows to read, of which the store lacks {len(missing)} "
                f"(the first: {missing[0]}); extract them first"
            )
        self._reader = reader
        self._keys = keys
        row_of = {key: row for row, key in enumerate(keys)}
        # Rows of all views of all samples, one after the other, and where those of a sample start.
        self._row_numbers = np.array([row_of[key] for s in samples for key in s.row_keys])
        self._starts = np.cumsum(self.num_views) - self.num_views
        row_nbytes = sum(reader.specs[name].row_nbytes for name in outputs)
        self._rows: dict[str, NDArray[Any]] | None = None
        if row_nbytes * len(keys) <= resident_mib * _MIB:
            self._rows = reader.read(keys, self.outputs)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def resident(self) -> bool:
        """True if the rows are held in memory."""
        return self._rows is not None

    def select(self, outputs: Sequence[str]) -> FeatureTable:
        """The same samples with fewer outputs, over the same memory: what is resident stays so.

        So many heads can train on one copy of the rows that all of them together read.

        Args:
            outputs: some of this table's.

        Raises:
            ValueError: an output that this table does not have.
        """
        if unknown := [name for name in outputs if name not in self.outputs]:
            raise ValueError(f"got outputs {unknown}, expected some of {sorted(self.outputs)}")
        selected = copy.copy(self)
        selected.outputs = tuple(outputs)
        if self._rows is not None:
            selected._rows = {name: self._rows[name] for name in outputs}
        return selected

    def segment_ids(self, indices: Indices) -> list[str]:
        """Ids of the samples at `indices`."""
        return [self.samples[index].segment_id for index in indices]

    def draw_views(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw one view for every sample, each of its views equally likely; (len,)."""
        return generator.integers(self.num_views)

    def batch(
        self, indices: Indices, views: Indices, *, device: str | torch.device = "cpu"
    ) -> Batch:
        """Features of some samples.

        Args:
            indices: (B,) samples.
            views: (B,) which view of each.
            device: where the tensors go; they are widened to float32 there.

        Returns:
            One (B, *shape) float32 tensor per output; `object_mask` is bool.
        """
        stored = self.buffers(len(indices))
        self.read_into(indices, views, stored)
        return {
            name: as_tensor(array).to(device).to(batch_dtype(name), copy=True)
            for name, array in stored.items()
        }

    def buffers(self, batch_size: int, *, pinned: bool = False) -> dict[str, NDArray[Any]]:
        """Empty arrays for the stored rows of a batch: output → (batch_size, *shape), as stored.

        Args:
            batch_size: rows.
            pinned: in page-locked memory, from which a GPU copies while the CPU goes on.
        """
        arrays = {}
        for name in self.outputs:
            spec = self._reader.specs[name]
            nbytes = batch_size * spec.row_nbytes
            memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned).numpy()
            arrays[name] = memory.view(spec.numpy_dtype).reshape(batch_size, *spec.shape)
        return arrays

    def read_into(self, indices: Indices, views: Indices, out: Mapping[str, NDArray[Any]]) -> None:
        """Fill arrays with the stored rows of some samples; safe in threads.

        Args:
            indices: (B,) samples.
            views: (B,) which view of each.
            out: output → (B, *shape), C-contiguous, in the stored type.

        Raises:
            IndexError: a view that a sample does not have.
        """
        chosen, drawn = np.asarray(indices, dtype=np.int64), np.asarray(views, dtype=np.int64)
        if not ((drawn >= 0) & (drawn < self.num_views[chosen])).all():
            raise IndexError(f"got views {drawn.tolist()}, expected 0 to those that samples have")
        rows = self._row_numbers[self._starts[chosen] + drawn]
        if self._rows is None:
            self._reader.read([self._keys[row] for row in rows], self.outputs, out)
            return
        for name, array in out.items():
            # The indices are right, and "raise" would fill a copy of `array` first.
            np.take(self._rows[name], rows, axis=0, out=array, mode="clip")

    def labels(self, indices: Indices, *, device: str | torch.device = "cpu") -> Batch:
        """`verb` and `noun` (B,) int64 class ids of the samples at `indices`."""
        chosen = np.asarray(indices, dtype=np.int64)
        return {
            "verb": torch.from_numpy(self.verbs[chosen]).to(device),
            "noun": torch.from_numpy(self.nouns[chosen]).to(device),
        }

    def check_labels(self, num_verbs: int, num_nouns: int, *, unlabelled: bool = False) -> None:
        """Refuse labels a head cannot predict; -1, for segments without labels, on request.

        Raises:
            ValueError: naming the first segment whose verb or noun is out of range.
        """
        for name, labels, size in (
            ("verb", self.verbs, num_verbs),
            ("noun", self.nouns, num_nouns),
        ):
            outside = np.flatnonzero((labels < (-1 if unlabelled else 0)) | (labels >= size))
            if len(outside):
                segment_id = self.samples[outside[0]].segment_id
                raise ValueError(
                    f"got {name} class {labels[outside[0]]} for segment '{segment_id}', expected "
                    f"0 to {size - 1}"
                )

    def fingerprint(self) -> str:
        """sha256 hex over samples and outputs: equal for tables that train the same head."""
        content = json.dumps([self.outputs, [astuple(sample) for sample in self.samples]])
        return hashlib.sha256(content.encode()).hexdigest()


def batch_dtype(output: str) -> torch.dtype:
    """The type that heads get an output in."""
    return torch.bool if output == "object_mask" else torch.float32


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor of the same values and memory."""
    if array.dtype.name == "bfloat16":  # which torch does not know as a dtype of numpy
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _check_samples(samples: Sequence[Sample]) -> None:
    if not samples:
        raise ValueError("got no samples, expected at least one")
    seen: set[str] = set()
    for sample in samples:
        if not sample.row_keys:
            raise ValueError(f"got no rows for segment '{sample.segment_id}', expected one a view")
        if sample.segment_id in seen:
            raise ValueError(f"got segment '{sample.segment_id}' twice, expected ids that differ")
        seen.add(sample.segment_id)
