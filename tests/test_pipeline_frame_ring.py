"""Where rows lie in shared memory: never over a row that is still in use."""

from __future__ import annotations

import os
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame_ring import RingLayout, create_frame_file, map_frames


def test_both_sides_see_the_same_bytes() -> None:
    descriptor = create_frame_file(100)
    one, other = map_frames(descriptor, 100), map_frames(descriptor, 100)
    os.close(descriptor)
    one[40:43] = (1, 2, 3)
    assert other[40:43].tolist() == [1, 2, 3]


def test_rows_lie_behind_each_other_and_wrap_round() -> None:
    ring = RingLayout(10)
    assert [ring.allocate(4), ring.allocate(4)] == [0, 4]
    assert ring.allocate(3) is None  # two bytes are left at the end, none at the start
    ring.free_oldest()
    assert ring.allocate(3) == 0
    assert ring.allocate(2) is None  # one byte before the row at 4
    assert ring.allocate(1) == 3
    ring.free_oldest()
    assert ring.allocate(6) == 4
    for _ in range(3):
        ring.free_oldest()
    assert ring.allocate(10) == 0  # an empty ring takes the largest row wherever it stood


@given(
    st.integers(1, 40),
    st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=60),
)
def test_no_two_rows_ever_share_a_byte(nbytes: int, calls: list[int | None]) -> None:
    """A number allocates so much, None frees the oldest row."""
    ring, rows = RingLayout(nbytes), deque[tuple[int, int]]()
    for call in calls:
        if call is None:
            if rows:
                ring.free_oldest()
                rows.popleft()
        elif call <= nbytes:
            offset = ring.allocate(call)
            if offset is None:
                assert rows  # there is always room in an empty ring
                continue
            assert 0 <= offset <= nbytes - call
            assert all(offset + call <= at or at + size <= offset for at, size in rows)
            rows.append((offset, call))


@pytest.mark.parametrize("nbytes", [0, 11])
def test_rows_that_never_fit_are_refused(nbytes: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 10"):
        RingLayout(10).allocate(nbytes)


def test_an_empty_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        RingLayout(0)
