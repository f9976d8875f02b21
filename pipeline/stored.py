"""What is stored of an experiment, looked at without changing anything."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.experiment import Experiment
from stores.base import Failure, Store
from stores.registry import open_store

__all__ = ["open_if_there", "recorded_failures", "remember"]


def open_if_there(path: Path) -> AbstractContextManager[Store | None]:
    """The store opened for reading, or None inside a context where there is none yet."""
    absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    return nullcontext(None) if absent else open_store(path, mode="r")


def recorded_failures(store: Store | None) -> list[Failure]:
    """Every failure that a store has a record of."""
    infos = [] if store is None else store.generations()
    return [
        failure
        for info in infos
        if info.failures and store is not None
        for failure in store.generation(info.stage, info.key).failures()
    ]


def remember(experiment: Experiment, store: Store | None) -> None:
    """Keep what was learnt where there is a store; elsewhere none could be made any more."""
    if store is not None:
        experiment.known.save_if_possible()
