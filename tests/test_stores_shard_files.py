"""Open shard files across forks."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_key,
    make_rows,
)

from stores import open_store
from stores.registry import FORMATS


@pytest.fixture(params=sorted(FORMATS))
def reader(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield a generation of two shards that was read from already."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            made = store.generation(STAGE, make_key(1000), SPECS, None, TEN_ROWS_MIB)
            made.append(make_rows(*range(12)))
        with open_store(folder / "store") as store:
            reader = store.generation(STAGE, make_key(1000))
            assert_rows(reader, [0, 11])
            yield reader


def in_child(task: Callable[[], None]) -> int:
    """Run `task` in a forked child; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            task()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_reads_though_a_thread_held_the_lock_when_it_was_forked(reader: Any) -> None:
    with reader._files._lock:
        assert in_child(lambda: assert_rows(reader, [11, 3, 0])) == 0


def test_a_child_reads_through_files_of_its_own(reader: Any) -> None:
    held = set(reader._files._open.values())

    def read() -> None:
        assert_rows(reader, [11, 3, 0])
        opened = reader._files._open.values()
        assert opened
        assert not held & set(opened)

    assert in_child(read) == 0
    assert set(reader._files._open.values()) == held
    assert_rows(reader, [11, 3, 0])
