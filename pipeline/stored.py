"""What is stored of an experiment, looked at without changing anything."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.experiment import Experiment
from stores.base import Store
from stores.registry import open_store

__all__ = ["open_if_there", "remember"]


def open_if_there(path: Path) -> AbstractContextManager[Store | None]:
    """The store opened for reading, or None inside a context where there is none yet."""
    absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    return nullcontext(None) if absent else open_store(path, mode="r")


def remember(experiment: Experiment, store: Store | None) -> None:
    """Keep what was learnt where there is a store; elsewhere none could be made any more."""
    if store is not None:
        experiment.known.save_if_possible()
