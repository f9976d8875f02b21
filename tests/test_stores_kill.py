"""SIGKILL at random moments, for the whole run or only for its coordinator."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
from fault_harness import (
    Kind,
    check_listing,
    check_values,
    every_compression,
    every_kind,
    number_of,
    rows_of,
    temps,
)
from store_suite import fast_folder, make_key

from stores import ShardWriter

STAGE = "objects"
WORKERS = 2
OPEN_SHARDS = WORKERS + 1  # of the workers, and of the thread beside them
ROWS_PER_SHARD = 2


# ---- the run that is killed


def run(kind: Kind, root: Path, say: Callable[[str, list[int]], None]) -> None:
    """Make the missing rows with processes and a thread; say what is handed out and committed."""
    with kind.open(root) as store:
        made = kind.generation(store, STAGE)
        missing = (number for number in itertools.count() if made.missing([make_key(number)]))
        taking = threading.Lock()

        def take() -> list[int]:
            with taking:
                numbers = [next(missing) for _ in range(ROWS_PER_SHARD)]
                say("out", numbers)
                return numbers

        def append() -> None:
            while True:
                numbers = take()
                made.append(rows_of(STAGE, numbers))
                say("done", numbers)

        workers: dict[Connection, list[int]] = {}
        for _ in range(WORKERS):
            workers[start_worker(made.shard_writer(), list(workers))] = []
        threading.Thread(target=append, daemon=True).start()
        for worker in workers:
            workers[worker] = take()
            worker.send((made.reserve_shards(1), workers[worker]))
        while True:
            for worker in wait(list(workers)):
                assert isinstance(worker, Connection)
                made.commit([worker.recv()])
                say("done", workers[worker])
                workers[worker] = take()
                worker.send((made.reserve_shards(1), workers[worker]))


def start_worker(writer: ShardWriter, others: list[Connection]) -> Connection:
    """Start a process that writes the shards it is sent and answers with receipts."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    fork.Process(target=work, args=(writer, there, [here, *others])).start()
    there.close()
    return here


def work(writer: ShardWriter, coordinator: Connection, inherited: list[Connection]) -> None:
    for connection in inherited:  # else nobody would notice that the coordinator is gone
        connection.close()
    try:
        while True:
            shard, numbers = coordinator.recv()
            coordinator.send(writer.write_shard(shard, rows_of(STAGE, numbers)))
    except (EOFError, OSError):
        os._exit(0)  # the coordinator is gone, or the next one swept our temporary file


# ---- killing it


class Killed:
    """Starts the run in a process group of its own, kills it, and keeps what it said.

    Args:
        alone: kill only the coordinator; its workers go on until they notice.
    """

    def __init__(self, kind: Kind, root: Path, choose: random.Random, *, alone: bool) -> None:
        reading, writing = os.pipe()
        self._words = open(reading)  # noqa: SIM115
        child = os.fork()
        if not child:
            try:
                run(kind, root, lambda *words: os.write(writing, f"{json.dumps(words)}\n".encode()))
            finally:
                os._exit(1)
        os.setpgid(child, child)
        self._group = child
        os.close(writing)
        self._lines = [self._words.readline() for _ in range(choose.randint(0, 20))]
        time.sleep(choose.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        if not alone:
            self.end()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def end(self) -> None:
        """Kill what is left of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)

    def numbers(self) -> tuple[set[int], set[int]]:
        """Wait until the whole group is gone; return the rows handed out, and those committed."""
        found: dict[str, set[int]] = {"out": set(), "done": set()}
        with self._words:
            for line in (*self._lines, *self._words):
                word, numbers = json.loads(line)
                found[word].update(numbers)
        return found["out"], found["done"]


def kill_often(kind: Kind, kills: int, seed: int) -> tuple[int, int]:
    """Kill run after run on one store; return how many rows were made, and how many sent anew."""
    choose = random.Random(seed)
    done: set[int] = set()
    again = 0
    with fast_folder() as folder:
        root = folder / "store"
        for kill in range(kills):
            alone = choose.random() < 0.5
            run = Killed(kind, root, choose, alone=alone)
            try:
                if alone:
                    check_killed(kind, root, done)
                    run.end()
                handed_out, committed = run.numbers()
                done |= committed
                there = check_killed(kind, root, done)
                assert temps(root) == []
                assert there <= done | handed_out
                assert len(handed_out - there) <= OPEN_SHARDS * ROWS_PER_SHARD
                again += len(handed_out - there)
                done = there
            except BaseException as error:
                error.add_note(f"after kill {kill} of seed {seed}")
                raise
        with kind.open(root) as store:
            kind.generation(store, STAGE).append(rows_of(STAGE, set(range(len(done))) - done))
        assert check_killed(kind, root, done) == done | set(range(len(done)))
    return len(done), again


def check_killed(kind: Kind, root: Path, done: set[int]) -> set[int]:
    """Assert that a store holds rows that were done, and nothing wrong; return which it holds."""
    with kind.open(root) as store:
        made = kind.generation(store, STAGE)
        there = set(map(number_of, made.keys()))
        assert done <= there
        check_values(made, sorted(there))
        if there:  # else the generation may be a new one
            check_listing(made)
        assert made.verify() == []
    return there


@every_kind
def test_twenty_kills_lose_nothing(kind: Kind, small_process: Any) -> None:
    rows, _ = small_process(kill_often, kind, 20, 1)
    assert rows > 20 * ROWS_PER_SHARD


@pytest.mark.slow
@every_compression
def test_two_hundred_kills_lose_nothing(kind: Kind, small_process: Any) -> None:
    made = [small_process(kill_often, kind, 20, seed) for seed in range(2, 12)]
    assert min(rows for rows, _ in made) > 20 * ROWS_PER_SHARD
    assert sum(again for _, again in made) > 0
