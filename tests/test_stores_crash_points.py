"""A crash before, in the middle of, and after every call that reaches the disk."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from fault_calls import CrashAt, changes_something, crash, every_call
from fault_harness import STEPS, Kind, Work, check_store, every_compression, every_kind
from store_suite import fast_folder


def crash_work(kind: Kind, root: Path, hook: CrashAt, done: int = 0) -> tuple[bool, int]:
    """Do the steps after the first `done`; return whether that crashed, and the steps done."""
    crashed, said = crash(lambda say: Work(kind, root, done, say).run(), hook)
    return crashed, max(done, said)


def crash_everywhere(kind: Kind, counts: Any = changes_something) -> tuple[int, set[int]]:
    """Return the number of points, and after how many steps there were crashes."""
    seen = set()
    for point in itertools.count(1):
        with fast_folder() as folder:
            crashed, done = crash_work(kind, folder / "store", CrashAt(point, counts))
            seen.add(done)
            if not crashed:
                return point, seen
            try:
                check_store(kind, folder / "store", done)
            except BaseException as error:
                error.add_note(f"after a crash at point {point}, in step {STEPS[done]}")
                raise
    raise AssertionError


@every_kind
def test_a_crash_at_any_point_loses_nothing_that_was_acknowledged(
    kind: Kind, small_process: Any
) -> None:
    points, seen = small_process(crash_everywhere, kind)
    assert seen == set(range(len(STEPS) + 1))
    assert points > 100


@pytest.mark.slow
@every_compression
def test_no_call_is_left_out(kind: Kind, small_process: Any) -> None:
    points, seen = small_process(crash_everywhere, kind, every_call)
    assert seen == set(range(len(STEPS) + 1))
    assert points > 200


def crash_and_crash_again(kind: Kind, case: int) -> None:
    choose = random.Random(case)
    points = [choose.randint(1, 110), *choose.choices(range(1, 40), k=choose.randint(1, 3))]
    with fast_folder() as folder:
        _, done = crash_work(kind, folder / "store", CrashAt(points[0]))
        for point in points[1:]:
            crash_open(kind, folder / "store", point)
        try:
            check_store(kind, folder / "store", done)
        except BaseException as error:
            error.add_note(f"case {case}: after crashes at points {points}")
            raise


def crash_open(kind: Kind, root: Path, point: int) -> bool:
    """Open and close a store, crash at a point; return whether it did."""
    crashed, _ = crash(lambda say: kind.open(root).close(), CrashAt(point))
    return crashed


@every_kind
def test_a_recovery_may_crash_as_well(kind: Kind, small_process: Any) -> None:
    for case in range(60):
        small_process(crash_and_crash_again, kind, case)


@pytest.mark.slow
@every_kind
def test_many_recoveries_may_crash(kind: Kind, small_process: Any) -> None:
    for case in range(60, 460):
        small_process(crash_and_crash_again, kind, case)


@every_kind
def test_the_recoveries_of_one_store_may_all_crash(kind: Kind, small_process: Any) -> None:
    """One at its first point, the next at its second, and so on, until one comes to its end."""
    with fast_folder() as folder:
        root = folder / "store"
        _, done = small_process(crash_work, kind, root, CrashAt(80))
        assert 0 < done < len(STEPS)
        points = itertools.count(1)
        crashes = itertools.takewhile(lambda n: small_process(crash_open, kind, root, n), points)
        assert len(list(crashes)) > 10
        check_store(kind, root, done)
