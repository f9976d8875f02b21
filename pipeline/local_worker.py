"""What runs in a worker process: units in, shard files written, what came of them out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.processes import end_with_parent
from pipeline.work import Finished, Unit

if TYPE_CHECKING:  # it loads torch, which takes long; a worker says first that it is there
    from pipeline.workbench import Setup

__all__ = ["Alive", "Broken", "Line", "Ready", "Stop", "run_local_worker", "serve"]

ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class Ready:
    """Worker to coordinator: the networks are built."""


@dataclass(frozen=True)
class Alive:
    """Worker to coordinator: something is going on, though there is nothing to tell."""


@dataclass(frozen=True)
class Broken:
    """Worker to coordinator: no unit can be done."""

    error: Exception

    @property
    def is_of_the_run(self) -> bool:
        """Whether other workers would fare no better; a GPU may break for one of them alone."""
        return not isinstance(self.error, RuntimeError | MemoryError)


@dataclass(frozen=True)
class Stop:
    """Coordinator to worker: write what is finished and end all units."""


class Line(Protocol):
    """A worker's end of what it speaks through with the coordinator, such as a connection."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...


def run_local_worker(connection: Connection, setup: Setup) -> None:
    """Do the units that the coordinator sends until it hangs up.

    Args:
        connection: to the coordinator.
        setup: what to build.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the coordinator decides
    Thread(target=end_with_parent, name="parent", daemon=True).start()
    serve(connection, setup)


def serve(line: Line, setup: Setup) -> None:
    """Do the units that come, and say what comes of them, until the line is closed."""
    try:
        _work(line, setup)
    except (EOFError, ConnectionError):
        return  # the coordinator is gone or needs no more
    except Exception as error:
        line.send(Broken(_plain(error)))


def _work(connection: Line, setup: Setup) -> None:
    from pipeline.workbench import Workbench

    inbox = _Inbox(connection)
    with closing(Workbench(setup)) as bench:
        connection.send(Ready())
        spoke_at = time.monotonic()
        for said in bench.run(inbox.units(), inbox.stop):
            if said is not None:
                connection.send(said)
            elif time.monotonic() - spoke_at > ALIVE_SECONDS:
                connection.send(Alive())
            else:
                continue
            spoke_at = time.monotonic()
    for unit in inbox.left():
        connection.send(Finished(unit.number))
    inbox.over.wait()  # told to stop, it is the coordinator who hangs up


class _Inbox:
    """What the coordinator sends, taken while units are worked on.

    Attributes:
        stop: it wants no more than what is finished.
        over: it has hung up.
    """

    def __init__(self, line: Line) -> None:
        self.stop = threading.Event()
        self.over = threading.Event()
        self._units: SimpleQueue[Unit] = SimpleQueue()
        Thread(target=self._listen, args=(line,), name="listener", daemon=True).start()

    def units(self) -> Iterator[Unit | None]:
        """As they come; None where there is none yet."""
        while not self.over.is_set():
            try:
                yield self._units.get_nowait()
            except Empty:
                yield None

    def left(self) -> Iterator[Unit]:
        """Those that were not begun when it said to stop."""
        while not self._units.empty():
            yield self._units.get_nowait()

    def _listen(self, line: Line) -> None:
        try:
            while True:
                message = line.recv()
                if isinstance(message, Stop):
                    self.stop.set()
                else:
                    self._units.put(message)
        except (EOFError, ConnectionError):
            self.over.set()
            self.stop.set()


def _plain(error: Exception) -> Exception:
    """An error that can be pickled, whatever it holds."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
