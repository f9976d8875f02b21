"""Starting processes that inherit neither threads nor CUDA, quickly where that is possible."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

__all__ = [
    "die_with_parent",
    "end_with_parent",
    "exit_in_words",
    "limit_waiting",
    "start_context",
    "unheard",
    "without_main",
]

HALF_A_MESSAGE_SECONDS = 60
PR_SET_PDEATHSIG = 1  # of Linux


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


def end_with_parent() -> None:
    """End this process when its parent has ended, whatever it is busy with; runs in a thread."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def die_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent ends, which has that id and may be any program.

    Elsewhere only a parent that has ended by now is seen. The thread that started this process has
    to last as long as the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before


@contextmanager
def unheard(*signals: signal.Signals) -> Iterator[None]:
    """Processes that start meanwhile never hear of these signals; this one hears of them later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_in_words(code: int | None) -> str:
    """How a process ended, by its exit code as `multiprocessing` gives it."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def limit_waiting(connection: Connection) -> None:
    """Let nobody wait for ever for the rest of a message from, or to, a process that was stopped.

    Sending and receiving then raise OSError.

    Args:
        connection: one end of a pipe with two directions, which is a pair of sockets.
    """
    limit = struct.pack("ll", HALF_A_MESSAGE_SECONDS, 0)
    with socket.socket(fileno=os.dup(connection.fileno())) as pair:
        pair.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        pair.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def start_context() -> Any:
    """How processes are started: by a server that has loaded what they need."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.decode_worker"])
    return context
