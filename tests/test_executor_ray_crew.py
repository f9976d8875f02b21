"""The coordinator of actors, on a cluster that is made up: what it asks for, tells and gives up."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import executor_ray
from pipeline.config_ray import RayExecutorConfig
from pipeline.errors import ConfigError
from pipeline.executor_ray import RayWorkers
from pipeline.journal import Journal
from pipeline.local_worker import Broken, Ready, Stop
from pipeline.ray_worker import Here, Lacking
from pipeline.work import Finished, Progress, Unit

HERE = Here(1, "node-a", "")


class RayError(Exception):
    """Of the made up library."""


class FakeActor:
    """Answers calls from a script: lists of messages, errors, or None while nothing comes back.

    The last answer is given again and again. What is said of a unit is said of the oldest one that
    it was given and has not finished.
    """

    def __init__(self, script: Sequence[Any]) -> None:
        self._script = list(script)
        self._units: list[int] = []
        self.told: list[Any] = []
        self.begin = SimpleNamespace(remote=lambda setup, place: self._call())
        self.ask = SimpleNamespace(remote=self._ask)

    def _ask(self, message: Any) -> Any:
        self.told.append(message)
        self._units += [message.number] if isinstance(message, Unit) else []
        return self._call()

    def _call(self) -> Any:
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return Call([self._named(said) for said in answer] if isinstance(answer, list) else answer)

    def _named(self, said: Any) -> Any:
        if isinstance(said, Finished):
            return Finished(self._units.pop(0))
        return replace(said, unit=self._units[0]) if isinstance(said, Progress) else said


class Late:
    """An answer that comes when it has been waited for so many times."""

    def __init__(self, times: int, answer: Any) -> None:
        self.times = times
        self.answer = answer


class Call:
    """A reference to what a call gives."""

    def __init__(self, answer: Any) -> None:
        self._late = answer if isinstance(answer, Late) else Late(0, answer)

    @property
    def answer(self) -> Any:
        """None as long as nothing has come."""
        self._late.times -= 1
        return None if self._late.times >= 0 else self._late.answer


class FakeRay:
    """As much of the library as the executor asks for. ``scripts``: of the actors, in turn."""

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self.exceptions = SimpleNamespace(RayError=RayError)
        self._scripts = list(scripts)
        self.actors: list[FakeActor] = []
        self.options: list[dict[str, Any]] = []
        self.killed: list[FakeActor] = []

    def put(self, pickled: bytes) -> bytes:
        self.setup = pickle.loads(pickled)
        return pickled

    def remote(self, cls: type) -> Any:
        def options(**options: Any) -> Any:
            self.options.append(options)
            return SimpleNamespace(remote=self._start)

        return SimpleNamespace(options=options)

    def _start(self) -> FakeActor:
        self.actors.append(FakeActor(self._scripts.pop(0)))
        return self.actors[-1]

    def wait(self, calls: list[Call], **options: Any) -> tuple[list[Call], list[Call]]:
        threading.Event().wait(0.002)  # an answer takes its time
        return [call for call in calls if call.answer is not None], []

    def get(self, call: Call) -> Any:
        answer = call.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: FakeActor) -> None:
        self.killed.append(actor)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}


class FakeQueue:
    """Units without videos; notes what becomes of them."""

    def __init__(self, units: int) -> None:
        self._waiting = [Unit(number, (), {}) for number in range(1, units + 1)]
        self._out: list[int] = []
        self.fates: list[tuple[Any, ...]] = []
        self.beside: list[int] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def open(self) -> bool:
        return bool(self._waiting or self._out)

    def take(self) -> Unit | None:
        if not self._waiting:
            return None
        unit = self._waiting.pop(0)
        self._out.append(unit.number)
        return unit

    def take_beside(self, units: Iterable[Unit]) -> Unit | None:
        self.beside += [unit.number for unit in units]
        return self.take()

    def note(self, unit: Unit, progress: Progress) -> None:
        self.fates.append(("noted", unit.number, progress.computed))

    def done(self, unit: Unit) -> None:
        self._out.remove(unit.number)
        self.fates.append(("done", unit.number))

    def lost(self, unit: Unit, reason: str) -> list[Progress]:
        self._out.remove(unit.number)
        self._waiting.insert(0, Unit(unit.number + 100, (), {}))
        self.fates.append(("lost", unit.number, reason))
        return []


@dataclass(frozen=True)
class FakeSetup:
    """What the coordinator reads and changes of a `Setup`."""

    device: str = "cpu"
    cores: int | None = None


SETUP: Any = FakeSetup()


class Run:
    """A run on a made up cluster. ``look``: called between two rounds."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ray: FakeRay, units: int = 1, **config: Any
    ) -> None:
        monkeypatch.setattr(executor_ray, "joined", lambda address: nullcontext())
        monkeypatch.setattr(executor_ray, "import_ray", lambda: ray)
        monkeypatch.setattr(executor_ray, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(executor_ray, "PAUSE_SECONDS", 0.0)
        self.queue = FakeQueue(units)
        self.stop = threading.Event()
        self.said: list[str] = []
        self._executor = RayWorkers(RayExecutorConfig(name="ray", **config), self.said.append)

    def all(self, look: Callable[[], None] = lambda: None, setup: Any = SETUP) -> list[Progress]:
        found = []
        queue: Any = self.queue
        for progress in self._executor.run(setup, queue, stop=self.stop, journal=Journal(None)):
            if progress is None:
                look()
            else:
                found.append(progress)
        return found


DONE = [[Progress("verb", computed=2)], [Progress("verb", computed=1), Finished(0)], []]


def test_units_are_given_to_who_is_ready_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [], [Ready()], *DONE])
    run = Run(monkeypatch, ray)
    assert [progress.computed for progress in run.all()] == [2, 1]
    assert run.queue.fates == [("noted", 1, 2), ("noted", 1, 1), ("done", 1)]
    # One call after the other: nothing to tell until it is ready, then the unit.
    assert ray.actors[0].told == [None, None, Unit(1, (), {}), None]
    assert ray.killed == ray.actors


