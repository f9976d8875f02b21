"""Run an iterator ahead in a thread, so that decoding and forward passes overlap."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["prefetch"]

T = TypeVar("T")


class _End:
    """Closes the queue; carries what the iterator raised, if it did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterator[T], *, depth: int) -> Generator[T, None, None]:
    """Yield `items`, up to `depth` of them made ahead of time by a thread.

    What the iterator raises is raised here, after the items before it. Closing the generator stops
    the thread, closes `items` and waits for both.

    Raises:
        ValueError: a depth below 1.
    """
    if depth < 1:
        raise ValueError(f"got depth {depth}, expected 1 or more")
    ready: SimpleQueue[T | _End] = SimpleQueue()
    room = threading.Semaphore(depth)  # an item is begun only when there is room for it
    stop = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            _make(items, ready, room, stop)
        except BaseException as caught:
            error = caught
        ready.put(_End(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        room.release()
        thread.join()


def _make(
    items: Iterator[T],
    ready: SimpleQueue[T | _End],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    try:
        while room.acquire() and not stop.is_set():
            try:
                ready.put(next(items))
            except StopIteration:
                return
    finally:
        if hasattr(items, "close"):
            items.close()
