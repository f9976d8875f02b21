"""An epoch in random order over a store that is larger than the process may grow.

Run as a program, this file caps its own address space and reads one epoch:

    python benchmarks/store_epoch.py FOLDER CAP_MIB
"""

import json
import mmap
import random
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from figures import Figures
from store_cases import (
    CASES,
    KEY,
    OUTPUT,
    PLAIN,
    STAGE,
    Effort,
    Variant,
    make_material,
)
from store_scale import peak_rss_mb, proc_status_mb, run_child

from stores import Row, open_store

BATCH_ROWS = 32
WARM_UP = 0.1  # of all batches


def bench_epoch(figures: Figures, effort: Effort, folder: Path) -> None:
    """Read an epoch from each format; memory is the most that was resident at any time."""
    for variant in PLAIN:
        store_mib = _fill(variant, effort, folder)
        if store_mib <= effort.epoch_cap_mib:
            raise RuntimeError(f"got a store of {store_mib:.0f} MiB, expected more than the cap")
        answer = run_child(
            Path(__file__).with_name("store_epoch.py"),
            folder / variant.name,
            effort.epoch_cap_mib,
        )
        if answer["rows"] != effort.epoch_rows:
            raise RuntimeError(f"got {answer['rows']} rows, expected {effort.epoch_rows}")
        growth = answer["peak_rss_mb"] - answer["warm_rss_mb"]
        figures.add(f"{variant.name}_epoch_rss_growth", growth, "MB", ("<=", 32.0))
        figures.add(f"{variant.name}_epoch_peak_rss", answer["peak_rss_mb"], "MB")
        figures.add(f"{variant.name}_epoch_store", store_mib * 2**20 / 1e6, "MB")
        shutil.rmtree(folder / variant.name)


def _fill(variant: Variant, effort: Effort, folder: Path) -> float:
    """Write `effort.epoch_rows` rows of few different values; return MiB on disk."""
    material = make_material(CASES[0], Effort(share=0.1), folder)
    with variant.open(folder, "a") as store:
        made = store.generation(STAGE, KEY, {OUTPUT: material.case.spec})
        for first in range(0, effort.epoch_rows, made.rows_per_shard):
            numbers = range(first, min(first + made.rows_per_shard, effort.epoch_rows))
            given = [material.rows[number % len(material.rows)] for number in numbers]
            rows = [
                Row(f"{n:064x}", row.arrays, row.info)
                for n, row in zip(numbers, given, strict=True)
            ]
            made.append(rows)
        return sum(info.nbytes for info in store.generations()) / 2**20


def _read_epoch(folder: str, cap_mib: str) -> dict[str, Any]:
    """Read all rows in random batches within `cap_mib` more than what the start took."""
    with open_store(folder) as store:
        reader = store.generation(STAGE, KEY)
        keys = reader.keys()
        random.Random(0).shuffle(keys)
        batches = [keys[first : first + BATCH_ROWS] for first in range(0, len(keys), BATCH_ROWS)]
        cap = int(proc_status_mb("VmSize") * 1e6) + int(cap_mib) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
        _check_cap(len(keys) * sum(spec.row_nbytes for spec in reader.specs.values()))
        rows, warm_rss_mb = 0, 0.0
        for number, batch in enumerate(batches):
            rows += len(reader.read(batch)[OUTPUT])
            if number == int(WARM_UP * len(batches)):
                warm_rss_mb = peak_rss_mb()
    return {"rows": rows, "warm_rss_mb": warm_rss_mb, "peak_rss_mb": peak_rss_mb()}


def _check_cap(store_nbytes: int) -> None:
    """Raise where this process could hold the whole store."""
    try:
        mmap.mmap(-1, store_nbytes).close()
    except OSError:
        return
    raise RuntimeError(f"got room for {store_nbytes:,} bytes, expected the cap to forbid it")


if __name__ == "__main__":
    print(json.dumps(_read_epoch(*sys.argv[1:])))
