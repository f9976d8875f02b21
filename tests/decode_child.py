"""What tests of decode processes run in other processes, and videos that harm these."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import threading
import time
from abc import abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from extractors import heartbeat
from extractors.video import VideoReader
from pipeline.decode_worker import Begun
from pipeline.processes import end_with_parent
from pipeline.videos import Video

__all__ = ["EndlessVideo", "GreedyVideo", "HarmfulVideo", "die_in_mid_sentence", "wait_for_ever"]


@dataclass(frozen=True)
class HarmfulVideo(Video):
    """A video whose reader does harm from a frame on."""

    well_until: int = 0

    def open(self, *, num_threads: int = 0) -> VideoReader:
        reader: Any = super().open(num_threads=num_threads)
        decode = reader._decode

        def harmful(wanted: list[int]) -> Generator[Any, None, None]:
            for index, frame in decode(wanted):
                if index >= self.well_until:
                    self.harm()
                yield index, frame

        reader._decode = harmful
        return reader

    @abstractmethod
    def harm(self) -> None:
        """Never end."""


class EndlessVideo(HarmfulVideo):
    """Its reader reads on for ever, and nothing comes of it."""

    def harm(self) -> None:
        while True:
            heartbeat.beat()
            time.sleep(0.01)


class GreedyVideo(HarmfulVideo):
    """Its reader wants ever more memory, up to what tests may take where nobody refuses it."""

    def harm(self) -> None:
        hoard = []
        for _ in range(128):
            heartbeat.beat()
            hoard.append(np.ones(2**24, np.uint8))


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


def die_in_mid_sentence(connection: Connection, *_: Any) -> None:
    """A decode process that ends while a message of it is on its way."""
    reduction.recv_handle(connection)
    connection.recv()
    connection.send(Begun())
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
