"""A unit while nothing comes: it can be stopped, and finished rows do not wait for more."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

from test_pipeline_stage_work import FakeExtractor, Setup, decoded

from pipeline.decode_videos import Decoded, Geometries
from pipeline.patience import Patience
from pipeline.unit import run_unit
from pipeline.work import Progress, VideoWork


class Stuck:
    """Gives some rows and then nothing; `closed` says whether it was given up."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = values
        self.closed = False

    def decode(
        self, works: Sequence[VideoWork], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        try:
            yield from map(decoded, self.values)
            while True:
                yield None
        finally:
            self.closed = True

    def close(self) -> None: ...


def run(setup: Setup, decoder: Stuck, stop: threading.Event) -> Iterator[Progress]:
    progresses = run_unit(
        [], {"verb": setup.work}, decoder=decoder, stop=stop, patience=Patience(0)
    )
    return (progress for progress in progresses if progress is not None)


def test_a_unit_that_waits_can_be_stopped() -> None:
    setup, decoder = Setup(FakeExtractor(), batch_size=2), Stuck([0, 1, 2])
    stop = threading.Event()
    progress = []
    for item in run(setup, decoder, stop):
        progress.append(item)
        stop.set()  # after the first batch
    assert decoder.closed
    assert [len(p.receipt.slots) for p in progress if p.receipt] == [2]


def test_finished_rows_do_not_wait_for_a_silent_decoder() -> None:
    setup, decoder = Setup(FakeExtractor(), batch_size=2, commit_seconds=0), Stuck([0, 1])
    stop = threading.Event()
    for item in run(setup, decoder, stop):
        if item.receipt:
            break
    assert len(item.receipt.slots) == 2  # type: ignore[union-attr]
