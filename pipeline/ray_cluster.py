"""Joining a Ray cluster, or starting one on this machine, and saying what it has."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.config_ray import host_and_port
from pipeline.errors import ConfigError

__all__ = ["check_answers", "describe_resources", "import_ray", "joined"]

CONNECT_SECONDS = 1.5  # machines of a cluster are near; a plan has no longer
PROCESSES = Path("/proc")
ADVICE = (
    "start a cluster with `ray start --head`, or set executor.address: null for one on this machine"
)
# What workers say is small; by default a local cluster would set aside a third of the memory.
OBJECT_STORE_NBYTES = 128 * 2**20
# Ray reads it when it is first imported.
ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without a GPU keep what they see
    "RAY_USAGE_STATS_ENABLED": "0",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def import_ray() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(
            f"executor.name: got ray, which cannot be loaded ({error}); run pip install 'ray>=2.40'"
        ) from error


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Be part of a cluster; one that this process has joined before is taken as it is.

    Args:
        address: "auto" or host:port of a cluster that this machine belongs to, ray://host:port of
            any other; None starts one that ends with the context.

    Raises:
        ConfigError: Ray is not installed, or nothing that fits answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    if address is not None:
        check_answers(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_NBYTES}
    try:
        with _signals_kept():
            ray.init(address or "local", **options)
    except (Exception, SystemExit) as error:
        ray.shutdown()
        if address is None:
            raise ConfigError(f"executor: no Ray cluster could be started: {error}") from error
        raise ConfigError(
            f"executor.address: {address}: {error}; all machines need the same versions of Ray and "
            "Python, and a cluster that asks for a token wants RAY_AUTH_MODE=token in the "
            "environment and ~/.ray/auth_token of its head"
        ) from error
    try:
        yield
    finally:
        with _signals_kept():
            ray.shutdown()


def describe_resources(resources: Mapping[str, float]) -> str:
    """{"CPU": 2, "GPU": 0.5, "memory": 2**30} → "2 CPU, 0.5 GPU, 1 GiB memory"; others left out."""
    parts = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    if resources.get("memory"):
        parts.append(f"{resources['memory'] / 2**30:.3g} GiB memory")
    return ", ".join(parts) or "nothing"


def check_answers(address: str) -> None:
    """Look whether a cluster listens, in a moment and without Ray, which tries for minutes.

    Args:
        address: of a cluster, or "auto" for one that this machine belongs to.

    Raises:
        ConfigError: nobody listens there, or no cluster runs here.
    """
    where = _running_here() if address == "auto" else address
    if where is None:
        return
    try:
        error = _refusal(*host_and_port(where))
    except ValueError:  # what Ray takes for auto is no address; it says why
        return
    if error is not None:
        named = address if where == address else f"{address}, which is {where}"
        raise ConfigError(
            f"executor.address: {named}: nobody answers there from this machine, "
            f"{socket.gethostname()} ({error}); {ADVICE}"
        ) from error


def _running_here() -> str | None:
    """The address that Ray takes for "auto", as it looks for it; None if it is sure to answer.

    Raises:
        ConfigError: there is none.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", "auto"):
        return named
    if not PROCESSES.exists() or any(map(_is_ray_node, PROCESSES.glob("[0-9]*/cmdline"))):
        return None
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    with suppress(OSError):
        return (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
    raise ConfigError(
        f"executor.address: auto: no Ray cluster runs on this machine, {socket.gethostname()}; "
        f"{ADVICE}"
    )


def _is_ray_node(command_line: Path) -> bool:
    with suppress(OSError):  # the process has ended, or is another user's
        program = command_line.read_bytes().partition(b"\0")[0]
        return b"raylet" in program.rpartition(b"/")[2]
    return False


def _refusal(host: str, port: int) -> Exception | None:
    """Why no connection can be made; None if one can."""
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((host, port), CONNECT_SECONDS).close()
        except (OSError, UnicodeError) as error:
            outcome.put(error)
        else:
            outcome.put(None)

    # Looking a name up has no time limit of its own.
    threading.Thread(target=connect, name="connect", daemon=True).start()
    try:
        return outcome.get(timeout=CONNECT_SECONDS)
    except Empty:
        return TimeoutError("timed out")


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts handlers of its own in place of ours, which end a run early but in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
