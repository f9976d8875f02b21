"""What tests of decode processes run in other processes."""

from __future__ import annotations

import multiprocessing
import signal
import threading

from pipeline.decode_worker import end_with_parent

__all__ = ["wait_for_ever"]


def wait_for_ever() -> None:
    """Be as deaf as a decoder in an endless loop, but for the watch over the parent."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.pause()


def main() -> None:
    """Start such a process, say its number, and wait."""
    child = multiprocessing.get_context("forkserver").Process(target=wait_for_ever, daemon=True)
    child.start()
    print(child.pid, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
