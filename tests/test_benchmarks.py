"""The store benchmark runs from end to end; what it measures is for machines, not for tests."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from stores.registry import FORMATS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FIGURE = re.compile(
    r"figure (\S+) (-?[\d.]+(?:e[+-]\d+)?) \S+ target (?:none|([<>]=) (\S+) (met|short))"
)
CASES = ("objects", "maps")
PEERS = ("memmap", "lmdb", "h5py", "tensorstore", "zarr_python")


def expected_names() -> set[str]:
    """Every figure there should be, in each format that stores come in."""
    formats = sorted(FORMATS)
    of_format = [
        *[f"{case}_{what}" for case in CASES for what in ("write_ratio", "read_ratio")],
        *[f"{case}_cold_read_ratio" for case in CASES],
        *[f"checked_{case}_read_ratio" for case in CASES],
        *[f"zstd_{case}_{w}_ratio" for case in CASES for w in ("write", "read", "size")],
        *["files_per_row", "epoch_rss_growth", "epoch_peak_rss", "epoch_store"],
        *[f"open_for_{how}_{w}" for how in ("reading", "writing") for w in ("cpu", "peak_rss")],
    ]
    return {
        *[f"{name}_{figure}" for name, figure in product(formats, of_format)],
        *[f"{peer}_{case}_read_ratio" for peer, case in product(PEERS, CASES)],
        *[f"raw_{case}_write_speed" for case in CASES],
        *[f"preadv_{case}_{w}" for case in CASES for w in ("read_speed", "cold_read_speed")],
    }


@pytest.fixture(scope="module")
def output() -> str:
    """What the shortest run prints."""
    kept = (BENCHMARKS / "results" / "store.json").read_bytes()
    command = [sys.executable, "bench_store.py", "--quick"]
    output = subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True, text=True)
    assert output.stderr == ""
    assert (BENCHMARKS / "results" / "store.json").read_bytes() == kept
    return output.stdout


def test_the_store_benchmark_gives_every_figure(output: str) -> None:
    names = [line.split()[1] for line in output.splitlines() if line.startswith("figure ")]
    assert len(names) == len(set(names))
    missing = expected_names() - set(names)
    # Where temporary files lie in memory, nothing can be read from a disk.
    excused = {
        name
        for name in missing
        for case in CASES
        if f"{case}_cold_read" in name and f"left out: {case}_cold_read" in output
    }
    assert missing == excused
    assert set(names) <= expected_names()


def test_each_figure_says_whether_it_meets_its_target(output: str) -> None:
    lines = [line for line in output.splitlines() if line.startswith("figure ")]
    judged = set()
    for line in lines:
        match = FIGURE.fullmatch(line)
        assert match, line
        _, value, sign, limit, verdict = match.groups()
        if sign:
            holds = float(value) >= float(limit) if sign == ">=" else float(value) <= float(limit)
            assert verdict == ("met" if holds else "short"), line
            judged.add(match[1])
    formats = sorted(FORMATS)
    for figure in ("files_per_row", "epoch_rss_growth", "open_for_reading_cpu"):
        assert {f"{name}_{figure}" for name in formats} <= judged
    for figure in ("write_ratio", "read_ratio"):
        assert {f"{name}_{case}_{figure}" for name, case in product(formats, CASES)} <= judged
