"""Joining a Ray cluster: addresses that do not answer, signals, what is said of resources."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import ray_cluster
from pipeline.errors import ConfigError
from pipeline.ray_cluster import describe_resources, import_ray, joined


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


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:6379/", "ray://"])
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(FakeRay(), monkeypatch)
    with (
        pytest.raises(ConfigError, match="expected auto, host:port or ray://host:port"),
        joined(address),
    ):
        pass
    assert fake.calls == []


def test_where_nobody_listens_ray_is_not_even_asked(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use(FakeRay(), monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match="nobody answers there"), joined(f"127.0.0.1:{port}"):
        pass
    assert fake.calls == []


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
