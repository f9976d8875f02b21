"""What is stored of an experiment, looked at without changing anything."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from stores.base import Store
from stores.registry import open_store

__all__ = ["open_if_there"]


def open_if_there(path: Path) -> AbstractContextManager[Store | None]:
    """The store opened for reading, or None inside a context where there is none yet."""
    absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    return nullcontext(None) if absent else open_store(path, mode="r")