def test_workers_ask_for_what_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], *DONE])
    Run(monkeypatch, ray, gpus_per_worker=0.25, cpus_per_worker=3, memory_gb=1.5).all()
    (options,) = ray.options
    assert options.pop("scheduling_strategy") == "SPREAD"
    assert options == {
        "num_cpus": 3,
        "num_gpus": 0.25,
        "memory": 3 * 2**29,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    assert (ray.setup.cores, ray.setup.device) == (3, "cpu")


def test_on_cuda_a_worker_has_the_gpu_that_ray_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], *DONE])
    Run(monkeypatch, ray).all(setup=replace(SETUP, device="cuda:3"))
    assert ray.options[0]["num_gpus"] == 1
    assert "memory" not in ray.options[0]
    assert ray.setup.device == "cuda"


def test_no_more_workers_are_started_than_units_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], *DONE], [HERE, [Ready()], *DONE])
    run = Run(monkeypatch, ray, units=2, workers=5)
    run.all()
    assert len(ray.actors) == 2
    assert {fate for fate in run.queue.fates if fate[0] == "done"} == {("done", 1), ("done", 2)}


def test_an_actor_that_dies_costs_what_is_left_of_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    died = RayError(
        "The actor died unexpectedly before finishing this task.\n\tpid: 3\nThe actor is dead "
        "because its worker process has died. Some common causes include: (1) many"
    )
    first = [HERE, [Ready()], [Progress("verb", computed=2)], died]
    ray = FakeRay(first, [HERE, [Ready()], *DONE])
    run = Run(monkeypatch, ray)
    assert [progress.computed for progress in run.all()] == [2, 2, 1]
    reason = "The actor is dead because its worker process has died."
    assert ("lost", 1, reason) in run.queue.fates
    assert run.queue.fates[-1] == ("done", 101)
    assert ray.killed == ray.actors


def test_an_actor_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], None], [HERE, [Ready()], *DONE])
    run = Run(monkeypatch, ray, worker_stall_seconds=0.05)
    run.all(look=lambda: threading.Event().wait(0.01))
    assert ("lost", 1, "no sign of life for 0.05 s") in run.queue.fates
    assert ray.killed[0] is ray.actors[0]


def test_an_actor_that_answers_but_does_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], []], [HERE, [Ready()], *DONE])
    run = Run(monkeypatch, ray, worker_stall_seconds=0.05)
    run.all(look=lambda: threading.Event().wait(0.01))
    assert ("lost", 1, "no sign of life for 0.05 s") in run.queue.fates


