"""Joining a Ray cluster: addresses that do not answer, signals, what is said of resources."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import ray_cluster
from pipeline.errors import ConfigError
from pipeline.ray_cluster import check_answers, describe_resources, import_ray, joined


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^executor\.name: .* run pip install 'ray"):
        import_ray()


class FakeRay:
    """As much of the library as joining asks for."""

    def __init__(self, *, initialized: bool = False, fails: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.options: dict[str, object] = {}
        self._initialized = initialized
        self._fails = fails

    def is_initialized(self) -> bool:
        return self._initialized

    def init(self, address: str, **options: object) -> None:
        self.calls.append(f"init {address}")
        self.options = options
        self._take_signals()
        if self._fails is not None:
            raise self._fails

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self._take_signals()

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def listening() -> Iterator[int]:
    """A port at which somebody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def use(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: fake)
    return fake


def test_where_nobody_listens_ray_is_not_even_asked(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use(FakeRay(), monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match="nobody answers there"), joined(f"127.0.0.1:{port}"):
        pass
    assert fake.calls == []


def test_looking_up_a_name_may_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def never(*arguments: object) -> None:
        over.wait(60)
        raise OSError

    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(socket, "create_connection", never)
    try:
        with pytest.raises(ConfigError, match=rf"{socket.gethostname()} \(timed out\); start a"):
            check_answers("head:6379")
    finally:
        over.set()


def test_a_name_that_can_be_none_is_told() -> None:
    with pytest.raises(ConfigError, match="nobody answers there"):
        check_answers(f"{'a' * 70}:6379")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one process, a shell whose user likes raylets; returns its folder."""
    (tmp_path / "proc" / "17").mkdir(parents=True)
    (tmp_path / "proc" / "18").mkdir()  # which has just ended
    (tmp_path / "proc" / "17" / "cmdline").write_bytes(b"/bin/sh\0/opt/raylet\0")
    monkeypatch.setattr(ray_cluster, "PROCESSES", tmp_path / "proc")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def test_auto_wants_a_cluster_that_runs_here(machine: Path) -> None:
    here = f"auto: no Ray cluster runs on this machine, {socket.gethostname()}; start a cluster"
    with pytest.raises(ConfigError, match=here):
        check_answers("auto")
    (machine / "proc" / "17" / "cmdline").write_bytes(b"/opt/ray/raylet\0--gcs-address=a:1\0")
    check_answers("auto")


def test_auto_on_a_machine_whose_processes_do_not_show(machine: Path) -> None:
    shutil.rmtree(machine / "proc")
    check_answers("auto")  # Ray has other ways to look


def test_auto_is_what_was_started_last(machine: Path, listening: int) -> None:
    (machine / "ray").mkdir()
    (machine / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{listening}\n")
    check_answers("auto")
    (machine / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"auto, which is 127\.0\.0\.1:1: nobody answers there"):
        check_answers("auto")


def test_auto_is_what_the_environment_says(
    machine: Path, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening}")
    check_answers("auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"auto, which is ray://127\.0\.0\.1:1: nobody answers"):
        check_answers("auto")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # no address; Ray knows what to make of it
    check_answers("auto")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match="no Ray cluster runs on this machine"):
        check_answers("auto")


def test_a_local_cluster_ends_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(FakeRay(), monkeypatch)
    with joined(None):
        assert fake.calls == ["init local"]  # not what RAY_ADDRESS in the environment says
    assert fake.calls == ["init local", "shutdown"]
    assert fake.options["include_dashboard"] is False


def test_a_cluster_that_is_there_gets_no_options_of_a_new_one(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use(FakeRay(), monkeypatch)
    with joined(f"127.0.0.1:{listening}"):
        pass
    assert fake.calls == [f"init 127.0.0.1:{listening}", "shutdown"]
    assert set(fake.options) == {"logging_level", "log_to_driver"}


def test_a_cluster_joined_before_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(FakeRay(initialized=True), monkeypatch)
    with joined(None):
        pass
    assert fake.calls == []


@pytest.mark.parametrize("error", [RuntimeError("version mismatch"), SystemExit("no GCS")])
def test_what_ray_says_against_it_is_told(
    error: BaseException, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use(FakeRay(fails=error), monkeypatch)
    address = f"127.0.0.1:{listening}"
    message = rf"executor\.address: {address}: {error}"
    with pytest.raises(ConfigError, match=message), joined(address):
        pass
    assert fake.calls[-1] == "shutdown"


def test_a_cluster_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeRay(fails=OSError("no room in /dev/shm")), monkeypatch)
    message = r"^executor: no Ray cluster could be started: no room in /dev/shm$"
    with pytest.raises(ConfigError, match=message), joined(None):
        pass


def test_our_handlers_of_signals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeRay(), monkeypatch)

    def ours(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with joined(None):
            assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_may_join_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(FakeRay(), monkeypatch)

    def join() -> None:
        with joined(None):
            pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(join).result()  # only the main thread may set handlers
    assert fake.calls == ["init local", "shutdown"]


def test_resources_are_said_in_words() -> None:
    assert describe_resources({"CPU": 2.0, "GPU": 0.5, "memory": 3 * 2**29}) == (
        "2 CPU, 0.5 GPU, 1.5 GiB memory"
    )
    assert describe_resources({"CPU": 4.0, "GPU": 0.0, "node:10.0.0.1": 1.0}) == "4 CPU"
    assert describe_resources({}) == "nothing"
