"""Several processes on one store: one writes, the others wait or read, workers read alike."""

import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_arrays,
    make_key,
    make_rows,
)

from stores import GenerationInUseError, StoreLockedError, open_store
from stores.registry import FORMATS

KINDS = [(format, compression) for format in sorted(FORMATS) for compression in ("none", "zstd")]
NUMBERS = list(range(25))

AGENT = """
import sys
sys.path[:0] = {path!r}
from store_suite import SPECS, STAGE, TEN_ROWS_MIB, assert_rows, make_key, make_rows
from stores import StoreLockedError, open_store
_, root, mode, format, compression = sys.argv
print("started", flush=True)
for line in sys.stdin:
    verb, *numbers = line.split()
    numbers = [int(number) for number in numbers]
    if verb == "open":
        try:
            store = open_store(root, mode, format)
            made = store.generation(
                STAGE, make_key(1000), SPECS, None, TEN_ROWS_MIB, compression)
        except StoreLockedError:
            print("locked", flush=True)
            continue
    if verb == "append":
        made.append(make_rows(*numbers))
    if verb == "write":
        made.write_shard(made.reserve_shards(1), make_rows(*numbers))
    if verb == "read":
        assert_rows(made, list(range(len(made))))
    if verb == "close":
        store.close()
    print(len(made), flush=True)
"""


