"""Joining a Ray cluster, or starting one on this machine, and saying what it has."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ConfigError

__all__ = ["describe_resources", "import_ray", "joined"]

CONNECT_SECONDS = 10.0
CLIENT_PORT = 10001  # of addresses that begin with ray:// and name no port
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
        _check_answers(address)
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


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes where nobody listens."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("ray://") and not host:
        host, port = port, str(CLIENT_PORT)
    if not (host and port.isascii() and port.isdigit()):
        raise ConfigError(
            f"executor.address: got {address!r}, expected auto, host:port or ray://host:port; null "
            "starts a cluster on this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"executor.address: {address}: nobody answers there ({error}); start a cluster with "
            "`ray start --head`, or set executor.address: null for one on this machine"
        ) from error


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
