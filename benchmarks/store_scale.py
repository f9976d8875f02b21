"""A store of very many rows: how many files it takes, and how long it takes to see what is there.

The rows hold one number per output instead of real values, in shards of as many rows as real
ones would have; files, manifest and rows.csv are as large as real ones. The store is made in
memory, since tens of thousands of syncs are not what is measured here.

Run as a program, this file opens such a store and counts the missing rows:

    python benchmarks/store_scale.py FOLDER MODE ROWS
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures
from store_cases import PLAIN, Effort, Variant

from stores import ArraySpec, FeatureStore, Row, RowInfo, open_store
from stores.checks import rows_per_shard

MISSING = 1_000  # rows asked for that the store does not hold
COMMIT_SHARDS = 32
KEY = "1" * 64


def _real(*shape: int, dtype: str = "float16") -> ArraySpec:
    return ArraySpec(tuple(f"axis_{axis}_{size}" for axis, size in enumerate(shape)), shape, dtype)


# The outputs of real stages, at the sizes of a ResNet-50 and five objects in each of 12 frames.
STAGES = {
    "verb": {"map": _real(8, 8, 8, 2048)},
    "objects": {
        "features": _real(60, 1024),
        "boxes_xyxy_px": _real(60, 4, dtype="float32"),
        "scores": _real(60, dtype="float32"),
        "classes": _real(60, dtype="int32"),
        "count": _real(dtype="int32"),
        "frame_size_px": _real(2, dtype="int32"),
    },
    "aligned": {
        "verb_gap": _real(2048),
        "noun_gap": _real(2048),
        "verb_roi": _real(40, 2048),
        "object_features": _real(60, 1024),
        "object_mask": _real(60, dtype="uint8"),
        "object_boxes_xyxy_px": _real(60, 4, dtype="float32"),
        "object_scores": _real(60, dtype="float32"),
        "frame_size_px": _real(2, dtype="int32"),
    },
}


def bench_scale(figures: Figures, effort: Effort, folder: Path) -> None:
    """Make the store in each format and look at it from a fresh process, read-only and not."""
    for variant in PLAIN:
        files_per_row = [
            _fill(variant, folder, stage, outputs, effort.scale_rows)
            for stage, outputs in STAGES.items()
        ]
        most = max(files_per_row)
        figures.add(f"{variant.name}_files_per_row", most, "files_in_worst_stage", ("<=", 0.10))
        for mode, words in (("r", "reading"), ("a", "writing")):
            answer = run_child(__file__, folder / variant.name, mode, effort.scale_rows)
            if answer["missing"] != [MISSING] * len(STAGES):
                raise RuntimeError(f"got {answer['missing']} missing rows, expected {MISSING} each")
            name = f"{variant.name}_open_for_{words}"
            figures.add(f"{name}_cpu", answer["cpu_seconds"], "s", ("<=", 1.0))
            figures.add(f"{name}_peak_rss", answer["peak_rss_mb"], "MB", ("<=", 200.0))


def run_child(*args: object) -> dict[str, Any]:
    """Run a Python file in a fresh process; return the JSON that it prints."""
    command = [sys.executable, *map(str, args)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def peak_rss_mb() -> float:
    """Return the most resident memory of this process; getrusage also counts its parent's."""
    return proc_status_mb("VmHWM")


def proc_status_mb(name: str, process: int | str = "self") -> float:
    """Return a size from /proc/self/status in MB; `process`: id of another one."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024 / 1e6


def row_key(stage: str, number: int) -> str:
    """Return a row key that looks like real ones."""
    return hashlib.sha256(f"{stage} {number}".encode()).hexdigest()


def _fill(
    variant: Variant, folder: Path, stage: str, outputs: dict[str, ArraySpec], count: int
) -> float:
    """Write `count` rows of a stage; return the files per row that this took."""
    per_shard = rows_per_shard(outputs, 32)
    specs = {name: ArraySpec((), (), spec.dtype) for name, spec in outputs.items()}
    small_mib = (per_shard + 0.5) * sum(spec.row_nbytes for spec in specs.values()) / 2**20
    before = len(variant.files(folder))
    with variant.open(folder, "a") as store:
        made = store.generation(stage, KEY, specs, shard_mib=small_mib)
        if made.rows_per_shard != per_shard:
            raise RuntimeError(f"got {made.rows_per_shard} rows a shard, expected {per_shard}")
        rows = _rows(stage, specs, count)
        while _write_some(made, rows):
            pass
    return (len(variant.files(folder)) - before) / count


def _rows(stage: str, specs: dict[str, ArraySpec], count: int) -> Iterator[Row]:
    arrays = {name: np.ones((), spec.numpy_dtype) for name, spec in specs.items()}
    for number in range(count):
        video = f"P{number // 3000:02d}_{number // 300 % 10:02d}"
        start = number % 300 * 2.5
        info = RowInfo(
            f"{video}/{video}_{number % 300}/0", video, f"{video}_{number % 300}", 0, start, start
        )
        yield Row(row_key(stage, number), arrays, info)


def _write_some(made: FeatureStore, rows: Iterator[Row]) -> bool:
    """Write and commit a few full shards; return whether there were rows left."""
    shards = []
    while len(shards) < COMMIT_SHARDS and (
        shard := [row for _, row in zip(range(made.rows_per_shard), rows, strict=False)]
    ):
        shards.append(shard)
    if shards:
        first = made.reserve_shards(len(shards))
        made.commit([made.write_shard(first + i, shard) for i, shard in enumerate(shards)])
    return bool(shards)


def _look(folder: str, mode: str, rows: str) -> dict[str, Any]:
    """Open the store, ask for its rows and some more, and say what that cost."""
    asked = {stage: [row_key(stage, n) for n in range(int(rows) + MISSING)] for stage in STAGES}
    start = time.process_time()
    with open_store(folder, mode) as store:
        missing = [len(store.generation(stage, KEY).missing(asked[stage])) for stage in STAGES]
    seconds = time.process_time() - start
    return {"missing": missing, "cpu_seconds": seconds, "peak_rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(_look(*sys.argv[1:])))
