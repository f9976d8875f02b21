"""How fast the store reads and writes, against the limit of the same machine at the same time.

    python benchmarks/bench_store.py

Reading asks for rows in random order. Its limit is bare `preadv` of the same bytes from one warm
file to the same places of the same array, in file order, which is the faster one. Writing appends
all rows with all syncs and commits. Its limit is the same bytes in one file, written in large
pieces, with one fsync. Store and limit take turns, and medians are compared, since other work on
the machine comes and goes.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import Figures
from numpy.typing import NDArray

from stores import ArraySpec, FeatureReader, Row, RowInfo, open_store

STAGE, KEY = "bench", "0" * 64
READ_ROUNDS, WRITE_ROUNDS = 9, 7
PIECE_ROWS = 32  # rows per write of the limit: 4 to 32 MiB


@dataclass(frozen=True)
class Case:
    """Rows of one size, in float16."""

    name: str
    rows: int
    dims: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def spec(self) -> ArraySpec:
        return ArraySpec(self.dims, self.shape, "float16")

    @property
    def nbytes(self) -> int:
        return self.rows * self.spec.row_nbytes


CASES = (
    Case("objects", 2000, ("object", "channel"), (60, 1024)),
    Case("maps", 200, ("time", "y", "x", "channel"), (4, 8, 8, 2048)),
)


def main() -> None:
    """Run all cases in a temporary folder and save the figures."""
    figures = Figures("store", ["numpy", "crc32c"])
    for case in CASES:
        folder = Path(tempfile.mkdtemp(prefix="bench_store_"))
        try:
            rows = make_rows(case)
            bench_writing(figures, case, rows, folder)
            bench_reading(figures, case, rows, folder)
        finally:
            shutil.rmtree(folder)
    print(f"saved {figures.save()}")


def make_rows(case: Case) -> list[Row]:
    """Return rows of random values, each about half zeros like the output of a ReLU."""
    random = np.random.default_rng(0)
    values = random.standard_normal((case.rows, *case.shape), np.float32).astype(np.float16)
    np.maximum(values, 0, out=values)
    return [
        Row(f"{number:064x}", {"x": value}, RowInfo(f"clip_{number}", "video"))
        for number, value in enumerate(values)
    ]


def bench_writing(figures: Figures, case: Case, rows: Sequence[Row], folder: Path) -> None:
    """Append everything with all commits; leave the last store in folder / "store"."""

    def write_store() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        os.sync()  # nobody pays for what the other left behind
        with open_store(folder / "store", "a") as store:
            made = store.generation(STAGE, KEY, {"x": case.spec})
            start = time.perf_counter()
            made.append(rows)
            times[0].append(time.perf_counter() - start)

    def write_file() -> None:
        (folder / "raw").unlink(missing_ok=True)
        os.sync()
        views = [row.arrays["x"].reshape(-1).view(np.uint8).data for row in rows]
        start = time.perf_counter()
        with open(folder / "raw", "wb", buffering=0) as file:
            for first in range(0, len(views), PIECE_ROWS):
                os.writev(file.fileno(), views[first : first + PIECE_ROWS])
            os.fsync(file.fileno())
        times[1].append(time.perf_counter() - start)

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(WRITE_ROUNDS):
        write_store()
        write_file()
    ours, limit = (statistics.median(taken) for taken in times)
    files = sum(len(names) for _, _, names in os.walk(folder / "store"))
    figures.add(f"{case.name}_write_speed", case.nbytes / ours / 1e6, "MB/s")
    figures.add(f"{case.name}_write_ratio", limit / ours, "of_write_and_fsync", (">=", 0.60))
    figures.add(f"{case.name}_files_per_row", files / case.rows, "files", ("<=", 0.10))


def bench_reading(figures: Figures, case: Case, rows: Sequence[Row], folder: Path) -> None:
    """Read all rows in random order, with checksums on first touch only and each time."""
    order = np.random.default_rng(1).permutation(case.rows).tolist()
    keys = [rows[number].key for number in order]
    batch = np.empty((case.rows, *case.shape), np.float16)
    limit = raw_reader(folder / "raw", order, batch)
    with (
        open_store(folder / "store") as once,
        open_store(folder / "store", verify_every_read=True) as always,
    ):
        first_touch = store_reader(once.generation(STAGE, KEY), keys, batch)
        every_read = store_reader(always.generation(STAGE, KEY), keys, batch)
        ours, checked, raw = take_turns(READ_ROUNDS, first_touch, every_read, limit)
    first_touch()
    if not all(np.array_equal(batch[p], rows[n].arrays["x"]) for p, n in enumerate(order)):
        raise RuntimeError("got other values than were written")
    figures.add(f"{case.name}_read_speed", case.rows / ours, "rows/s")
    figures.add(f"{case.name}_read_ratio", raw / ours, "of_preadv", (">=", 0.80))
    figures.add(f"{case.name}_read_checked_ratio", raw / checked, "of_preadv", (">=", 0.40))


def store_reader(
    reader: FeatureReader, keys: Sequence[str], batch: NDArray[np.float16]
) -> Callable[[], None]:
    """Return a function that reads `keys` into `batch`."""

    def read() -> None:
        reader.read(keys, out={"x": batch})

    return read


def raw_reader(path: Path, order: Sequence[int], batch: NDArray[np.float16]) -> Callable[[], None]:
    """Return a function that reads the same rows from a plain file with nothing around it."""
    size = batch[0].nbytes
    target = batch.reshape(-1).view(np.uint8).data
    places = sorted((number, position) for position, number in enumerate(order))

    def read() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        for number, position in places:
            row = target[position * size : (position + 1) * size]
            os.preadv(descriptor, (row,), number * size)
        os.close(descriptor)

    return read


def take_turns(rounds: int, *tasks: Callable[[], None]) -> list[float]:
    """Return the median seconds of each task, run in turns after one turn to warm up."""
    times: list[list[float]] = [[] for _ in tasks]
    for turn in range(rounds + 1):
        for task, taken in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()
