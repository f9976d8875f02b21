"""Reading what runs told of themselves: their logs, and the state of the one that goes on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.journal import LIVE_FILE, LOGS_FOLDER, boot_id, process_started

__all__ = ["LiveRun", "last_event", "read_live", "read_log", "run_logs"]

# A run on another machine that has not written its state for so long has probably died.
SILENT_SECONDS = 120.0
END_NBYTES = 2**16  # of a log, with its last event


@dataclass(frozen=True)
class LiveRun:
    """What a store's ``run.json`` says, and whether the run that wrote it is there.

    Attributes:
        state: as `Journal.live` wrote it.
        verdict: ``running``; ``dead``: its process ended and left the file; ``silent``: it is of
            another machine, and has written nothing for `silent_seconds`.
    """

    state: Mapping[str, Any]
    verdict: Literal["running", "dead", "silent"]
    silent_seconds: float

    @property
    def who(self) -> str:
        """The run's process, in words."""
        return f"a run on host {self.state.get('host')}, pid {self.state.get('pid')}"


def read_live(folder: Path) -> LiveRun | None:
    """The run that writes to a store, or one that ended without saying so; None without any."""
    try:
        state = json.loads((folder / LIVE_FILE).read_text(encoding="utf-8"))
        updated = datetime.fromisoformat(state["updated"])
        pid = int(state["pid"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    silent_seconds = max(0.0, (datetime.now(UTC) - updated).total_seconds())
    if state.get("host") == socket.gethostname():
        return LiveRun(state, "running" if _is_there(pid, state) else "dead", silent_seconds)
    verdict: Literal["running", "silent"] = "running"
    if silent_seconds > SILENT_SECONDS:
        verdict = "silent"
    return LiveRun(state, verdict, silent_seconds)


def _is_there(pid: int, state: Mapping[str, Any]) -> bool:
    """Whether that process of this machine lives, and not just another one of its number."""
    if state.get("boot") != boot_id() or state.get("process_started") != process_started(pid):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return True


def run_logs(folder: Path) -> list[Path]:
    """The logs in a store, the newest first."""
    with suppress(OSError):
        return sorted((folder / LOGS_FOLDER).glob("*.jsonl"), reverse=True)
    return []


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log, oldest first; lines that were cut short are left out."""
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def last_event(path: Path) -> dict[str, Any] | None:
    """The last whole event of a log, however long the log is."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_NBYTES))
        for line in reversed(file.read().splitlines()):
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    return event
    return None
