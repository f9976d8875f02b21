"""Forward and backward of SAOA beside the equations as printed, and beside matrix products."""

from __future__ import annotations

import statistics
from functools import partial

import torch
from extract_cases import gemm_flop_per_second
from figures import Figures
from heads_cases import NUM_NOUNS, NUM_VERBS, Effort, create_saoa, random_batch, seconds_of
from heads_literal import LiteralSaoa
from store_cases import median_ratio, take_turns
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from heads.base import Batch, Head


def bench_steps(figures: Figures, effort: Effort, device: str) -> None:
    """One batch forward and backward; the machine's matrix products take turns with it."""
    prefix = "" if device == "cpu" else f"{device}_"
    batch, labels = random_batch(effort, device)
    head = create_saoa(effort)
    heads: dict[str, nn.Module] = {
        "saoa": head.to(device),
        "literal": LiteralSaoa(effort.dims, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS).to(device),
    }
    steps = {name: partial(step, module, head, batch, labels) for name, module in heads.items()}
    flop = {name: _flop(work) for name, work in steps.items()}
    rate = partial(gemm_flop_per_second, effort.gemm_sides, device, torch.float32)
    tasks = {name: partial(seconds_of, work, device) for name, work in steps.items()}
    turns = take_turns(effort.turns, {**tasks, "gemm": rate})
    figures.add(f"{prefix}saoa_step", statistics.median(turns["saoa"]), "s")
    figures.add(f"{prefix}literal_step", statistics.median(turns["literal"]), "s")
    speedup = median_ratio(turns["literal"], turns["saoa"])
    figures.add(f"{prefix}saoa_speedup", speedup, "x", (">=", 1.6))
    figures.add(f"{prefix}saoa_work", flop["saoa"] / 1e9, "GFLOP")
    figures.add(f"{prefix}literal_work", flop["literal"] / 1e9, "GFLOP")
    figures.add(f"{prefix}gemm_rate", statistics.median(turns["gemm"]) / 1e9, "GFLOP/s")
    for name in heads:
        fraction = statistics.median(
            flop[name] / seconds / most
            for seconds, most in zip(turns[name], turns["gemm"], strict=True)
        )
        figures.add(f"{prefix}{name}_gemm_fraction", fraction, "x")


def step(module: nn.Module, head: Head, batch: Batch, labels: Batch) -> None:
    """Forward, the papers' loss, backward."""
    module.zero_grad()
    head.loss(module(batch), labels).backward()


def _flop(work: partial[None]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
