"""What a run tells while it goes on, beside the rows: a log for later, and its state right now.

<store>/logs/<UTC time>-<pid>.jsonl   a line of JSON for each event, kept
<store>/run.json                      how far the run is that writes to this store, gone at its end

Both are for people and dashboards. Nothing is ever decided by them, so trouble with them never ends
a run: a full disk, or one that vanishes for a while, only loses lines.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.reproduce import ConfigSource, failure_fields
from pipeline.worker_board import WorkerBoard, WorkerLine
from stores.base import Failure
from stores.durable import replace_file

__all__ = ["LIVE_FILE", "LOGS_FOLDER", "Journal", "boot_id", "process_started", "utc_now"]

LOGS_FOLDER, LIVE_FILE = "logs", "run.json"
LIVE_SECONDS = 1.0  # between two writes of changes to the state
BEAT_SECONDS = 30.0  # the state is written as often as that even if nothing changes
LAST_WRITE_SECONDS = 10.0  # a write that hangs longer is not waited for at the end

logger = logging.getLogger(__name__)


class Journal:
    """The log and the live state of one run; safe to use from several threads, never raises.

    Args:
        folder: of the store, which is there; None keeps nothing.
        source: what was typed to name the experiment, for commands that show failures again.
        on_workers: told about the workers whenever something about them changed.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        source: ConfigSource | None = None,
        on_workers: Callable[[Sequence[WorkerLine]], None] | None = None,
    ) -> None:
        self._folder = folder
        self._source = None if source is None else source.from_anywhere()
        self._on_workers = on_workers
        self._board = WorkerBoard()
        started = datetime.now(UTC)
        self.path: Path | None = None
        if folder is not None:
            name = f"{started:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}.jsonl"
            self.path = folder / LOGS_FOLDER / name
        self._descriptor = -1
        self._torn = False  # the last line was cut short
        self._has_complained = False
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": boot_id(),
            "process_started": process_started(os.getpid()),
            "started": _text(started),
            "log": None if self.path is None else self.path.name,
        }
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def event(self, event: str, **fields: Any) -> None:
        """Add a line: the UTC time, the event's name and its fields, which are JSON values."""
        now = utc_now()
        if self._board.note(event, fields, now):
            self.live(workers=[line.to_json() for line in self._board.lines])
            if self._on_workers is not None:
                self._on_workers(self._board.lines)
        if self.path is None:
            return
        line = json.dumps({"time": now, "event": event, **fields}, default=str) + "\n"
        with self._lock:
            try:
                self._write(self.path, line.encode())
            except OSError as error:
                self._close_file()  # what comes back after having vanished is opened anew
                self._complain(error)

    def failures(self, stage: str, failures: Iterable[Failure]) -> None:
        """Add a line for each row that cannot be made, with the command that shows it again."""
        for failure in failures:
            self.event("failure", **failure_fields(failure, stage, self._source))

    def live(self, **state: Any) -> None:
        """Say how far the run is; fields that are not named keep what they were.

        Returns at once: a thread writes the file, at most once a second.
        """
        if self._folder is None or self._closing.is_set():
            return
        with self._lock:
            self._state.update(state)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep_live, args=(self._folder / LIVE_FILE,), daemon=True
                )
                self._thread.start()
        self._changed.set()

    def close(self) -> None:
        """The run is over: its state is removed, its log stays. Safe to call twice."""
        self._closing.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(LAST_WRITE_SECONDS)
            self._thread = None
        with self._lock:
            self._close_file()

    def _write(self, path: Path, line: bytes) -> None:
        if self._descriptor < 0:
            with suppress(FileExistsError):
                path.parent.mkdir()  # not what is above it: a store that vanished is not made anew
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o666)
        start = b"\n" if self._torn else b""
        written = os.write(self._descriptor, start + line)
        self._torn = written < len(start + line)
        if self._torn:
            raise OSError(f"wrote {written} of {len(line)} bytes")

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _keep_live(self, path: Path) -> None:
        while not self._closing.is_set():
            self._changed.clear()
            with self._lock:
                text = json.dumps({**self._state, "updated": utc_now()}, default=str)
            try:
                replace_file(path, text.encode() + b"\n", durable=False)
            except OSError as error:
                self._complain(error)
            self._closing.wait(LIVE_SECONDS)
            self._changed.wait(BEAT_SECONDS)
        with suppress(OSError):
            path.unlink()

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning("lines of %s are lost, rows are not: %s", self.path, error)


def boot_id() -> str:
    """Of this start of this machine; "" where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def process_started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since the boot; None if that is unknown."""
    with suppress(OSError, ValueError, IndexError):
        # The name of the program stands in brackets, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    return None


def utc_now() -> str:
    """The time as journals write it: 2026-01-31T12:00:00.000Z."""
    return _text(datetime.now(UTC))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