class Agent:
    """A process that opens a store and does what it is told."""

    def __init__(self, root: Path, mode: str, kind: tuple[str, str] = KINDS[0]) -> None:
        script = AGENT.format(path=[str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-c", script, str(root), mode, *kind]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.hear()

    def say(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        assert answer, "the process died"
        return answer

    def ask(self, *words: object) -> str:
        self.say(*words)
        return self.hear()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        with self.process:
            self.process.communicate()


@contextmanager
def agents(count: int, *arguments: Any) -> Iterator[list[Agent]]:
    started = [Agent(*arguments) for _ in range(count)]
    try:
        yield started
    finally:
        for agent in started:
            agent.end()


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "store"


def open_made(store: Any, kind: tuple[str, str] = KINDS[0]) -> Any:
    return store.generation(STAGE, make_key(1000), SPECS, None, TEN_ROWS_MIB, kind[1])


def fill_store(root: Path, kind: tuple[str, str] = KINDS[0]) -> None:
    with open_store(root, "a", kind[0]) as store:
        open_made(store, kind).append(make_rows(*NUMBERS))


# ---- writers


def test_a_second_run_is_refused_until_the_first_has_ended(root: Path) -> None:
    with agents(1, root, "a") as (first,):
        assert first.ask("open") == "0"
        first.ask("append", 0, 1)
        with pytest.raises(StoreLockedError, match=f"held by process {first.process.pid} on '"):
            open_store(root, "a")
        assert first.ask("append", 2) == "3"
        first.ask("close")
        with open_store(root, "a") as store:
            assert_rows(open_made(store), [0, 1, 2])


def test_of_runs_that_start_together_one_gets_the_store(root: Path) -> None:
    with agents(3, root, "a") as together:
        for agent in together:
            agent.say("open")
        answers = [agent.hear() for agent in together]
        assert sorted(answers) == ["0", "locked", "locked"]
        winner = together[answers.index("0")]
        assert winner.ask("append", 0, 1) == "2"


def test_a_killed_holder_does_not_block(root: Path) -> None:
    with agents(1, root, "a") as (first,):
        first.ask("open")
        first.ask("append", 0)
        first.ask("write", 1, 2)
        first.end()
        with open_store(root, "a") as store:
            assert_rows(open_made(store), [0, 1, 2])


def test_a_stopped_holder_blocks(root: Path) -> None:
    """It may go on at any time."""
    with agents(1, root, "a") as (first,):
        first.ask("open")
        first.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreLockedError, match=f"held by process {first.process.pid} on"):
            open_store(root, "a")
        first.process.send_signal(signal.SIGCONT)
        assert first.ask("append", 0, 1) == "2"


def test_a_receipt_that_outlived_its_shard_is_refused(root: Path) -> None:
    """Its number may have been given to other rows since, as after the loss of the manifest."""
    with open_store(root, "a") as store:
        made = open_made(store)
        late = made.write_shard(made.reserve_shards(1), make_rows(0, 1))
    shutil.rmtree(root)
    with open_store(root, "a") as store:
        made = open_made(store)
        made.append(make_rows(2, 3))
        with pytest.raises(ValueError, match="got a receipt for another shard 0 than there is"):
            made.commit([late])
        assert made.missing([make_key(0), make_key(1)]) == [make_key(0), make_key(1)]
        assert_rows(made, [2, 3])


# ---- readers beside a writer


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_readers_see_what_there_was_when_they_first_looked(
    root: Path, kind: tuple[str, str]
) -> None:
    fill_store(root, kind)
    with agents(1, root, "r", kind) as (reader,), open_store(root, "a", kind[0]) as store:
        made = open_made(store, kind)
        count = len(NUMBERS)
        assert reader.ask("open") == str(count)
        for more in (1, 7, 12):
            reader.say("read")  # while this writes
            made.append(make_rows(*range(count, count + more)))
            assert reader.hear() == str(len(NUMBERS))
            count += more
        made.forget([make_key(0)])
        assert reader.ask("read") == str(len(NUMBERS))
        made.append(make_rows(0))
        assert reader.ask("open") == str(count)
        assert reader.ask("read") == str(count)


def test_a_reader_never_meets_half_a_commit(root: Path) -> None:
    """It opens the store again and again while rows are added in batches of three shards."""
    fill_store(root)
    with agents(2, root, "r") as readers, open_store(root, "a") as store:
        made = open_made(store)
        seen: list[list[int]] = [[], []]
        for _ in range(12):
            for reader in readers:
                reader.say("open")
                reader.say("read")
            made.append(make_rows(*range(len(made), len(made) + 25)))
            for reader, counts in zip(readers, seen, strict=True):
                opened, read = reader.hear(), reader.hear()
                assert opened == read
                counts.append(int(read))
    for counts in seen:
        assert counts == sorted(counts)
        assert {count % 25 for count in counts} == {0}
        assert len(set(counts)) > 5


def test_what_is_read_is_not_removed(root: Path) -> None:
    fill_store(root)
    with agents(1, root, "r") as (reader,), open_store(root, "a") as store:
        assert reader.ask("open") == reader.ask("read") == "25"
        with pytest.raises(GenerationInUseError):
            store.remove(STAGE, make_key(1000))
        assert reader.ask("read") == "25"
        reader.end()
        assert store.remove(STAGE, make_key(1000)) > 0
        assert store.generations() == []


# ---- workers


class Rows:
    """A dataset over stores of all kinds: one row, as bytes, from each."""

    def __init__(self, readers: list[Any]) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(NUMBERS)

    def __getitem__(self, number: int) -> list[bytes]:
        return [
            array.tobytes()
            for reader in self.readers
            for array in reader.read([make_key(number)]).values()
        ]


def row_bytes(number: int) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in make_arrays(number).values()] * len(KINDS)


@pytest.fixture
def rows() -> Iterator[Rows]:
    """Yield a dataset whose stores were opened and read from already."""
    with fast_folder() as folder:
        for number, kind in enumerate(KINDS):
            fill_store(folder / str(number), kind)
        stores = [open_store(folder / str(number)) for number in range(len(KINDS))]
        rows = Rows([open_made(store, kind) for store, kind in zip(stores, KINDS, strict=True)])
        assert rows[3] == row_bytes(3)
        yield rows
        for store in stores:
            store.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers_read_the_same_bits(rows: Rows, method: str) -> None:
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        multiprocessing_context=method,
    )
    for _ in range(2):
        assert list(loader) == [row_bytes(number) for number in NUMBERS]
    assert rows[7] == row_bytes(7)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pool_workers_read_the_same_bits(rows: Rows, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(rows.__getitem__, NUMBERS) == [row_bytes(number) for number in NUMBERS]


def test_a_pickled_reader_reads_the_same_bits(rows: Rows) -> None:
    again = pickle.loads(pickle.dumps(rows))
    assert [again[number] for number in NUMBERS] == [row_bytes(number) for number in NUMBERS]