def test_what_is_said_while_the_coordinator_is_away_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A commit waits for storage: the call before brings nothing, the one after it does."""
    said = [Progress("verb", computed=1)]
    ray = FakeRay([HERE, [Ready()], [], said, [], said, [], [Finished(0)], []])
    run = Run(monkeypatch, ray, worker_stall_seconds=0.5)
    executor = RayWorkers(RayExecutorConfig(name="ray", worker_stall_seconds=0.5), print)
    queue: Any = run.queue
    for progress in executor.run(SETUP, queue, stop=run.stop, journal=Journal(None)):
        if progress is not None:
            threading.Event().wait(0.7)
    assert [fate[0] for fate in run.queue.fates] == ["noted", "noted", "done"]


def test_waiting_for_a_unit_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [HERE, [Ready()], *([[Progress("verb", computed=1)]] * 15), [Finished(0)], []]
    ray = FakeRay(slow, [HERE, [Ready()], [Finished(0)], []])
    run = Run(monkeypatch, ray, units=2, workers=2, worker_stall_seconds=0.05)
    killed = []

    def look() -> None:
        threading.Event().wait(0.01)
        killed.extend(ray.killed)

    run.all(look)
    assert [fate[0] for fate in run.queue.fates if fate[0] != "noted"] == ["done", "done"]
    assert killed == []


def test_waiting_for_room_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([Late(30, HERE), [Ready()], *DONE])
    run = Run(monkeypatch, ray, worker_stall_seconds=0.05)
    run.all(look=lambda: threading.Event().wait(0.01))
    assert len(ray.actors) == 1


def test_who_dies_without_a_unit_is_not_replaced_when_none_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = [HERE, [Ready()], *([[Progress("verb", computed=1)]] * 9), [Finished(0)], []]
    ray = FakeRay(slow, [HERE, [Ready()], [Finished(0)], [], RayError("gone")])
    run = Run(monkeypatch, ray, units=2, workers=2)
    run.all()
    assert len(ray.actors) == 2
    assert [fate[0] for fate in run.queue.fates if fate[0] != "noted"] == ["done", "done"]


def test_actors_that_cannot_begin_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayError("ray::RayWorker.begin()\n  File x\nModuleNotFoundError: No module 'pipeline'")
    run = Run(monkeypatch, FakeRay(*[[error]] * 3), units=5)
    message = "3 workers in turn ended before they were ready .ModuleNotFoundError: No module"
    with pytest.raises(ConfigError, match=message):
        run.all()
    assert not any(fate[0] == "lost" for fate in run.queue.fates)


def test_only_false_starts_in_turn_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    bad: Sequence[Any] = [RayError("no disk")]
    good = [HERE, [Ready()], RayError("died")]
    ray = FakeRay(bad, bad, good, bad, bad, [HERE, [Ready()], *DONE])
    run = Run(monkeypatch, ray)
    run.all()
    assert [fate[0] for fate in run.queue.fates if fate[0] != "noted"] == ["lost", "done"]


def test_actors_that_cannot_begin_do_not_end_those_that_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = [HERE, [Ready()], *([[Progress("verb", computed=1)]] * 9), [Finished(0)], *DONE]
    ray = FakeRay(works, *[[RayError("no disk")]] * 20)
    run = Run(monkeypatch, ray, units=2, workers=2)
    run.all()
    assert len(ray.actors) > 3
    assert [fate for fate in run.queue.fates if fate[0] == "done"] == [("done", 1), ("done", 2)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("weights.pt: got others"), "^host node-a: weights.pt: got others$"),
        (OSError(28, "No space left"), "No space left"),
    ],
)
def test_what_no_unit_can_be_done_for_ends_the_run(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay([HERE, [Ready()], [Broken(error)]])
    with pytest.raises(type(error), match=message):
        Run(monkeypatch, ray).all()
    assert ray.killed == ray.actors


def test_a_video_that_only_a_worker_lacks_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    ray = FakeRay([HERE, [Ready()], [Lacking(tmp_path / "a.mp4")]])
    with pytest.raises(ConfigError, match=r"a\.mp4: got a video that host node-a does not have"):
        Run(monkeypatch, ray).all()


def test_a_video_that_is_gone_everywhere_is_the_units_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay([HERE, [Ready()], [Lacking(tmp_path / "a.mp4"), Finished(0)], []])
    run = Run(monkeypatch, ray)
    run.all()
    assert run.queue.fates == [("done", 1)]


def test_who_has_a_unit_gets_the_next_one_until_few_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = [Progress("verb", computed=1)]
    ray = FakeRay(
        [HERE, [Ready()], said, [Finished(0)], said, [Finished(0)], *[[Finished(0)], []] * 2]
    )
    run = Run(monkeypatch, ray, units=4)
    run.all()
    assert [fate[1] for fate in run.queue.fates if fate[0] == "done"] == [1, 2, 3, 4]
    assert [fate[1] for fate in run.queue.fates if fate[0] == "noted"] == [1, 2]
    # It never had three, and the last one was kept until it had nothing to do.
    assert run.queue.beside == [1, 2]
    told = [message.number for message in ray.actors[0].told if isinstance(message, Unit)]
    assert told == [1, 2, 3, 4]


def test_a_worker_that_dies_loses_both_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [HERE, [Ready()], [Progress("verb", computed=2)], RayError("died")]
    ends = [[Finished(0)], []] * 3
    ray = FakeRay(first, [HERE, [Ready()], [], *ends])
    run = Run(monkeypatch, ray, units=3)
    run.all()
    lost = [fate[1] for fate in run.queue.fates if fate[0] == "lost"]
    assert lost == [2, 1]  # so that the first of them is the first again
    told = [message.number for message in ray.actors[1].told if isinstance(message, Unit)]
    assert told == [101, 102, 3]


def test_stop_reaches_who_works_and_nobody_else_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = [HERE, [Ready()], [Progress("verb", computed=1)], [], [Finished(0)], []]
    ray = FakeRay(works, [None])
    run = Run(monkeypatch, ray, units=3, workers=2)

    def look() -> None:
        if run.queue.fates:
            run.stop.set()

    run.all(look)
    assert run.queue.fates == [("noted", 1, 1), ("done", 1)]
    assert ray.actors[0].told.count(Stop()) == 1
    assert ray.killed == ray.actors


class Clock:
    """The time of day, with jumps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monotonic = time.monotonic
        self.jumped_seconds = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.jumped_seconds)


