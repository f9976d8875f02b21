"""Units: how large they are, what is left of one whose worker died, and who is to blame."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.plan import PlannedVideo
from pipeline.rows import VideoRow
from pipeline.unit_queue import EARLY_SHARDS, MOST_DEATHS, StageShards, UnitQueue
from pipeline.videos import Video
from pipeline.work import Progress, Unit, row_failure
from stores.base import Receipt, RowInfo

MIB = 2**20


class Shards:
    """Numbers of a stage; remembers how many were asked for."""

    def __init__(self) -> None:
        self.next = 0

    def reserve(self, count: int) -> int:
        first, self.next = self.next, self.next + count
        return first


def row(video_id: str, number: int) -> VideoRow:
    key = hashlib.sha256(f"{video_id}{number}".encode()).hexdigest()
    return VideoRow(key, video_id, "s", 0, f"{video_id}/s/{number}", np.array([number]), 0.0, 1.0)


def planned(video_id: str, rows: int, stages: Sequence[str] = ("verb",)) -> PlannedVideo:
    video = Video(video_id, Path(f"/videos/{video_id}.mp4"), "file", None, None)
    todo = {name: [row(video_id, number) for number in range(rows)] for name in stages}
    return PlannedVideo(video, dict.fromkeys(stages, rows), todo)


def make_queue(
    videos: Sequence[PlannedVideo], *, row_nbytes: int = MIB, workers: int = 1
) -> tuple[UnitQueue, Shards]:
    shards = Shards()
    stages = {"verb": StageShards(row_nbytes, 16, shards.reserve)}
    return UnitQueue(videos, stages, workers=workers), shards


def names(unit: Unit | None) -> list[str]:
    assert unit is not None
    return [work.video.video_id for work in unit.videos]


def taken(queue: UnitQueue) -> Unit:
    unit = queue.take()
    assert unit is not None
    return unit


def stored(unit: Unit, video_id: str, numbers: Sequence[int]) -> Progress:
    rows = [row(video_id, number) for number in numbers]
    slots = {slot: (r.key, RowInfo(r.clip_id)) for slot, r in enumerate(rows)}
    return Progress("verb", receipt=Receipt("verb", "ab" * 32, 0, slots, 1, {}))


def lose(queue: UnitQueue, unit: Unit) -> list[Progress]:
    return queue.lost(unit, "signal SIGKILL")


def test_units_are_runs_of_videos_eight_for_each_worker() -> None:
    videos = [planned(f"v{number}", 10) for number in range(32)]
    queue, _ = make_queue(videos, workers=2)
    units = [names(queue.take()) for _ in range(len(queue))]
    assert units == [[f"v{2 * number}", f"v{2 * number + 1}"] for number in range(16)]
    assert len(make_queue(videos, workers=4)[0]) == 32


def test_units_of_large_work_fill_some_shards_and_no_more() -> None:
    videos = [planned(f"v{number}", 1, stages=("verb",)) for number in range(400)]
    queue, _ = make_queue(videos, row_nbytes=32 * MIB)
    assert {len(names(queue.take())) for _ in range(len(queue))} == {16}  # of 512 MiB


def test_units_can_travel_and_have_shards_of_their_own() -> None:
    queue, shards = make_queue([planned("a", 40), planned("b", 40)])
    first, second = pickle.loads(pickle.dumps((taken(queue), taken(queue))))
    assert len(first.shards["verb"]) >= 3 + EARLY_SHARDS
    assert not set(first.shards["verb"]) & set(second.shards["verb"])
    assert shards.next == len(first.shards["verb"]) + len(second.shards["verb"])
    assert first.early_shards == EARLY_SHARDS


def test_a_worker_of_this_process_takes_all_and_reserves_shards_as_it_goes() -> None:
    queue, shards = make_queue([planned("a", 40), planned("b", 40)])
    unit = queue.take_all()
    assert len(unit.videos) == 2
    assert names(unit) == ["a", "b"]
    assert not queue.open
    assert shards.next == 0
    numbers = iter(unit.shards["verb"])
    assert [next(numbers), next(numbers), shards.next] == [0, 1, 2]


def test_what_is_left_of_a_lost_unit_is_tried_again_with_other_shards() -> None:
    queue, _ = make_queue([planned("a", 1), planned("b", 3), planned("c", 40)])
    unit = taken(queue)
    assert names(unit) == ["a", "b", "c"]
    queue.note(unit, stored(unit, "a", [0, 1, 2]))
    queue.note(unit, stored(unit, "b", [1]))
    assert lose(queue, unit) == []
    again = taken(queue)
    assert names(again) == ["b", "c"]
    assert [len(work.rows["verb"]) for work in again.videos] == [2, 40]
    assert again.number != unit.number
    assert not set(again.shards["verb"]) & set(unit.shards["verb"])


def test_a_unit_that_is_lost_again_is_tried_video_by_video() -> None:
    queue, _ = make_queue([planned("a", 3), planned("b", 40)])
    lose(queue, taken(queue))
    again = taken(queue)
    assert names(again) == ["a", "b"]
    lose(queue, again)
    assert [names(queue.take()), names(queue.take()), queue.take()] == [["a"], ["b"], None]


def test_a_video_that_ends_three_workers_alone_has_failed() -> None:
    queue, _ = make_queue([planned("bad", 40), planned("good", 40)])
    for _ in range(MOST_DEATHS - 1):
        unit = taken(queue)
        assert names(unit) == ["bad"]
        assert lose(queue, unit) == []
    (progress,) = lose(queue, taken(queue))
    assert len(progress.failures) == 40
    assert {failure.error_class for failure in progress.failures} == {"WorkerDied"}
    assert "/videos/bad.mp4" in progress.failures[0].message
    assert "SIGKILL" in progress.failures[0].message
    assert names(queue.take()) == ["good"]


def test_a_video_that_gets_on_is_not_to_blame() -> None:
    queue, _ = make_queue([planned("slow", 40)])
    for number in range(3 * MOST_DEATHS):
        unit = taken(queue)
        queue.note(unit, stored(unit, "slow", [number]))
        assert lose(queue, unit) == []
    assert queue.open


def test_rows_that_failed_are_not_tried_again() -> None:
    queue, _ = make_queue([planned("a", 1)])
    unit = taken(queue)
    (work,) = unit.videos
    failure = row_failure(work.rows["verb"][0], ValueError("no"))
    queue.note(unit, Progress("verb", failures=[failure]))
    assert lose(queue, unit) == []
    assert not queue.open


def test_late_news_of_a_lost_unit_does_no_harm() -> None:
    queue, _ = make_queue([planned("a", 40)])
    unit = taken(queue)
    lose(queue, unit)
    queue.note(unit, stored(unit, "a", [0]))
    queue.done(unit)
    assert lose(queue, unit) == []
    assert len(next(iter(taken(queue).videos)).rows["verb"]) == 40  # at least once, never lost


@pytest.mark.parametrize("stop_early", [False, True])
def test_a_queue_is_open_until_its_units_are_finished(stop_early: bool) -> None:
    queue, _ = make_queue([planned("a", 40)])
    assert queue.open
    unit = taken(queue)
    assert queue.open
    if not stop_early:
        queue.note(unit, stored(unit, "a", range(40)))
    queue.done(unit)
    assert not queue.open


def test_rows_that_are_computed_again_do_not_count_twice() -> None:
    queue, _ = make_queue([planned("a", 40)])
    unit = taken(queue)
    queue.note(unit, Progress("verb", computed=12))
    queue.note(unit, stored(unit, "a", range(8)))
    assert [(p.stage, p.computed, p.failures) for p in lose(queue, unit)] == [("verb", -4, ())]


def test_a_worker_may_have_the_next_unit_beside_its_own() -> None:
    queue, _ = make_queue([planned(f"v{number}", 10) for number in range(8)])
    first = taken(queue)
    second = queue.take_beside([first])
    assert second is not None
    assert names(second) == ["v1"]
    assert len(queue) == 6
    for _ in range(6):
        taken(queue)
    assert queue.take_beside([first]) is None


def test_what_a_dead_worker_had_is_tried_with_nothing_beside_it() -> None:
    queue, _ = make_queue([planned(f"v{number}", 10) for number in range(8)])
    first = taken(queue)
    lose(queue, taken(queue))
    assert queue.take_beside([first]) is None  # the next in turn is what is left of a unit
    again = taken(queue)
    assert names(again) == ["v1"]
    assert queue.take_beside([again]) is None
    assert names(queue.take_beside([first])) == ["v2"]
