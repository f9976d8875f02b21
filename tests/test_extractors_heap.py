"""The heap is looked after: given back when it has grown, left alone otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from extractors import heap
from extractors.heap import GROWTH, WARM_UP_BATCHES, Heap


class Library:
    """Counts what is asked of the C library."""

    def __init__(self) -> None:
        self.trims = 0

    def mallopt(self, what: int, value: int) -> None: ...

    def malloc_trim(self, pad: int) -> None:
        self.trims += 1


def test_it_is_trimmed_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    library, process = Library(), SimpleNamespace(pages=0)
    monkeypatch.setattr(heap, "_glibc", lambda: library)
    monkeypatch.setattr(heap, "_resident_pages", lambda: process.pages)
    watched = Heap()
    for pages in range(1000 - WARM_UP_BATCHES, 1000):  # growing at first is no growth
        process.pages = pages + 1
        watched.after_batch()
    process.pages = round(1000 * GROWTH)
    watched.after_batch()
    assert library.trims == 0
    process.pages += 1
    watched.after_batch()
    assert library.trims == 1
    watched.after_batch()  # what could not be given back is in use
    assert library.trims == 1


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    Heap().after_batch()
