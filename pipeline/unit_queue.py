"""Which units there are, who has them, and what becomes of a unit whose worker died.

A unit is a run of videos with enough rows to fill some shards. When its worker dies, what is left
of it is tried again as a whole; if that worker dies too, video by video. A video that ends three
workers in turn, without a row getting done, is to blame: its rows have failed.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.plan import PlannedVideo
from pipeline.work import Progress, Unit, VideoWork, row_failure

__all__ = ["StageShards", "UnitQueue", "WorkerDied"]

MOST_DEATHS = 3  # of workers that had one video and nothing else
EARLY_SHARDS = 16  # that a unit may close before they are full
SPARE_SHARDS = 16  # numbers that turn out to be taken, by a worker thought dead
# What each worker should get at least of a run, so that none waits long for the last one.
UNITS_PER_WORKER = 8
MOST_UNIT_NBYTES = 512 * 2**20


class WorkerDied(Exception):
    """Every worker that was given a video ended: a crash in a library, or out of memory."""


@dataclass(frozen=True)
class StageShards:
    """How the rows of a stage become shards. ``reserve``: sets numbers aside, gives the first."""

    row_nbytes: int
    rows_per_shard: int
    reserve: Callable[[int], int]


@dataclass
class _Task:
    """Videos waiting to become a unit.

    Attributes:
        deaths: of workers that had them before.
        alone: a worker must have no other unit beside it, to tell which is to blame.
    """

    videos: Sequence[PlannedVideo | VideoWork]
    deaths: int = 0
    alone: bool = False


@dataclass
class _Out:
    """A unit that a worker has.

    Attributes:
        left: rows that are neither stored nor failed.
        computed: of each stage, rows that were told of and not stored yet.
        settled: whether a row was stored or has failed.
    """

    task: _Task
    works: Sequence[VideoWork]
    left: set[tuple[str, str]] = field(default_factory=set)
    computed: Counter[str] = field(default_factory=Counter)
    settled: bool = False


class UnitQueue:
    """Hands out units and keeps account of them; only the coordinator has one.

    Args:
        videos: what there is to do, in order.
        stages: of the rows they miss.
        workers: how many will ask for units; decides their size.
    """

    def __init__(
        self, videos: Sequence[PlannedVideo], stages: Mapping[str, StageShards], *, workers: int
    ) -> None:
        self._stages = stages
        self._number = 0
        self._waiting = deque(_Task(run) for run in self._cut(videos, workers))
        self._out: dict[int, _Out] = {}

    def __len__(self) -> int:
        """Units that wait."""
        return len(self._waiting)

    @property
    def open(self) -> bool:
        """Whether a unit waits or is out."""
        return bool(self._waiting or self._out)

    def take(self) -> Unit | None:
        """The next unit, or None if none waits; it may be pickled."""
        if not self._waiting:
            return None
        task = self._waiting.popleft()
        works = tuple(_work(video) for video in task.videos)
        unit = Unit(self._next_number(), works, self._reserve(works), EARLY_SHARDS)
        left = {(name, row.key) for w in works for name, rows in w.rows.items() for row in rows}
        self._out[unit.number] = _Out(task, works, left)
        return unit

    def take_beside(self, units: Iterable[Unit]) -> Unit | None:
        """The next unit for a worker that has others; None where one has to be done alone."""
        tasks = [self._out[unit.number].task for unit in units]
        tasks += [self._waiting[0]] if self._waiting else []
        return None if any(task.alone for task in tasks) else self.take()

    def take_all(self) -> Unit:
        """Everything that waits as one unit, for a worker in this process.

        Videos are made when they are come to, and shard numbers reserved one by one.
        """
        tasks = list(self._waiting)
        self._waiting.clear()
        shards = {name: _one_by_one(stage.reserve) for name, stage in self._stages.items()}
        videos = _Videos([video for task in tasks for video in task.videos])
        return Unit(self._next_number(), videos, shards)

    def note(self, unit: Unit, progress: Progress) -> None:
        """Rows of a unit are stored, or have failed."""
        out = self._out.get(unit.number)
        if out is None:
            return  # late: its worker was given up meanwhile
        keys = [failure.row_key for failure in progress.failures]
        out.computed[progress.stage] += progress.computed
        if progress.receipt is not None:
            keys += [key for key, _ in progress.receipt.slots.values()]
            out.computed[progress.stage] -= len(progress.receipt.slots)
        out.left.difference_update((progress.stage, key) for key in keys)
        out.settled = out.settled or bool(keys)

    def done(self, unit: Unit) -> None:
        """A unit's worker has finished it, or ended early because it was told to."""
        self._out.pop(unit.number, None)

    def lost(self, unit: Unit, reason: str) -> list[Progress]:
        """A unit's worker is gone: queue what is left of it, in front.

        Args:
            reason: how the worker ended, in words.

        Returns:
            Failures of a video that is to blame, and rows that will be computed again, as fewer
            than none.
        """
        out = self._out.pop(unit.number, None)
        if out is None or not out.left:
            return []
        computed = +out.computed  # those above zero
        again = [Progress(stage, computed=-rows) for stage, rows in computed.items()]
        works = _left(out.works, out.left)
        deaths = 1 if out.settled else out.task.deaths + 1
        was_single = len(works) == 1 and len(out.works) == 1
        if was_single and deaths >= MOST_DEATHS:
            return again + _failures(works[0], reason)
        if was_single or deaths == 1:
            self._waiting.appendleft(_Task(works, deaths, alone=True))
        else:
            self._waiting.extendleft(_Task([work], alone=True) for work in reversed(works))
        return again

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _reserve(self, works: Iterable[VideoWork]) -> dict[str, range]:
        counts = _counts(works)
        shards = {}
        for name, count in counts.items():
            stage = self._stages[name]
            numbers = math.ceil(count / stage.rows_per_shard) + EARLY_SHARDS + SPARE_SHARDS
            first = stage.reserve(numbers)
            shards[name] = range(first, first + numbers)
        return shards

    def _cut(
        self, videos: Sequence[PlannedVideo], workers: int
    ) -> Iterator[Sequence[PlannedVideo]]:
        """Runs of videos of about the same number of bytes."""
        sizes = [self._nbytes(video) for video in videos]
        wanted = min(MOST_UNIT_NBYTES, sum(sizes) // (UNITS_PER_WORKER * workers))
        run: list[PlannedVideo] = []
        nbytes = 0
        for video, size in zip(videos, sizes, strict=True):
            run.append(video)
            nbytes += size
            if nbytes >= wanted:
                yield run
                run, nbytes = [], 0
        if run:
            yield run

    def _nbytes(self, video: PlannedVideo) -> int:
        return sum(n * self._stages[name].row_nbytes for name, n in video.counts.items())


class _Videos(Collection[VideoWork]):
    """Videos that are made when they are come to; can be counted without."""

    def __init__(self, videos: Sequence[PlannedVideo | VideoWork]) -> None:
        self._videos = videos

    def __len__(self) -> int:
        return len(self._videos)

    def __iter__(self) -> Iterator[VideoWork]:
        return map(_work, self._videos)

    def __contains__(self, work: object) -> bool:
        return work in self._videos


def _work(video: PlannedVideo | VideoWork) -> VideoWork:
    return video if isinstance(video, VideoWork) else video.work()


def _counts(works: Iterable[VideoWork]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for work in works:
        for name, rows in work.rows.items():
            counts[name] = counts.get(name, 0) + len(rows)
    return counts


def _left(works: Sequence[VideoWork], left: set[tuple[str, str]]) -> list[VideoWork]:
    """What is left of each video, but for those that are finished."""
    kept = [
        replace(
            work,
            rows={
                name: unfinished
                for name, rows in work.rows.items()
                if (unfinished := [row for row in rows if (name, row.key) in left])
            },
        )
        for work in works
    ]
    return [work for work in kept if work.rows]


def _failures(work: VideoWork, reason: str) -> list[Progress]:
    error = WorkerDied(
        f"{work.video.path}: {MOST_DEATHS} workers in turn ended while they had this video alone "
        f"(the last one: {reason}); the file is damaged, or memory ran out. Re-encode it, give "
        "workers more memory, or try again with --retry-failed"
    )
    return [
        Progress(name, failures=[row_failure(row, error) for row in rows])
        for name, rows in work.rows.items()
    ]


def _one_by_one(reserve: Callable[[int], int]) -> Iterator[int]:
    while True:
        yield reserve(1)
