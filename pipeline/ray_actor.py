"""The coordinator's end of an actor: one call is out at any time, which tells that it is alive."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from pipeline.crew import Worker
from pipeline.local_worker import Ready, Stop
from pipeline.ray_worker import Here, Place, RayWorker
from pipeline.work import Unit

__all__ = ["Actor"]


class Actor(Worker):
    """The coordinator's end of one actor; one call is out at any time."""

    def __init__(
        self, place: int, ray: Any, asked: dict[str, Any], setup: Any, coordinator: Place
    ) -> None:
        super().__init__(place)
        self.pid: int | None = None
        self.host = ""
        self._ray = ray
        self._asked_at = time.monotonic()
        actor = ray.remote(RayWorker).options(
            max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **asked
        )
        self._actor = actor.remote()
        self._call = self._actor.begin.remote(setup, coordinator)
        self._post: list[Unit | Stop] = []

    @property
    def whereabouts(self) -> dict[str, object]:
        """See `Worker`."""
        return {"pid": self.pid, "host": self.host}

    @property
    def is_placed(self) -> bool:
        """Whether the cluster had room for it, and it has started."""
        return self.pid is not None

    @property
    def waiting_seconds(self) -> float:
        """Since it was asked for, as long as it has not answered."""
        return 0.0 if self.is_placed else time.monotonic() - self._asked_at

    @property
    def silent_seconds(self) -> float:
        """Since it last spoke while it had something to do."""
        if not self.is_placed or self.is_idle:
            return 0.0
        return time.monotonic() - self._heard_at

    def excuse(self, seconds: float) -> None:
        """Nobody has listened to it for so long."""
        self._heard_at += seconds

    def ask(self) -> Any:
        """The call that is out; if none is, a new one with what there is to tell."""
        if self._call is None:
            self._call = self._actor.ask.remote(self._post.pop(0) if self._post else None)
        return self._call

    def hear(self, said: Here | list[object]) -> list[object]:
        """The messages in the answer to the call."""
        self._call = None
        messages: list[object] = [said] if isinstance(said, Here) else said
        for message in messages:
            if isinstance(message, Here):
                self.pid, self.host = message.pid, message.host
            self.was_ready = self.was_ready or isinstance(message, Ready)
        if messages:
            self._heard_at = time.monotonic()
        return messages

    def end(self) -> None:
        """See `Worker`."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)

    def _send(self, message: Unit | Stop) -> None:
        self._post.append(message)
