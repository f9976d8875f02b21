"""What the store benchmarks share: the rows, the stores they go to, the limits, taking turns."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stores import ArraySpec, Row, RowInfo, Store, open_store
from stores.registry import FORMATS

STAGE, KEY, OUTPUT = "bench", "0" * 64, "x"
PIECE_ROWS = 32  # rows per write of the limit: 4 to 32 MiB

# Runs once and returns the seconds that each of its rows took.
Task = Callable[[], float]
# (row, position in the batch)
Places = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        write_rounds, read_rounds, cold_rounds: how often everybody has a turn.
        read_sets: how often all files are written anew to be read for `read_rounds`.
        share: of the rows of each case.
        slow_rows: at most so many for what is far slower than the rest.
        scale_rows: of each stage of the store with very many rows.
        epoch_rows, epoch_cap_mib: of the store that is larger than a process may grow.
    """

    write_rounds: int = 9
    read_rounds: int = 4
    read_sets: int = 5
    cold_rounds: int = 11
    share: float = 1.0
    slow_rows: int = 200
    scale_rows: int = 90_000
    epoch_rows: int = 8_960
    epoch_cap_mib: int = 512


FULL = Effort()
QUICK = Effort(1, 1, 1, 1, 0.02, 4, 500, 320, 16)


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


CASES = (
    Case("objects", 2000, ("object", "channel"), (60, 1024)),
    Case("maps", 200, ("time", "y", "x", "channel"), (4, 8, 8, 2048)),
)


@dataclass(frozen=True)
class Variant:
    """One way to keep a store."""

    format: str
    compression: str

    @property
    def name(self) -> str:
        return self.format if self.compression == "none" else f"{self.format}_{self.compression}"

    def open(self, folder: Path, mode: str = "r", *, verify_every_read: bool = False) -> Store:
        """Open the store of this kind in `folder`."""
        path = folder / self.name
        return open_store(path, mode, self.format, verify_every_read=verify_every_read)

    def files(self, folder: Path) -> list[Path]:
        """Return all files of the store of this kind in `folder`."""
        return [path for path in (folder / self.name).rglob("*") if path.is_file()]


PLAIN = tuple(Variant(format, "none") for format in sorted(FORMATS))
VARIANTS = (*PLAIN, *(Variant(format, "zstd") for format in sorted(FORMATS)))


@dataclass(frozen=True)
class Material:
    """The rows of a case and the folder that all files made of them go to."""

    case: Case
    rows: Sequence[Row]
    folder: Path

    @property
    def row_nbytes(self) -> int:
        return self.case.spec.row_nbytes

    @property
    def raw_path(self) -> Path:
        """A file with nothing but the values of all rows."""
        return self.folder / "raw"

    def values(self, number: int) -> NDArray[np.float16]:
        """Return the values of a row."""
        return self.rows[number].arrays[OUTPUT]

    def rows_for(self, variant: Variant, effort: Effort) -> Sequence[Row]:
        """Return the rows to use: compression takes long enough with fewer."""
        few = variant.compression != "none"
        return self.rows[: max(1, len(self.rows) // 4)] if few else self.rows

    def check(self, batch: NDArray[np.float16], places: Places) -> None:
        """Raise unless `batch` holds the rows at `places`."""
        if not all(np.array_equal(batch[place], self.values(number)) for number, place in places):
            raise RuntimeError("got other values than were written")


def make_material(case: Case, effort: Effort, folder: Path) -> Material:
    """Return random rows, each about half zeros like the output of a ReLU."""
    count = max(16, round(case.rows * effort.share))
    random = np.random.default_rng(0)
    values = random.standard_normal((count, *case.shape), np.float32).astype(np.float16)
    np.maximum(values, 0, out=values)
    rows = [
        Row(f"{number:064x}", {OUTPUT: value}, RowInfo(f"clip_{number}", "video"))
        for number, value in enumerate(values)
    ]
    return Material(case, rows, folder)


def bytes_of(array: NDArray[np.float16]) -> memoryview:
    """Return an array as bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def write_raw(material: Material) -> float:
    """Write all rows to one file in large pieces, with one fsync; return the seconds it took."""
    material.raw_path.unlink(missing_ok=True)
    os.sync()  # nobody pays for what others left behind
    views = [bytes_of(row.arrays[OUTPUT]) for row in material.rows]
    start = time.perf_counter()
    with open(material.raw_path, "wb", buffering=0) as file:
        for first in range(0, len(views), PIECE_ROWS):
            os.writev(file.fileno(), views[first : first + PIECE_ROWS])
        os.fsync(file.fileno())
    return time.perf_counter() - start


def write_store(material: Material, variant: Variant, rows: Sequence[Row]) -> float:
    """Append `rows` to a new store with all syncs and commits; return the seconds it took."""
    shutil.rmtree(material.folder / variant.name, ignore_errors=True)
    os.sync()
    with variant.open(material.folder, "a") as store:
        specs = {OUTPUT: material.case.spec}
        made = store.generation(STAGE, KEY, specs, compression=variant.compression)
        start = time.perf_counter()
        made.append(rows)
        return time.perf_counter() - start


def take_turns(rounds: int, tasks: Mapping[str, Task]) -> dict[str, list[float]]:
    """Return what each task gave in each round, after one round to warm up.

    Every other round goes backwards, so that nobody always comes after the same other one.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            taken = tasks[name]()
            if turn:
                times[name].append(taken)
    return times


def median_ratio(limits: Sequence[float], taken: Sequence[float]) -> float:
    """Return how fast something is beside its limit, where both took turns."""
    return statistics.median(limit / ours for limit, ours in zip(limits, taken, strict=True))
