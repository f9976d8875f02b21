"""The benchmarks run from end to end; what they measure is for machines, not for tests."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

from pipeline.stages import STAGE_NAMES
from stores.registry import FORMATS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FIGURE = re.compile(
    r"figure (\S+) (-?[\d.]+(?:e[+-]\d+)?) \S+ target (?:none|([<>]=) (\S+) (met|short))"
)
CASES = ("objects", "maps")
DECODED = ("456x256", "456x256_no_b_frames", "1080p_no_b_frames")
BACKBONES = ("resnet50_3d", "i3d_rgb", "r2plus1d_34")
WHOLE = ("wall", "cpu", "peak_rss")
STEP = ("step", "work", "gemm_fraction")
PEERS = ("memmap", "lmdb", "h5py", "tensorstore", "zarr_python")


def store_names() -> set[str]:
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


def extract_names() -> set[str]:
    """Every figure of extraction on the CPU."""
    of_backbone = [
        *[f"{what}_{unit}" for what in ("run", "forward") for unit in ("speed", "gemm_fraction")],
        *["end_to_end_ratio", "decode_speed", "forward_work", "gemm_rate", "channels_last_speedup"],
        *[f"{what}_in_run" for what in ("decode", "forward", "waiting", "writing")],
        *["before_run", "peak_rss", "decode_process_peak_rss"],
    ]
    whats = ("ratio", "needed_only_ratio", "bare_ratio", "speed")
    lengths, parts = ("short", "long"), ("main", "decode_process")
    return {
        *[f"{name}_{figure}" for name, figure in product(BACKBONES, of_backbone)],
        *[f"decode_resize_{video}_{what}" for video, what in product(DECODED, whats)],
        *["three_stages_decode_cost", "three_stages_frames", "long_video_memory"],
        *[f"{when}_decode_process_start" for when in ("first", "later")],
        *[f"{length}_video_{part}_peak_rss" for length, part in product(lengths, parts)],
    }


def heads_names() -> set[str]:
    """Every figure of heads on the CPU."""
    hows = ("resident", "streamed")
    return {
        *[f"{head}_{how}_training_ratio" for head, how in product(("saoa", "pooled"), hows)],
        *[f"{head}_ram_speed" for head in ("saoa", "pooled")],
        *[f"saoa_{how}_training_peak_rss" for how in hows],
        *[f"{head}_{what}" for head in ("saoa", "literal") for what in STEP],
        *["saoa_speedup", "gemm_rate", "evaluation_cpu"],
    }


def plan_names() -> set[str]:
    """Every figure of planning."""
    commands = ("plan", "unchanged", "changed")
    return {
        *["clips", "object_frames", "import_torch_wall", "peer_wall", "plan_to_peer"],
        *["changed_clip_units", *(f"changed_clip_{stage}_rows" for stage in STAGE_NAMES)],
        *[f"{name}_{what}" for name, what in product((*commands, "new"), WHOLE)],
        *[f"{name}_videos_opened" for name in commands],
    }


def run_quick(name: str) -> str:
    """What the shortest run of a benchmark prints; results are left alone."""
    results = BENCHMARKS / "results"
    kept = {path: path.read_bytes() for path in results.iterdir()}
    command = [sys.executable, f"bench_{name}.py", "--quick"]
    ended = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {path: path.read_bytes() for path in results.iterdir()} == kept
    return ended.stdout


def figure_names(output: str) -> set[str]:
    """Names of all figures, each of which must be there once."""
    names = [line.split()[1] for line in output.splitlines() if line.startswith("figure ")]
    assert len(names) == len(set(names))
    return set(names)


def judged_names(output: str) -> set[str]:
    """Names of the figures with a target; each line must say rightly whether it is met."""
    judged = set()
    for line in output.splitlines():
        if not line.startswith("figure "):
            continue
        match = FIGURE.fullmatch(line)
        assert match, line
        _, value, sign, limit, verdict = match.groups()
        if sign:
            holds = float(value) >= float(limit) if sign == ">=" else float(value) <= float(limit)
            assert verdict == ("met" if holds else "short"), line
            judged.add(match[1])
    return judged


@pytest.mark.parametrize(
    ("value", "sign", "verdict"),
    [
        *[(1.10002, "<=", "met"), (1.101, "<=", "short")],
        *[(1.09998, ">=", "met"), (1.099, ">=", "short")],
    ],
)
def test_a_verdict_is_that_of_the_value_as_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: float,
    sign: str,
    verdict: str,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import_module("figures").Figures("any").add("ratio", value, "x", (sign, 1.1))
    printed = capsys.readouterr().out
    assert judged_names(printed) == {"ratio"}
    assert printed.split()[-1] == verdict


@pytest.fixture(scope="module")
def store_output() -> str:
    return run_quick("store")


@pytest.fixture(scope="module")
def extract_output() -> str:
    return run_quick("extract")


def test_the_store_benchmark_gives_every_figure(store_output: str) -> None:
    names = figure_names(store_output)
    missing = store_names() - names
    # Where temporary files lie in memory, nothing can be read from a disk.
    excused = {
        name
        for name in missing
        for case in CASES
        if f"{case}_cold_read" in name and f"left out: {case}_cold_read" in store_output
    }
    assert missing == excused
    assert names <= store_names()


def test_each_figure_of_the_store_says_whether_it_meets_its_target(store_output: str) -> None:
    judged = judged_names(store_output)
    formats = sorted(FORMATS)
    for figure in ("files_per_row", "epoch_rss_growth", "open_for_reading_cpu"):
        assert {f"{name}_{figure}" for name in formats} <= judged
    for figure in ("write_ratio", "read_ratio"):
        assert {f"{name}_{case}_{figure}" for name, case in product(formats, CASES)} <= judged


def test_the_extraction_benchmark_gives_every_figure(extract_output: str) -> None:
    names = {name for name in figure_names(extract_output) if not name.startswith("cuda_")}
    assert names == extract_names()


def test_each_figure_of_extraction_says_whether_it_meets_its_target(extract_output: str) -> None:
    assert {name for name in judged_names(extract_output) if not name.startswith("cuda_")} == {
        *[f"{backbone}_end_to_end_ratio" for backbone in BACKBONES],
        *[f"decode_resize_{video}_ratio" for video in DECODED],
        *["three_stages_decode_cost", "three_stages_frames", "long_video_memory"],
    }


def test_the_heads_benchmark_gives_every_figure_and_its_verdict() -> None:
    output = run_quick("heads")
    of_cpu = {name for name in figure_names(output) if not name.startswith("cuda_")}
    assert of_cpu == heads_names()
    assert {name for name in judged_names(output) if not name.startswith("cuda_")} == {
        *["saoa_resident_training_ratio", "saoa_streamed_training_ratio"],
        *["saoa_speedup", "evaluation_cpu"],
    }


def test_the_planning_benchmark_gives_every_figure_and_its_verdict() -> None:
    output = run_quick("plan")
    names = figure_names(output)
    assert names == plan_names()
    without = {"clips", "object_frames", "changed_clip_objects_rows", "plan_to_peer"}
    without |= {name for name in names if name.endswith("_cpu")}
    without |= {name for name in names if name.startswith(("new_", "import_", "peer_"))}
    assert judged_names(output) == names - without
    for name in ("plan_videos_opened", "unchanged_videos_opened", "changed_videos_opened"):
        assert f"figure {name} 0 videos" in output
    assert "figure changed_clip_units 1 units" in output


@pytest.mark.slow
def test_the_scaling_benchmark_gives_every_figure_and_its_verdict() -> None:
    output = run_quick("scale")
    workers = [f"workers_{n}" for n in (1, 2, 4)]
    assert figure_names(output) == {
        *[f"{name}_{what}" for name in workers for what in ("speed", "efficiency")],
        *[
            "bare_core_speed",
            "bare_core_share_of_decoding",
            "coordinator_small_rows_speed",
            "coordinator_maps_speed",
        ],
        *[f"gpus_fed_at_{n}_clips_per_second" for n in (10, 50, 200)],
    }
    assert judged_names(output) == {
        *[f"{name}_efficiency" for name in workers],
        "coordinator_small_rows_speed",
    }
