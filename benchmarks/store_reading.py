"""Reading rows in random order: from memory, and from the disk with several threads."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from figures import Figures
from numpy.typing import NDArray
from store_cases import (
    KEY,
    OUTPUT,
    PLAIN,
    STAGE,
    VARIANTS,
    Effort,
    Material,
    Places,
    Task,
    Variant,
    bytes_of,
    median_ratio,
    take_turns,
    write_raw,
    write_store,
)
from store_peers import open_peers

from stores import FeatureReader

COLD_THREADS = 4
BATCH_ROWS = 32

Batches = Sequence[Sequence[int]]


def bench_warm_reading(figures: Figures, effort: Effort, material: Material) -> None:
    """Read all rows in random order: ours, with checksums once and always, and the peers.

    Peers read row by row in the order asked, as their users do. What is slow reads fewer rows;
    all are compared by the time that a row takes. Where in memory the page cache happens to keep
    a file makes up to a factor of two, for the limit as for everybody: so all files are written
    anew several times.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(effort.read_sets):
        _write_all(effort, material, backwards=bool(number % 2))
        with ExitStack() as stack:
            tasks = _warm_tasks(effort, material, stack)
            for name, taken in take_turns(effort.read_rounds, tasks).items():
                times[name] += taken
    case = material.case.name
    figures.add(f"preadv_{case}_read_speed", 1 / median(times["preadv"]), "rows/s")
    targets = {variant.name: (">=", 0.80) for variant in PLAIN}
    targets |= {f"{variant.name}_checked": (">=", 0.40) for variant in PLAIN}
    for name in list(times)[1:]:
        ratio = median_ratio(times["preadv"], times[name])
        figures.add(f"{name}_{case}_read_ratio", ratio, "of_preadv", targets.get(name))


def _write_all(effort: Effort, material: Material, *, backwards: bool) -> None:
    """Write the raw file and all stores, so that the page cache holds them."""
    for variant in (None, *VARIANTS)[:: -1 if backwards else 1]:
        if variant is None:
            write_raw(material)
        else:
            write_store(material, variant, material.rows_for(variant, effort))


def _warm_tasks(effort: Effort, material: Material, stack: ExitStack) -> dict[str, Task]:
    order = np.random.default_rng(1).permutation(len(material.rows)).tolist()
    places = [(number, position) for position, number in enumerate(order)]
    batch = np.empty((len(order), *material.case.shape), np.float16)
    tasks: dict[str, Task] = {"preadv": _raw_task(material, places, batch)}
    for variant in VARIANTS:
        for always in (False, True) if variant.compression == "none" else (False,):
            store = stack.enter_context(variant.open(material.folder, verify_every_read=always))
            count = len(material.rows_for(variant, effort))
            mine = [place for place in places if place[0] < count]
            name = f"{variant.name}_checked" if always else variant.name
            reader = store.generation(STAGE, KEY)
            tasks[name] = _store_task(material, reader, mine, batch[: len(mine)])
    for name, (rows, read) in open_peers(material, effort, stack).items():
        tasks[name] = _peer_task(material, places[:rows], batch, read)
    return tasks


def bench_cold_reading(figures: Figures, effort: Effort, material: Material) -> None:
    """Read all rows with four threads after the page cache was dropped.

    Random batches of 32 rows are dealt to the threads, as a data loader would; each is one read
    of the store. The limit reads the same rows of the same batches in file order from one file,
    one `preadv` each. The store is open, but has not touched its shard files: their ends are
    read and all checksums compared, too. A round counts only where the disk gave the bytes.
    """
    order = np.random.default_rng(2).permutation(len(material.rows)).tolist()
    batches = [order[first : first + BATCH_ROWS] for first in range(0, len(order), BATCH_ROWS)]
    with ThreadPoolExecutor(COLD_THREADS) as pool:
        tasks = {"preadv": _cold_task(pool, material, batches, None)}
        for variant in PLAIN:
            tasks[variant.name] = _cold_task(pool, material, batches, variant)
        times = take_turns(effort.cold_rounds, tasks)
    case = material.case.name
    if not all(np.isfinite(taken).all() for taken in times.values()):
        print(f"left out: {case}_cold_read_ratio, since the page cache could not be dropped")
        return
    speed = material.row_nbytes / median(times["preadv"]) / 1e6
    figures.add(f"preadv_{case}_cold_read_speed", speed, "MB/s")
    for variant in PLAIN:
        ratio = median_ratio(times["preadv"], times[variant.name])
        name = f"{variant.name}_{case}_cold_read_ratio"
        figures.add(name, ratio, "of_preadv", (">=", 0.80))


