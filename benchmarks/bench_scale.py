"""How extraction scales: with local workers, and with what one coordinator can hand out.

    python benchmarks/bench_scale.py            all figures, some minutes on two cores
    python benchmarks/bench_scale.py --quick    tiny sizes: shows that it works

Decoding: 1, 2 and 4 local workers, each with a decode process of its own, on videos and a network
so small that nearly all of a row is decoding. Their rate is counted from when the last worker has
begun to the end of the last unit; starting workers is not in it. `efficiency` compares with the
bare work: decoding and the network one after the other in one process with one thread, without a
store, measured in the same turn, times the workers or the cores, whichever are fewer. A worker
alone uses more than one core and may exceed it.

Coordinator: a run whose workers give units back at once, with their shards written while the clock
stands still: what is measured is taking units, reserving shards, committing, the journal and the
report. Rows have 64 bytes; a shard holds 3,000 of them, as of objects, or 32, as of maps of a
ResNet-50. Shards of a unit come at once and are committed at once, as they do when a coordinator
has all it can do. One coordinator feeds as many GPUs as its rows per second divided by the
clips per second of one GPU; `gpus_fed_at_N_clips_per_second` says how many that is for maps and
some N, which are examples and not measured here.
"""

# Workers start without this file; the rest is imported where it is needed.
import argparse
import tempfile
from pathlib import Path

LIBRARIES = ["torch", "av", "numpy"]


def main() -> None:
    """Run everything in temporary folders and save the figures."""
    from figures import Figures
    from scale_cases import FULL, QUICK
    from scale_coordinator import bench_coordinator
    from scale_decoding import bench_decoding

    parser = argparse.ArgumentParser(description="Measure how extraction scales.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing saved")
    effort = QUICK if parser.parse_args().quick else FULL
    figures = Figures("scale", LIBRARIES)
    for bench in (bench_decoding, bench_coordinator):
        with tempfile.TemporaryDirectory() as folder:
            bench(figures, effort, Path(folder))
    print(f"saved {figures.save()}" if effort is FULL else "nothing saved")


if __name__ == "__main__":
    main()
