"""What runs in an actor of a Ray cluster: the same worker as in a process, behind two calls.

The networks run in a thread, so that the actor always answers. Torch is loaded there, with the
setup: an actor that has not answered yet has not even started. One call is out at a time: it brings
a message and takes along what the worker has said since. That works over every kind of connection
to a cluster, and whoever is asked again and again is known to be alive.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from pipeline.errors import ConfigError
from pipeline.local_worker import Broken, Stop, serve
from pipeline.work import Unit

__all__ = ["Here", "Lacking", "Place", "RayWorker"]

# A call waits so long for something to be said; a message from the coordinator may wait as long.
ASK_SECONDS = 0.5
# How long a file that was just made may take to be seen on other machines.
SEEN_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where the coordinator works, which a worker has to see as well.

    Attributes:
        folder: in which the command runs; relative paths start there.
        proof: the run's log in the store, which no other folder has; None if there is none.
    """

    folder: Path
    proof: Path | None


@dataclass(frozen=True)
class Here:
    """Worker to coordinator: where it runs. ``gpus``: as CUDA_VISIBLE_DEVICES has them."""

    pid: int
    host: str
    gpus: str


@dataclass(frozen=True)
class Lacking:
    """Worker to coordinator: a video of its unit is not on its machine."""

    path: Path


class RayWorker:
    """The actor; knows nothing of Ray."""

    def __init__(self) -> None:
        self._line = _Line()
        self._thread: Thread | None = None

    def begin(self, pickled_setup: bytes, place: Place) -> Here:
        """Start to build networks; `ask` tells when they are ready, or what is wrong."""
        trouble = _trouble(place)
        if trouble is None:
            work = (self._line, pickled_setup)
            self._thread = Thread(target=_serve, args=work, name="work", daemon=True)
            self._thread.start()
        else:
            self._line.send(Broken(trouble))
        return Here(os.getpid(), socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    def ask(self, message: Unit | Stop | None) -> list[object]:
        """Bring a message, and take what was said since; waits a little if that is nothing.

        Raises:
            RuntimeError: the worker has ended without a word.
        """
        said: list[object] = []
        if isinstance(message, Unit):
            said += _lacking(message)
        if message is not None:
            self._line.inbox.put(message)
        has_ended = self._thread is not None and not self._thread.is_alive()
        said += self._line.said(ASK_SECONDS)
        if has_ended and not said:
            raise RuntimeError("the thread that works has ended without a word")
        return said


class _Line:
    """What `serve` speaks through, in place of a connection; nobody waits for the other to read."""

    def __init__(self) -> None:
        self.inbox: SimpleQueue[object] = SimpleQueue()
        self._outbox: SimpleQueue[object] = SimpleQueue()

    def send(self, message: object) -> None:
        self._outbox.put(message)

    def recv(self) -> object:
        return self.inbox.get()

    def said(self, seconds: float) -> list[object]:
        """All that was sent; waits for the first."""
        messages: list[object] = []
        with suppress(Empty):
            messages.append(self._outbox.get(timeout=seconds))
            while True:
                messages.append(self._outbox.get_nowait())
        return messages


def _serve(line: _Line, pickled_setup: bytes) -> None:
    try:
        setup = pickle.loads(pickled_setup)
    except Exception as error:  # another version of something
        line.send(Broken(RuntimeError(f"{type(error).__name__}: {error}")))
        return
    serve(line, setup)


def _trouble(place: Place) -> ConfigError | None:
    """Why rows made here would not get to where the coordinator looks for them."""
    try:
        os.chdir(place.folder)
    except OSError as error:
        return ConfigError(
            f"{place.folder}: {error.strerror}: the command runs in this folder, and relative "
            "paths start there; run it in a folder that all machines have"
        )
    if place.proof is not None and not _is_seen(place.proof):
        store = place.proof.parent.parent
        return ConfigError(
            f"workers write to {store}, which this machine does not have, or has another folder of "
            "that name; it must be storage that all machines share"
        )
    return None


def _is_seen(path: Path) -> bool:
    last = time.monotonic() + SEEN_SECONDS
    while not path.exists():
        if time.monotonic() > last:
            return False
        time.sleep(0.1)
    return True


def _lacking(unit: Unit) -> list[Lacking]:
    """A video that is not there: every row of it would fail, and of the next unit too."""
    lost = (work.video.path for work in unit.videos if not work.video.path.exists())
    return [Lacking(path) for path in lost][:1]
