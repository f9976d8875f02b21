"""Batches ahead of the loop: the same bits, bounded memory, errors and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from heads_fakes import FakeReader, make_data
from ml_dtypes import bfloat16
from numpy.typing import NDArray

from heads.loader import READ_AHEAD, THREADS, batches_of, open_batches
from heads.saoa import SaoaHead
from heads.table import FeatureTable, Sample
from stores.base import ArraySpec
from stores.memory_store import MemoryStore
from stores.records import Row, RowInfo

OUTPUTS = SaoaHead.inputs
Requests = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


class FailingReader(FakeReader):
    """Breaks at the read number `breaks_at`; counts in threads, too."""

    def __init__(self, reader: FakeReader, breaks_at: int = -1) -> None:
        super().__init__(reader.rows, reader.specs)
        self.breaks_at = breaks_at
        self.lock = threading.Lock()

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        with self.lock:
            if self.num_reads == self.breaks_at:
                raise OSError("got a shard that is gone")
            return super().read(keys, outputs, out)


def make_requests(size: int, views: int, batch_size: int) -> Requests:
    generator = np.random.default_rng(7)
    drawn = generator.integers(views, size=size)
    return [(group, drawn[group]) for group in batches_of(generator.permutation(size), batch_size)]


def reading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("read-ahead")]


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("waited for 10 seconds")


@pytest.mark.parametrize("resident_mib", [4096, 0])
@pytest.mark.parametrize("ahead", [None, 0, 1, 3, 50])
def test_batches_are_those_of_the_table(resident_mib: int, ahead: int | None) -> None:
    reader, samples = make_data(23, views=3)
    table = FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=resident_mib)
    requests = make_requests(23, 3, 4)
    with open_batches(table, requests, ahead=ahead) as batches:
        for request, batch in zip(requests, batches, strict=True):
            expected = table.batch(*request)
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in batch)
            assert all(batch[name].dtype == expected[name].dtype for name in batch)


def test_bfloat16_and_float32_rows_come_out_as_they_are(tmp_path: Any) -> None:
    specs = {
        "a": ArraySpec(("x",), (6,), "bfloat16"),
        "b": ArraySpec(("x",), (6,), "float32"),
    }
    values = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
    with MemoryStore(tmp_path) as store:
        reader = store.generation("aligned", "ab" * 32, specs)
        keys = [f"{number:064x}" for number in range(4)]
        reader.append(
            [
                Row(key, {"a": row.astype(bfloat16), "b": row}, RowInfo(key, "video"))
                for key, row in zip(keys, values, strict=True)
            ]
        )
        samples = [Sample(key, (key,), 0, 0) for key in keys]
        for resident_mib in (1, 0):
            table = FeatureTable(reader, samples, outputs=["a", "b"], resident_mib=resident_mib)
            with open_batches(table, [([2, 0], [0, 0])]) as batches:
                batch = next(batches)
                assert batch["a"].dtype == torch.float32
                assert batch["a"].tolist() == batch["b"].tolist() == values[[2, 0]].tolist()


def test_no_more_batches_are_read_than_there_is_room_for() -> None:
    reader, samples = make_data(40)
    counted = FailingReader(reader)
    table = FeatureTable(counted, samples, outputs=OUTPUTS, resident_mib=0)
    with open_batches(table, make_requests(40, 1, 1)) as batches:
        for taken in range(1, 4):
            next(batches)
            wait_until(lambda expected=READ_AHEAD + taken: counted.num_reads >= expected)
            time.sleep(0.02)  # for reads that should not be made
            assert counted.num_reads == READ_AHEAD + taken


def test_the_readers_error_comes_at_its_batch_and_nothing_runs_on() -> None:
    reader, samples = make_data(40)
    table = FeatureTable(
        FailingReader(reader, breaks_at=5), samples, outputs=OUTPUTS, resident_mib=0
    )
    taken: list[int] = []

    def loop() -> None:
        with open_batches(table, make_requests(40, 1, 2), ahead=1) as batches:
            taken.extend(len(batch) for batch in batches)

    with pytest.raises(OSError, match="got a shard that is gone"):
        loop()
    assert len(taken) == 5
    assert not reading_threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, None])
def test_threads_end_with_the_loop(error: type[BaseException] | None) -> None:
    reader, samples = make_data(40)
    counted = FailingReader(reader)
    table = FeatureTable(counted, samples, outputs=OUTPUTS, resident_mib=0)

    def loop() -> None:
        with open_batches(table, make_requests(40, 1, 1)) as batches:
            for _ in batches:
                assert reading_threads()
                if error:
                    raise error
                break

    if error:
        with pytest.raises(error):
            loop()
    else:
        loop()
    assert not reading_threads()
    assert counted.num_reads <= READ_AHEAD + 1


def test_what_nobody_waits_for_is_not_read() -> None:
    """The loop breaks while both threads read and two more batches wait for them."""
    reader, samples = make_data(40)
    counted = FailingReader(reader)
    table = FeatureTable(counted, samples, outputs=OUTPUTS, resident_mib=0)
    gate, started, read_into = threading.Event(), [], table.read_into

    def gated(*arguments: Any) -> None:
        started.append(1)
        if len(started) > 1:
            gate.wait(10)
        read_into(*arguments)

    table.read_into = gated  # type: ignore[method-assign]
    requests = make_requests(40, 1, 1)
    with open_batches(table, requests, ahead=THREADS + 2) as batches:
        next(batches)
        wait_until(lambda: len(started) == 1 + THREADS)
        threading.Timer(0.2, gate.set).start()
    assert len(started) == 1 + THREADS
    assert counted.num_reads == 1 + THREADS


def test_memory_is_used_again() -> None:
    reader, samples = make_data(8)
    table = FeatureTable(reader, samples, outputs=OUTPUTS)
    with open_batches(table, make_requests(8, 1, 2)) as batches:
        places = [batch["verb_roi"].data_ptr() for batch in batches]
    assert len(set(places)) == 1


def test_no_requests_give_no_batches() -> None:
    reader, samples = make_data(2)
    for ahead in (0, 2):
        with open_batches(
            FeatureTable(reader, samples, outputs=OUTPUTS), [], ahead=ahead
        ) as batches:
            assert list(batches) == []


@pytest.mark.needs_cuda
@pytest.mark.parametrize("resident_mib", [4096, 0])
def test_batches_on_a_gpu_are_those_of_the_cpu(resident_mib: int) -> None:
    reader, samples = make_data(200, views=2)
    table = FeatureTable(reader, samples, outputs=OUTPUTS, resident_mib=resident_mib)
    requests = make_requests(200, 2, 8)
    with open_batches(table, requests, device="cuda") as batches:
        kept = [{name: t.clone() for name, t in batch.items()} for batch in batches]
    for request, batch in zip(requests, kept, strict=True):
        expected = table.batch(*request)
        assert all(torch.equal(batch[name].cpu(), expected[name]) for name in batch)
