"""Which workers a run has and what each is at, gathered from the events of its journal."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["WorkerBoard", "WorkerLine"]

MAX_VIDEOS = 3


@dataclass
class WorkerLine:
    """One worker.

    Attributes:
        unit: number of the unit it works on; None while it waits for one. The next one, which it
            may have as well, is not told of.
        videos: the first few of the unit's, of `num_videos`.
        since: UTC time it was given the unit, or started.
    """

    name: str
    pid: int | None
    host: str
    since: str
    unit: int | None = None
    videos: tuple[str, ...] = ()
    num_videos: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @property
    def at_what(self) -> str:
        """Its videos, in words."""
        if self.unit is None:
            return "waiting"
        more = self.num_videos - len(self.videos)
        return ", ".join(self.videos) + (f" and {more:,} more" if more else "")


class WorkerBoard:
    """Listens to events; forgets workers that ended."""

    def __init__(self) -> None:
        self._lines: dict[str, WorkerLine] = {}
        self._units: dict[str, dict[int, Sequence[str]]] = {}  # worker → unit → its videos

    @property
    def lines(self) -> list[WorkerLine]:
        """The workers there are, in the order they were started."""
        return list(self._lines.values())

    def note(self, event: str, fields: Mapping[str, Any], now: str) -> bool:
        """Take an event in; return whether it was about workers."""
        name = str(fields.get("worker"))
        if event == "worker_started":
            host = str(fields.get("host") or socket.gethostname())
            self._lines[name] = WorkerLine(name, fields.get("pid"), host, now)
            self._units[name] = {}
        elif event == "unit_started" and name in self._lines:
            self._units[name][fields["unit"]] = fields.get("videos", ())
            self._show(name, now)
        elif event in ("unit_finished", "unit_lost"):
            for worker, units in self._units.items():
                if units.pop(fields["unit"], None) is not None:
                    self._show(worker, now)
        elif event == "worker_ended":
            self._lines.pop(name, None)
            self._units.pop(name, None)
        else:
            return False
        return True

    def _show(self, worker: str, now: str) -> None:
        """The oldest of its units."""
        line = self._lines[worker]
        unit, videos = next(iter(self._units[worker].items()), (None, ()))
        if unit != line.unit:
            line.unit, line.since = unit, now
            line.videos, line.num_videos = tuple(videos[:MAX_VIDEOS]), len(videos)
