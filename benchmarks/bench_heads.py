"""How fast heads train and are evaluated, against limits of the same machine at the same time.

    python benchmarks/bench_heads.py            all figures, some minutes on two cores
    python benchmarks/bench_heads.py --quick    tiny heads and rows: shows that it works

Rows have the papers' size: 60 objects of 1024 numbers, 40 of which with 2048 numbers of their
region, float16. Training passes from a store, resident and streamed from a warm page cache, take
turns with the same steps on float32 tensors made beforehand. One batch of SAOA forward and
backward takes turns with the equations as they are printed (`heads_literal.py`) and with square
matrix products; multiply-adds are counted by PyTorch and count as two. Evaluation starts at logits
and ends with `metrics.json` and `scores.npz`. Memory is that of fresh processes. Where CUDA is at
hand, passes, steps and whole trainings are measured there, too; that part has not been run yet.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from figures import Figures
from heads_cases import FULL, QUICK
from heads_cuda import bench_whole_runs
from heads_scores import bench_scores
from heads_steps import bench_steps
from heads_training import bench_memory, bench_training


def main() -> None:
    """Run everything in a temporary folder and save the figures."""
    parser = argparse.ArgumentParser(description="Measure training and evaluation of heads.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing saved")
    effort = QUICK if parser.parse_args().quick else FULL
    figures = Figures("heads", ["torch", "numpy"])
    with tempfile.TemporaryDirectory(prefix="bench_heads_") as temporary:
        folder = Path(temporary)
        bench_training(figures, effort, folder / "cpu", "cpu")
        bench_memory(figures, effort, folder / "cpu")
        bench_steps(figures, effort, "cpu")
        bench_scores(figures, effort, folder / "scores")
        if torch.cuda.is_available():
            bench_training(figures, effort, folder / "cuda", "cuda")
            bench_steps(figures, effort, "cuda")
            bench_whole_runs(figures, effort, folder / "runs")
    print("nothing saved" if effort.is_quick else f"saved {figures.save()}")


if __name__ == "__main__":
    main()
