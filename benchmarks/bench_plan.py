"""How long whole commands take that only look at what is there, and how much memory.

    python benchmarks/bench_plan.py            all figures, some four minutes
    python benchmarks/bench_plan.py --quick    two hundred clips: shows that it works, saves nothing

90,000 segments of 700 videos in the label files of EPIC-KITCHENS-100, 100 hours of labels, and a
store that holds all rows of all four stages under their real keys: some 560,000 object frames
beside three rows for each clip. Commands are run as a shell runs them, imports included, and are
timed from start to end; `plan_data.py` says how the store is filled, `plan_child.py` how memory is
measured and how it is known that no video was opened.

    plan       `symbio plan` where everything is stored
    unchanged  `symbio run` where everything is stored
    changed    `symbio plan` after the labels of one segment were moved
    new        `symbio plan` of settings that the store has never seen, into a new store: networks
               are looked at for their sizes, so that importing torch, timed beside it, is its floor
    peer       a tool of the usual kind, one output file for each clip and stage: is every file
               there, and not empty? It knows nothing of settings, contents or shared frames

Commands take turns, three rounds; figures are medians, peaks of memory the highest. Everything lies
in memory where the machine allows: disks are not what is measured here. Beside the wall time stands
that of the processor, which says more where others use the machine.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from figures import Figures
from plan_child import run_command
from plan_data import FULL, QUICK, PlanData, make_data, work_to_do

LIBRARIES = ["numpy", "pydantic", "pyyaml", "torch"]
MEMORY = Path("/dev/shm")
ROUNDS = 3
WALL_SECONDS, PEAK_MB = ("<=", 3.0), ("<=", 400.0)
# Commands: their arguments, and whether the aims are theirs.
COMMANDS = {"plan": True, "unchanged": True, "changed": True, "new": False}


def main() -> None:
    """Make the data, run everything and save the figures."""
    parser = argparse.ArgumentParser(description="Measure planning.")
    parser.add_argument("--quick", action="store_true", help="few clips, nothing saved")
    effort = QUICK if parser.parse_args().quick else FULL
    figures = Figures("plan", LIBRARIES)
    parent = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="bench_plan_", dir=parent) as folder:
        data = make_data(Path(folder), effort)
        figures.add("clips", effort.clips, "clips")
        figures.add("object_frames", data.rows["objects"], "rows")
        bench_commands(figures, data, rounds=1 if effort is QUICK else ROUNDS)
        bench_changed_clip(figures, data)
    print(f"saved {figures.save()}" if effort is FULL else "nothing saved")


def bench_commands(figures: Figures, data: PlanData, *, rounds: int) -> None:
    """Wall time and memory of each command, of its peer and of the import of torch alone."""
    run_command("plan", data.config)  # what settings come to is known from here on
    arguments = {
        "plan": ("plan", data.config),
        "unchanged": ("run", data.config),
        "changed": ("plan", data.config, "--set", f"data.annotations={data.changed_labels}"),
        "new": ("plan", data.config, "--set", f"store.path={data.config.parent / 'new'}"),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in COMMANDS}
    peer, torch = [], []
    for _ in range(rounds):
        for name in COMMANDS:
            # Of real maps there is not room enough in memory, which a plan says by its code.
            codes = (0, 2) if name == "new" else (0,)
            found[name].append(run_command(*arguments[name], may_end=codes))
        peer.append(seconds_of("plan_peer.py", data.config.parent / "peer", *data.label_files))
        torch.append(seconds_of("-c", "import torch"))
    for name, judged in COMMANDS.items():
        wall = median(run["wall_seconds"] for run in found[name])
        peak = max(run["peak_rss_mb"] for run in found[name])
        figures.add(f"{name}_wall", wall, "s", WALL_SECONDS if judged else None)
        cpu = median(run["cpu_seconds"] for run in found[name])
        figures.add(f"{name}_cpu", cpu, "s")
        figures.add(f"{name}_peak_rss", peak, "MB", PEAK_MB if judged else None)
        if judged:
            opened = max(run["videos_opened"] for run in found[name])
            figures.add(f"{name}_videos_opened", opened, "videos", ("<=", 0))
    figures.add("import_torch_wall", median(torch), "s")
    figures.add("peer_wall", median(peer), "s")
    walls = [run["wall_seconds"] for run in found["plan"]]
    ratio = median(wall / of_peer for wall, of_peer in zip(walls, peer, strict=True))
    figures.add("plan_to_peer", ratio, "x")


def bench_changed_clip(figures: Figures, data: PlanData) -> None:
    """What one moved segment makes of work: a unit, and a row of each stage that sees clips."""
    units, rows = work_to_do(data)
    figures.add("changed_clip_units", units, "units", ("<=", 1))
    for stage in ("verb", "noun", "aligned"):
        figures.add(f"changed_clip_{stage}_rows", rows[stage], "rows", ("<=", 1))
    figures.add("changed_clip_objects_rows", rows["objects"], "rows")


def seconds_of(*arguments: object) -> float:
    """Wall time of a Python program."""
    started = time.perf_counter()
    folder = Path(__file__).parent
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=folder)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
