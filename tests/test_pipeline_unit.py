"""Units that are worked on: early ends, rows that wait, and the next one begun meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from test_pipeline_stage_work import FakeExtractor, Setup, decoded

from pipeline.decode_videos import Decoded, Geometries
from pipeline.patience import Patience
from pipeline.unit import UnitWork, run_units
from pipeline.videos import Video
from pipeline.work import Finished, Progress, Unit, VideoWork, row_failure


class Scripted:
    """Decodes by a script, and then only gives signs of life.

    A number is a row of that value, TAKE takes a video, FAIL makes all rows of the last one fail.
    ``taken``: how many videos it got; ``closed``: whether it was given up.
    """

    def __init__(self, *script: int | str) -> None:
        self._script = script
        self.closed = False
        self.taken = 0

    def decode(
        self, works: Iterable[VideoWork | None], geometries: Geometries
    ) -> Generator[Decoded | None, None, None]:
        videos = iter(works)
        video: VideoWork | None = None
        try:
            for step in self._script:
                if step == TAKE:
                    video = next(videos, None)
                    self.taken += video is not None
                elif step == FAIL:
                    assert video is not None
                    failures = [row_failure(row, OSError("gone")) for row in video.rows["verb"]]
                    yield Progress("verb", failures=failures)
                else:
                    yield decoded(int(step))
                yield None
            while True:
                yield None
        finally:
            self.closed = True

    def close(self) -> None: ...


TAKE, FAIL = "take", "fail"


def unit(number: int, *values: Sequence[int]) -> Unit:
    """Of videos with rows of these values."""
    works = []
    for name, some in enumerate(values):
        video = Video(f"v{name}", Path(f"{name}.mp4"), "file", None, None)
        works.append(VideoWork(video, {"verb": [decoded(value).row for value in some]}))
    return Unit(number, works, {})


class Bench:
    """Does units; each has a store of its own."""

    def __init__(self, *units: Unit, **options: float) -> None:
        self.stop = threading.Event()
        self._units = units
        self._options = options

    def run(self, decoder: Scripted) -> Iterator[Progress | Finished]:
        said = run_units(
            self._units, self._begin, decoder=decoder, geometries={}, heap=None, stop=self.stop
        )
        return (item for item in said if item is not None)

    def run_to_the_ends(self, decoder: Scripted) -> list[Progress | Finished]:
        """Until all units have ended; what is said after that is left out."""
        said = []
        for item in self.run(decoder):
            said.append(item)
            if sum(isinstance(item, Finished) for item in said) == len(self._units):
                return said
        raise AssertionError(said)

    def _begin(self, unit: Unit) -> UnitWork:
        return UnitWork(
            unit, {"verb": Setup(FakeExtractor(), batch_size=2, **self._options).work}, Patience(0)
        )


def stored(said: Iterable[Progress | Finished]) -> list[tuple[int, int]]:
    """Unit and rows of each receipt."""
    return [(p.unit, len(p.receipt.slots)) for p in said if isinstance(p, Progress) and p.receipt]


def test_a_unit_that_waits_can_be_stopped() -> None:
    bench, decoder = Bench(unit(7, [0, 1, 2, 3])), Scripted(TAKE, 0, 1, 2)
    said = []
    for item in bench.run(decoder):
        said.append(item)
        bench.stop.set()  # after the first batch
    assert decoder.closed
    assert stored(said) == [(7, 2)]
    assert said[-1] == Finished(7)


def test_finished_rows_do_not_wait_for_a_silent_decoder() -> None:
    bench, decoder = Bench(unit(7, [0, 1, 2]), commit_seconds=0), Scripted(TAKE, 0, 1)
    receipt = next(item for item in bench.run(decoder) if stored([item]))
    assert stored([receipt]) == [(7, 2)]


def test_the_next_unit_is_begun_while_the_last_rows_of_one_come() -> None:
    bench, decoder = Bench(unit(1, [0, 1, 2]), unit(2, [3])), Scripted(TAKE, TAKE, 3, 0, 1, TAKE, 2)
    said = bench.run_to_the_ends(decoder)
    assert decoder.taken == 2
    assert sorted(stored(said)) == [(1, 3), (2, 1)]
    computed = [(p.unit, p.computed) for p in said if isinstance(p, Progress) and p.computed]
    assert sorted(computed) == [(1, 1), (1, 2), (2, 1)]  # batches do not mix units
    summaries = [p.unit for p in said if isinstance(p, Progress) and p.summary]
    assert sorted(summaries) == [1, 2]


def test_who_is_done_first_ends_first() -> None:
    bench = Bench(unit(1, [0, 1]), unit(2, [2, 3]))
    ends = []
    for item in bench.run(Scripted(TAKE, TAKE, TAKE, 2, 3)):
        assert not stored([item]) or item.unit == 2
        if isinstance(item, Finished):
            ends.append(item.unit)
            bench.stop.set()
    assert ends == [2, 1]


def test_a_unit_ends_though_its_rows_fail() -> None:
    said = Bench(unit(1, [0], [1, 2])).run_to_the_ends(Scripted(TAKE, TAKE, FAIL, 0, TAKE))
    failed = [(p.unit, len(p.failures)) for p in said if isinstance(p, Progress) and p.failures]
    assert failed == [(1, 2)]
    assert stored(said) == [(1, 1)]


def test_units_end_where_nothing_more_comes() -> None:
    class Ending(Scripted):
        def decode(
            self, works: Iterable[VideoWork | None], geometries: Geometries
        ) -> Generator[Decoded | None, None, None]:
            for work in works:
                assert work is not None
                for row in work.rows["verb"]:
                    yield next(decoded(v) for v in range(9) if decoded(v).row.key == row.key)

    said = list(Bench(unit(1, [0, 1, 2]), unit(2, [3])).run(Ending()))
    assert sorted(stored(said)) == [(1, 3), (2, 1)]
    assert [item for item in said if isinstance(item, Finished)] == [Finished(1), Finished(2)]


def test_a_row_that_nobody_waits_for_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="got a row of verb that no unit under way waits for"):
        list(Bench(unit(1, [0])).run(Scripted(TAKE, 5)))