def _raw_task(material: Material, places: Places, batch: NDArray[np.float16]) -> Task:
    """Read from a plain file with nothing around it, in file order, which is faster."""
    size, target, in_order = material.row_nbytes, bytes_of(batch), sorted(places)

    def read() -> float:
        start = time.perf_counter()
        descriptor = os.open(material.raw_path, os.O_RDONLY)
        for number, position in in_order:
            row = target[position * size : (position + 1) * size]
            os.preadv(descriptor, (row,), number * size)
        os.close(descriptor)
        return (time.perf_counter() - start) / len(places)

    return read


def _store_task(
    material: Material, reader: FeatureReader, places: Places, batch: NDArray[np.float16]
) -> Task:
    keys = [material.rows[number].key for number, _ in places]
    reader.read(keys, out={OUTPUT: batch})
    material.check(batch, [(number, place) for place, (number, _) in enumerate(places)])

    def read() -> float:
        start = time.perf_counter()
        reader.read(keys, out={OUTPUT: batch})
        return (time.perf_counter() - start) / len(keys)

    return read


def _peer_task(
    material: Material,
    places: Places,
    batch: NDArray[np.float16],
    read_rows: Callable[[Places, NDArray[np.float16]], None],
) -> Task:
    batch[:] = 0
    read_rows(places, batch)
    material.check(batch, places)

    def read() -> float:
        start = time.perf_counter()
        read_rows(places, batch)
        return (time.perf_counter() - start) / len(places)

    return read


def _cold_task(
    pool: ThreadPoolExecutor, material: Material, batches: Batches, variant: Variant | None
) -> Task:
    """Return a task that reads from the store of `variant`, or from the raw file."""
    hands = [batches[first::COLD_THREADS] for first in range(COLD_THREADS)]
    spaces = [np.empty((BATCH_ROWS, *material.case.shape), np.float16) for _ in hands]

    def read() -> float:
        files = [material.raw_path] if variant is None else variant.files(material.folder)
        with ExitStack() as stack:
            one = _raw_hand(material, stack)
            if variant is not None:
                store = stack.enter_context(variant.open(material.folder))
                one = _store_hand(material, store.generation(STAGE, KEY))
            _drop_cache(files)
            before, start = _disk_nbytes(), time.perf_counter()
            list(pool.map(one, hands, spaces))
            taken = time.perf_counter() - start
            nbytes = len(material.rows) * material.row_nbytes
            was_cold = _disk_nbytes() - before >= 0.95 * nbytes
            return taken / len(material.rows) if was_cold else float("nan")

    return read


def _store_hand(material: Material, reader: FeatureReader) -> Callable[..., None]:
    len(reader)  # the index of rows is loaded with the first question

    def read(batches: Batches, space: NDArray[np.float16]) -> None:
        for numbers in batches:
            keys = [material.rows[number].key for number in numbers]
            reader.read(keys, out={OUTPUT: space[: len(keys)]})

    return read


def _raw_hand(material: Material, stack: ExitStack) -> Callable[..., None]:
    descriptor = os.open(material.raw_path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    size = material.row_nbytes

    def read(batches: Batches, space: NDArray[np.float16]) -> None:
        target = bytes_of(space)
        for numbers in batches:
            for place, number in enumerate(sorted(numbers)):
                row = target[place * size : (place + 1) * size]
                os.preadv(descriptor, (row,), number * size)

    return read


def _drop_cache(files: Sequence[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only pages that are on disk can go
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _disk_nbytes() -> int:
    """Return how many bytes this process had fetched from disks so far; 0 where nobody counts."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))
