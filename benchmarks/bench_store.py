"""How fast the store reads and writes, against the limit of the same machine at the same time.

    python benchmarks/bench_store.py            all figures, some four minutes
    python benchmarks/bench_store.py --quick    a few rows each: shows that it works, saves nothing

Everything is measured for each format of store. Whoever is compared takes turns with its limit;
a ratio is the median over the rounds, since other work on the machine comes and goes.

Reading asks for rows in random order. Its limit is bare `preadv` of the same bytes from one warm
file to the same places of the same array, in file order, which is the faster one. Writing appends
all rows with all syncs and commits. Its limit is the same bytes in one file, written in large
pieces, with one fsync. What else is measured, and how, stands in the files `store_*.py` beside
this one. Figures without a target are for comparison: other libraries on the same rows, and
stores with compression.

Between the limit and what is written lie two looks at the values (finite? checksum) and a sync
per shard and folder instead of one for all. Four threads hide most of that behind the disk; with
fewer cores than threads, or cores that others use too, less of it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figures
from store_cases import CASES, FULL, QUICK, make_material
from store_epoch import bench_epoch
from store_reading import bench_cold_reading, bench_warm_reading
from store_scale import bench_scale
from store_writing import bench_writing

LIBRARIES = ["numpy", "crc32c", "numcodecs", "h5py", "lmdb", "tensorstore", "zarr"]
MEMORY = Path("/dev/shm")


def main() -> None:
    """Run everything in temporary folders and save the figures."""
    parser = argparse.ArgumentParser(description="Measure the feature store.")
    parser.add_argument("--quick", action="store_true", help="a few rows each, nothing saved")
    effort = QUICK if parser.parse_args().quick else FULL
    figures = Figures("store", LIBRARIES)
    for case in CASES:
        with temporary_folder() as folder:
            material = make_material(case, effort, folder)
            bench_writing(figures, effort, material)
            bench_warm_reading(figures, effort, material)
            bench_cold_reading(figures, effort, material)
    with temporary_folder(MEMORY if MEMORY.is_dir() else None) as folder:
        bench_scale(figures, effort, folder)
    with temporary_folder() as folder:
        bench_epoch(figures, effort, folder)
    print(f"saved {figures.save()}" if effort is FULL else "nothing saved")


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that goes away again."""
    with tempfile.TemporaryDirectory(prefix="bench_store_", dir=parent) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