@dataclass
class Looks:
    """Between rounds: at some of them time goes on; at the last the run is stopped."""

    run: Run
    clock: Clock
    jumps: Mapping[int, float]  # round → seconds
    said: dict[int, int] = field(default_factory=dict)  # round → lines by then
    rounds: int = 0

    def __call__(self) -> None:
        self.said[self.rounds] = len(self.run.said)
        self.clock.jumped_seconds += self.jumps.get(self.rounds, 0.0)
        self.rounds += 1
        if self.rounds > max(self.jumps) + 2:
            self.run.stop.set()


def test_a_worker_that_merely_starts_does_not_wait_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay([None])
    run = Run(monkeypatch, ray, cpus_per_worker=1)  # one core is free
    looks = Looks(run, Clock(monkeypatch), {3: 29.0, 6: 100.0, 9: 480.0})
    run.all(looks)
    assert set(looks.said.values()) == {0, 1}
    assert min(look for look, lines in looks.said.items() if lines) > 9
    assert run.said[0].startswith("1 of 1 workers wait for room in the Ray cluster: each asks for")


def test_a_worker_that_takes_anothers_place_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([HERE, [Ready()], [Progress("verb", computed=2)], RayError("died")], [None])
    run = Run(monkeypatch, ray, cpus_per_worker=2)
    looks = Looks(run, Clock(monkeypatch), {0: 100.0, 8: 29.0, 11: 2.0})
    run.all(looks)
    assert len(ray.actors) == 2
    assert set(looks.said.values()) == {0, 1}
    assert min(look for look, lines in looks.said.items() if lines) > 11


def test_only_those_that_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    works = [HERE, [Ready()], [Progress("verb", computed=1)], [], [], [], [], [], [Finished(0)], []]
    ray = FakeRay(works, [None], [None])
    run = Run(monkeypatch, ray, units=3, workers=3, cpus_per_worker=2)
    run.all(Looks(run, Clock(monkeypatch), {1: 31.0}))
    assert [line.partition(" wait")[0] for line in run.said] == ["2 of 3 workers"]


def test_waiting_for_room_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_ray, "NO_ROOM_SECONDS", 0.0)
    ray = FakeRay([None])
    run = Run(monkeypatch, ray, cpus_per_worker=64, gpus_per_worker=0.5)
    rounds = []

    def look() -> None:
        rounds.append(1)
        if len(rounds) == 5:
            run.stop.set()

    run.all(look)
    assert run.said == [
        "1 of 1 workers wait for room in the Ray cluster: each asks for 64 CPU, 0.5 GPU; the "
        "cluster has 8 CPU, of which 1 CPU is free"
    ]
