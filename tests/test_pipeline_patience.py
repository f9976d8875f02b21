"""Waiting for storage: how long, for what, and what is said."""

from __future__ import annotations

import pytest

from pipeline import patience
from pipeline.patience import Patience
from stores.base import StorageUnavailableError


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses, which take no time here; the clock goes on by them."""
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    monkeypatch.setattr(patience.time, "monotonic", lambda: sum(pauses))
    return pauses


class Storage:
    """Fails so many times."""

    def __init__(self, failures: int, error: type[OSError] = StorageUnavailableError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error("the folder is gone")
        return "done"


def test_what_works_is_done_once(slept: list[float]) -> None:
    storage, said = Storage(0), list[str]()
    assert Patience(60, said.append)(storage) == "done"
    assert (storage.calls, slept, said) == (1, [], [])


def test_storage_that_comes_back_is_waited_for(slept: list[float]) -> None:
    storage, said = Storage(5), list[str]()
    assert Patience(60, said.append)(storage) == "done"
    assert slept == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert said == [
        "the folder is gone; waiting up to 60 s for it to come back",
        "the storage is back",
    ]


def test_storage_that_stays_away_is_given_up(slept: list[float]) -> None:
    with pytest.raises(StorageUnavailableError, match="the folder is gone"):
        Patience(60)(Storage(1000))
    assert 45 < sum(slept) <= 60


def test_other_errors_are_not_waited_for(slept: list[float]) -> None:
    storage = Storage(1, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        Patience(60)(storage)
    assert (storage.calls, slept) == (1, [])
