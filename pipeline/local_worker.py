"""What runs in a worker process: units in, shard files written, what came of them out."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.processes import end_with_parent
from pipeline.work import Unit

if TYPE_CHECKING:  # it loads torch, which takes long; a worker says first that it is there
    from pipeline.workbench import Setup

__all__ = ["Alive", "Broken", "Finished", "Line", "Ready", "Stop", "run_local_worker", "serve"]

ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class Ready:
    """Worker to coordinator: the networks are built."""


@dataclass(frozen=True)
class Alive:
    """Worker to coordinator: something is going on, though there is nothing to tell."""


@dataclass(frozen=True)
class Finished:
    """Worker to coordinator: the unit is done, or ended early as told."""


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
    """Coordinator to worker: write what is finished and end the unit."""


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

    stop = threading.Event()
    units: SimpleQueue[Unit | None] = SimpleQueue()
    Thread(target=_listen, args=(connection, units, stop), name="listener", daemon=True).start()
    with closing(Workbench(setup)) as bench:
        connection.send(Ready())
        while (unit := units.get()) is not None:
            spoke_at = time.monotonic()
            for progress in bench.run(unit, stop):
                if progress is not None:
                    connection.send(progress)
                elif time.monotonic() - spoke_at > ALIVE_SECONDS:
                    connection.send(Alive())
                else:
                    continue
                spoke_at = time.monotonic()
            connection.send(Finished())


def _listen(connection: Line, units: SimpleQueue[Unit | None], stop: threading.Event) -> None:
    """Take messages while a unit is worked on."""
    try:
        while True:
            message = connection.recv()
            if isinstance(message, Stop):
                stop.set()
            else:
                units.put(message)
    except (EOFError, ConnectionError):
        units.put(None)
        stop.set()


def _plain(error: Exception) -> Exception:
    """An error that can be pickled, whatever it holds."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
