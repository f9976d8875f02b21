"""Work on a Ray cluster: actors do units, the coordinator alone commits.

Ray starts actors, finds room for them and tells when one is gone. Nothing is left to it that would
have to know what a unit is: an actor that ends is not restarted by Ray, its unit goes back to the
queue, and another actor takes its place, on whichever machine has room.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config_ray import RayExecutorConfig
from pipeline.crew import Crew
from pipeline.errors import ConfigError
from pipeline.journal import Journal
from pipeline.ray_actor import Actor
from pipeline.ray_cluster import describe_resources, import_ray, joined
from pipeline.ray_worker import Here, Lacking, Place
from pipeline.unit_queue import UnitQueue
from pipeline.work import Progress
from pipeline.workbench import Setup

__all__ = ["RayWorkers"]

LOOK_SECONDS = 1.0
NO_ROOM_SECONDS = 30.0  # until it is said that a worker waits for room in the cluster
# What is free may be spread over machines none of which has room; nobody takes so long to start.
NEVER_STARTS_SECONDS = 600.0
PAUSE_SECONDS = 5.0  # before a worker takes the place of one that ended before it was ready
MOST_REASON_CHARS = 300


class RayWorkers:
    """Actors of a Ray cluster.

    Args:
        config: which cluster, how many workers, and what each asks for.
        tell: is told what a person should know at once.
    """

    def __init__(self, config: RayExecutorConfig, tell: Callable[[str], None]) -> None:
        self.workers = config.workers
        self._config = config
        self._tell = tell

    def run(
        self, setup: Setup, queue: UnitQueue, *, stop: threading.Event, journal: Journal
    ) -> Generator[Progress | None, None, None]:
        """See `Executor`."""
        config = self._config
        on_cuda = setup.device.startswith("cuda")
        asked: dict[str, Any] = {
            "num_cpus": config.cpus_per_worker,
            "num_gpus": config.gpus(setup.device),
        }
        if config.memory_gb is not None:
            asked["memory"] = int(config.memory_gb * 2**30)
        # Ray chooses the GPU, and the worker sees no other.
        device = "cuda" if on_cuda else setup.device
        setup = replace(setup, cores=config.cpus_per_worker, device=device)
        with joined(config.address):
            size = min(self.workers, len(queue))
            crew = _Crew(setup, size, asked, config.worker_stall_seconds, journal, self._tell)
            with closing(crew):
                yield from crew.work(queue, stop)


class _Crew(Crew[Actor]):
    """The workers of a run, on a cluster."""

    def __init__(
        self,
        setup: Setup,
        size: int,
        asked: dict[str, Any],
        stall_seconds: float,
        journal: Journal,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(journal, size)
        self._ray = import_ray()
        self._asked = asked
        self._stall_seconds = stall_seconds
        self._tell = tell
        journal.event("cluster_joined", resources=self._ray.cluster_resources())
        self._setup = self._ray.put(pickle.dumps(setup))
        self._place = _place(journal)
        self._left_at = time.monotonic()
        self._has_told = False
        self._free_from = dict.fromkeys(range(size), 0.0)  # place → when it may be taken again

    def _fill(self, queue: UnitQueue) -> None:
        for place, free_from in self._free_from.items():
            free = place not in self._workers and time.monotonic() >= free_from
            if free and len(queue) > len(self._workers) - len(self._busy):
                self._workers[place] = Actor(
                    place, self._ray, self._asked, self._setup, self._place
                )

    def _listen(self, queue: UnitQueue) -> Iterator[Progress]:
        if not self._workers:  # a place is free in a moment
            time.sleep(LOOK_SECONDS)
            return
        for worker in self._workers.values():
            worker.excuse(time.monotonic() - self._left_at)
        by_call = {worker.ask(): worker for worker in self._workers.values()}
        self._ray.wait(list(by_call), timeout=LOOK_SECONDS)
        answered, _ = self._ray.wait(list(by_call), num_returns=len(by_call), timeout=0)
        messages, ends = [], {}
        for call in answered:
            worker = by_call[call]
            try:
                messages += [(worker, said) for said in worker.hear(self._ray.get(call))]
            except self._ray.exceptions.RayError as error:
                ends[worker] = _reason(error)
        for worker in self._workers.values():
            if worker not in ends and worker.silent_seconds > self._stall_seconds:
                ends[worker] = f"no sign of life for {self._stall_seconds:g} s"
        self._left_at = time.monotonic()  # commits may wait for storage, and nobody is heard then
        for worker, said in messages:
            yield from self._take(worker, said, queue)
        for worker, reason in ends.items():
            yield from self._give_up(worker, queue, reason)
        self._tell_of_no_room()

    def _take(self, worker: Actor, message: object, queue: UnitQueue) -> Iterator[Progress]:
        if isinstance(message, Lacking):
            _check_shared(message.path, worker.host)
        elif isinstance(message, Here):
            gpus = message.gpus
            self._journal.event(
                "worker_started", worker=worker.name, pid=message.pid, host=message.host, gpus=gpus
            )
        else:
            yield from super()._take(worker, message, queue)

    def _seen_here(self, error: Exception, worker: Actor) -> Exception:
        return _with_host(error, worker.host)

    def _false_start(self, worker: Actor, reason: str) -> None:
        self._free_from[worker.place] = time.monotonic() + PAUSE_SECONDS
        super()._false_start(worker, reason)

    def _cannot_begin(self, reason: str) -> Exception:
        return ConfigError(
            f"{self._false_starts} workers in turn ended before they were ready ({reason}); check "
            "that this version of symbio and of Ray is installed on every machine of the cluster, "
            "or run with --set executor.name=local to see why"
        )

    def _tell_of_no_room(self) -> None:
        """Once, when workers wait for long, and not for their own start."""
        waiting = [worker.waiting_seconds for worker in self._workers.values()]
        waiting = [seconds for seconds in waiting if seconds >= NO_ROOM_SECONDS]
        if self._has_told or not waiting:
            return
        asked = {"CPU": self._asked["num_cpus"], "GPU": self._asked["num_gpus"]}
        asked["memory"] = self._asked.get("memory", 0)
        free = self._ray.available_resources()
        has_room = all(free.get(name, 0) >= amount for name, amount in asked.items())
        if has_room and max(waiting) < NEVER_STARTS_SECONDS:
            return
        self._has_told = True
        text = (
            f"{len(waiting)} of {len(self._free_from)} workers wait for room in the Ray cluster: "
            f"each asks for {describe_resources(asked)}; the cluster has "
            f"{describe_resources(self._ray.cluster_resources())}, of which "
            f"{describe_resources(free)} is free"
        )
        self._tell(text)
        self._journal.event("workers_wait", message=text)


def _place(journal: Journal) -> Place:
    proof = journal.path if journal.path is not None and journal.path.exists() else None
    return Place(Path.cwd(), None if proof is None else proof.resolve())


def _check_shared(path: Path, host: str) -> None:
    """A worker does not find a video.

    Raises:
        ConfigError: it is here, so it is that machine's fault.
    """
    if path.exists():
        raise ConfigError(
            f"{path}: got a video that host {host} does not have, expected storage that all "
            "machines of the cluster share"
        )


def _with_host(error: Exception, host: str) -> Exception:
    if isinstance(error, ConfigError):
        return ConfigError(f"host {host}: {error}")
    error.add_note(f"on host {host}")
    return error


def _reason(error: Exception) -> str:
    """How an actor ended, in a line: what Ray says without its advice, or the error in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor ") and " dead " in line]
    text = (telling or lines[::-1] or [type(error).__name__])[0]
    return text.partition(" Some common causes")[0][:MOST_REASON_CHARS]
