"""Batches through a network: who fails, who does not, and when shards are written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_fixtures import make_clip_stage

from extractors.base import ClipExtractor, OutputSpec, Pending, Preprocessing
from pipeline.decode_pass import DecodedRow
from pipeline.patience import Patience
from pipeline.rows import VideoRow
from pipeline.shard_thread import ShardThread
from pipeline.stage_work import StageWork
from pipeline.timings import Timings
from pipeline.work import Progress
from stores.base import ArraySpec, FeatureStore
from stores.memory_store import MemoryStore

SPOILT, NOT_FINITE = 255, 254


class FakeExtractor(ClipExtractor):
    """Gives the first pixel of each clip; some pixels are bad, and large batches are too large."""

    name = "fake"
    VERSION = 1
    frames, size_px, device = 2, 3, torch.device("cpu")

    def __init__(self, fits: int = 99, error: type[Exception] = ValueError) -> None:
        self.outputs = {"map": OutputSpec(("value",), (1,), "float32")}
        self.fits = fits
        self.error = error
        self.batches: list[list[int]] = []

    @classmethod
    def preprocessing(cls, options: Any) -> Preprocessing:
        raise NotImplementedError

    def __call__(self, clips: torch.Tensor) -> dict[str, np.ndarray]:
        assert clips.shape[1:] == (2, 3, 3, 3)
        values = clips[:, 0, 0, 0, :1].numpy().astype(np.float32)
        self.batches.append(values[:, 0].astype(int).tolist())
        if len(clips) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if (values == SPOILT).any():
            raise self.error("got a feature of magnitude nan")
        values[values == NOT_FINITE] = np.nan
        return {"map": values}


class Setup:
    """A stage on a store in memory."""

    def __init__(self, extractor: FakeExtractor, *, batch_size: int = 4, **options: float) -> None:
        self.store = MemoryStore(Path("memory"))
        specs = {"map": ArraySpec(("value",), (1,), "float32")}
        self.generation: FeatureStore = self.store.generation("verb", "ab" * 32, specs, {})
        self.work = StageWork(
            make_clip_stage(batch_size=batch_size),
            extractor,
            self.generation.shard_writer(),
            rows_per_shard=int(options.get("rows_per_shard", 100)),
            shard_numbers=map(self.generation.reserve_shards, repeat(1)),
            commit_seconds=options.get("commit_seconds", 1e9),
        )
        self.shards = ShardThread({"verb": self.work.timings}, Patience(0))
        self.progress: list[Progress] = []

    def run(self, values: Sequence[int]) -> dict[int, str]:
        """Put clips through, by value; what became of each: "stored" or the error's class."""
        for value in values:
            self.progress += self.work.add(decoded(value))
            self.work.write(self.shards)
            self.progress += filter(None, self.shards.progress())
        self.progress += self.work.flush()
        self.work.write(self.shards, everything=True)
        self.progress += filter(None, self.shards.progress(finish=True))
        self.shards.close()
        fates = {f.row_key: f.error_class for p in self.progress for f in p.failures}
        for progress in self.progress:
            if progress.receipt:
                self.generation.commit([progress.receipt])
        stored = [key(v) for v in values if not self.generation.missing([key(v)])]
        return {v: "stored" if key(v) in stored else fates[key(v)] for v in values}

    @property
    def shard_sizes(self) -> list[int]:
        return [len(p.receipt.slots) for p in self.progress if p.receipt]


def key(value: int) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def decoded(value: int) -> DecodedRow:
    row = VideoRow(key(value), "v", "s", 0, f"v/s/{value}", np.array([0, 1]), 0.0, 1.0)
    frames = [np.full((3, 3, 3), value, dtype=np.uint8)] * 2
    return DecodedRow("verb", row, frames, False, Timings(decode_seconds=1.0))


def test_batches_are_full_but_the_last() -> None:
    extractor = FakeExtractor()
    setup = Setup(extractor)
    assert set(setup.run(range(10)).values()) == {"stored"}
    assert extractor.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert sum(p.computed for p in setup.progress) == 10


@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_a_row_that_spoils_its_batch_fails_alone(error: type[Exception]) -> None:
    setup = Setup(FakeExtractor(error=error))
    values = [0, 1, SPOILT, 3, 4]
    fates = setup.run(values)
    assert fates.pop(SPOILT) == error.__name__
    assert set(fates.values()) == {"stored"}
    assert setup.work.batch_size == 4


def test_any_other_error_ends_the_run() -> None:
    with pytest.raises(TypeError, match="magnitude"):
        Setup(FakeExtractor(error=TypeError)).run([SPOILT])


def test_out_of_memory_halves_the_batch_for_good() -> None:
    extractor = FakeExtractor(fits=2)
    setup = Setup(extractor, batch_size=8)
    assert set(setup.run(range(12)).values()) == {"stored"}
    assert setup.work.batch_size == 2
    sizes = [len(batch) for batch in extractor.batches]
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2, 2]
    assert extractor.batches[-1] == [10, 11]


def test_a_row_that_never_fits_says_so() -> None:
    setup = Setup(FakeExtractor(fits=0), batch_size=2)
    assert set(setup.run(range(3)).values()) == {"OutOfMemoryError"}


def test_a_row_the_store_refuses_fails_alone() -> None:
    setup = Setup(FakeExtractor())
    fates = setup.run([0, NOT_FINITE, 2])
    assert fates == {0: "stored", NOT_FINITE: "RefusedRowError", 2: "stored"}
    assert sum(p.computed + len(p.failures) for p in setup.progress) == 3


def test_shards_are_written_when_they_are_full() -> None:
    setup = Setup(FakeExtractor(), batch_size=2, rows_per_shard=3)
    setup.run(range(8))
    assert setup.shard_sizes == [3, 3, 2]


def test_rows_do_not_wait_for_ever() -> None:
    setup = Setup(FakeExtractor(), batch_size=2, commit_seconds=0)
    setup.run(range(6))
    assert setup.shard_sizes == [2, 2, 2]


def test_a_device_is_given_the_next_batch_before_results_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    class Device(FakeExtractor):
        """Results are there when they are fetched; errors, too."""

        def launch(self, clips: torch.Tensor) -> Pending:
            number = len([event for event in events if event.startswith("launch")])
            events.append(f"launch {number}")
            return Flying(number, super().launch, clips)

    class Flying:
        def __init__(self, number: int, compute: Any, clips: torch.Tensor) -> None:
            self.number, self.compute, self.clips = number, compute, clips

        def collect(self) -> dict[str, np.ndarray]:
            events.append(f"collect {self.number}")
            return self.compute(self.clips).collect()

    monkeypatch.setattr("pipeline.stage_work._is_asynchronous", lambda extractor: True)
    monkeypatch.setattr("pipeline.stage_work._stack", lambda f, pinned: torch.tensor(np.array(f)))
    fates = Setup(Device(), batch_size=2).run([0, 1, SPOILT, 3, 4])
    assert events[:6] == [
        "launch 0", "launch 1", "collect 0", "launch 2", "collect 1",  # batch 1 is spoilt …
        "launch 3",  # … and its halves are tried
    ]  # fmt: skip
    assert fates == {0: "stored", 1: "stored", SPOILT: "ValueError", 3: "stored", 4: "stored"}


def test_time_is_accounted_for() -> None:
    setup = Setup(FakeExtractor())
    setup.run(range(5))
    timings = setup.work.timings
    assert timings.decode_seconds == 5
    assert min(timings.forward_seconds, timings.write_seconds) > 0
