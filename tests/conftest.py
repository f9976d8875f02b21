"""What every test shares: one thread per process, seeded random numbers, the test data folder."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# Two threads per operation on a small machine cost more than they gain in tests this small.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, is_here, reason in (
        ("needs_cuda", torch.cuda.is_available, "no CUDA device here"),
        ("needs_slurm", _slurm_answers, "no Slurm cluster answers (sinfo)"),
    ):
        marked = [item for item in items if marker in item.keywords]
        if marked and not is_here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _slurm_answers() -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["sinfo"], capture_output=True, timeout=20).returncode == 0
    return False


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that forgets to seed still gives the same numbers each time."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real videos, frames and annotations; skips where it is not there."""
    folder = os.environ.get("SYMBIO_TEST_DATA")
    if not folder:
        pytest.skip("SYMBIO_TEST_DATA is not set: no real videos to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def small_process() -> Iterator[Callable[..., Any]]:
    """`small_process(function, *args)` runs it in a process that forks fast, without torch."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda *args, **kwargs: pool.submit(*args, **kwargs).result()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The contents of a store that the small experiment made in this process, as `run_fixtures`."""
    from run_fixtures import contents, run

    folder = tmp_path_factory.mktemp("in-process")
    assert run(folder).complete
    return contents(folder)
