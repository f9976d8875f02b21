"""Starting processes that inherit neither threads nor CUDA, quickly where that is possible."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["start_context", "without_main"]


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes start without the program that runs here.

    They would import its file, and run all of it where it has no ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_context() -> Any:
    """How processes are started: by a server that has loaded what they need."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.decode_worker"])
    return context
