from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from pipeline.prefetch import prefetch


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def settle(made: list[int], expected: int) -> None:
    """Wait until the thread has made so many items, and a moment longer for one too many."""
    deadline = time.monotonic() + 10
    while len(made) < expected and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.03)


class Source:
    """Counts what is made of it, and knows whether it was closed and by whom."""

    def __init__(self, count: int, error_at: int | None = None) -> None:
        self.made: list[int] = []
        self.count = count
        self.error_at = error_at
        self.is_closed = False
        self.thread: threading.Thread | None = None

    def items(self) -> Iterator[int]:
        try:
            for item in range(self.count):
                if item == self.error_at:
                    raise KeyError("no such frame")
                self.made.append(item)
                self.thread = threading.current_thread()
                yield item
        finally:
            self.is_closed = True


@pytest.mark.parametrize("depth", [1, 2, 7, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_all_items_come_in_order(depth: int, count: int) -> None:
    source = Source(count)
    assert list(prefetch(source.items(), depth=depth)) == list(range(count))
    assert source.is_closed
    assert running() == []


def test_items_are_made_by_another_thread() -> None:
    source = Source(3)
    assert list(prefetch(source.items(), depth=1)) == [0, 1, 2]
    assert source.thread is not None
    assert source.thread is not threading.current_thread()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_are_made_ahead(depth: int) -> None:
    source = Source(100)
    ahead = prefetch(source.items(), depth=depth)
    for taken in range(1, 6):
        assert next(ahead) == taken - 1
        settle(source.made, taken + depth)
        assert len(source.made) == taken + depth
    ahead.close()


def test_nothing_is_kept_of_items_that_were_taken() -> None:
    class Item:
        pass

    references: list[weakref.ref[Item]] = []

    def items() -> Iterator[Item]:
        for _ in range(20):
            item = Item()
            references.append(weakref.ref(item))
            yield item
            del item

    alive = []
    for item in prefetch(items(), depth=2):
        del item
        time.sleep(0.002)
        alive.append(sum(reference() is not None for reference in references))
    # Two ahead, and the one that the generator still holds for the reader.
    assert max(alive) <= 3


@pytest.mark.parametrize("error_at", [0, 1, 5])
@pytest.mark.parametrize("depth", [1, 10])
def test_an_error_comes_after_the_items_before_it(error_at: int, depth: int) -> None:
    source = Source(10, error_at)
    got: list[int] = []
    with pytest.raises(KeyError, match="no such frame") as caught:
        got.extend(prefetch(source.items(), depth=depth))
    assert got == list(range(error_at))
    assert any("items" in str(entry) for entry in caught.traceback)  # where it was raised
    assert source.is_closed
    assert running() == []


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_early_stops_the_thread_and_closes_the_source(taken: int) -> None:
    source = Source(10**9)
    ahead = prefetch(source.items(), depth=2)
    for _ in range(taken):
        next(ahead)
    assert len(running()) == 1
    ahead.close()
    assert running() == []
    assert source.is_closed
    assert len(source.made) <= taken + 2


def test_leaving_the_loop_with_an_error_stops_the_thread() -> None:
    source = Source(10**9)

    def consume() -> None:
        for item in prefetch(source.items(), depth=2):
            if item == 3:
                raise RuntimeError("the reader fails")

    with pytest.raises(RuntimeError, match="the reader fails"):
        consume()
    assert source.is_closed
    assert running() == []


def test_closing_waits_for_an_item_in_the_making() -> None:
    is_begun, may_end = threading.Event(), threading.Event()
    finished = []

    def items() -> Iterator[int]:
        yield 0
        is_begun.set()
        may_end.wait(10)
        finished.append(True)
        yield 1

    ahead = prefetch(items(), depth=1)
    next(ahead)
    assert is_begun.wait(10)
    threading.Timer(0.05, may_end.set).start()
    ahead.close()
    assert finished == [True]
    assert running() == []


def test_plain_iterators_will_do() -> None:
    assert list(prefetch(iter([1, 2, 3]), depth=2)) == [1, 2, 3]


def test_an_error_while_closing_does_not_hang_the_reader() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise StopIteration

        def close(self) -> None:
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        list(prefetch(Broken(), depth=1))


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_that_is_none(depth: int) -> None:
    with pytest.raises(ValueError, match=f"got depth {depth}, expected 1 or more"):
        next(prefetch(iter([1]), depth=depth))
