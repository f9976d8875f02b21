"""Training passes from a store beside the same steps on tensors that lie in memory.

The limit is a loop over float32 batches made beforehand: nothing is gathered, read or widened. It
makes the same steps and looks at the same losses.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

import torch
from extract_cases import run_child
from figures import Figures
from heads_cases import (
    FULL,
    KEY,
    QUICK,
    STAGE,
    Effort,
    make_learner,
    make_table,
    random_batch,
    seconds_of,
    write_rows,
)
from store_cases import median_ratio, take_turns
from store_scale import peak_rss_mb

from heads.base import Batch
from heads.table import FeatureTable
from heads.training_pass import Learner
from stores import open_store

TARGETS = {"resident": 0.95, "streamed": 0.85}


def bench_training(figures: Figures, effort: Effort, folder: Path, device: str) -> None:
    """Segments per second of SAOA, resident and streamed, and of the lightest head."""
    prefix = "" if device == "cpu" else f"{device}_"
    write_rows(folder / "store", effort)
    with open_store(folder / "store") as store:
        reader = store.generation(STAGE, KEY)
        tables = {name: make_table(reader, effort, resident=name == "resident") for name in TARGETS}
        for head in ("saoa", "pooled"):
            learner = make_learner(effort, head, device)
            outputs = learner.head.inputs
            selected = {name: table.select(outputs) for name, table in tables.items()}
            seconds = _times(effort, learner, selected)
            speed = effort.segments / statistics.median(seconds["limit"])
            figures.add(f"{prefix}{head}_ram_speed", speed, "segments/s")
            for name in TARGETS:
                ratio = median_ratio(seconds["limit"], seconds[name])
                target = (">=", TARGETS[name]) if head == "saoa" else None
                figures.add(f"{prefix}{head}_{name}_training_ratio", ratio, "x", target)


def _times(
    effort: Effort, learner: Learner, tables: dict[str, FeatureTable]
) -> dict[str, list[float]]:
    device = learner.device.type
    batches = [random_batch(effort, device) for _ in range(effort.batches)]
    passes = {
        "limit": partial(train_on_tensors, learner, batches),
        **{name: partial(learner.train_pass, table, 1) for name, table in tables.items()},
    }
    tasks = {name: partial(seconds_of, work, device) for name, work in passes.items()}
    return take_turns(effort.turns, tasks)


def train_on_tensors(learner: Learner, batches: list[tuple[Batch, Batch]]) -> float:
    """The loop of a pass and nothing else; mean loss."""
    learner.head.train()
    losses = torch.zeros(len(batches), device=learner.device)
    hits = torch.zeros(2, dtype=torch.int64, device=learner.device)
    for step, (batch, labels) in enumerate(batches):
        loss, logits = learner.step(batch, labels)
        losses[step] = loss
        hits += torch.stack([(logits[name].argmax(1) == labels[name]).sum() for name in labels])
        if learner.device.type == "cpu" and not losses[step].isfinite():
            raise RuntimeError("got a loss that is not finite")
    return float(losses.mean())


def bench_memory(figures: Figures, effort: Effort, folder: Path) -> None:
    """Peak memory of a pass, each in a process of its own."""
    for name in TARGETS:
        request = {"folder": str(folder / "store"), "quick": effort.is_quick, "how": name}
        peak = run_child("heads_training", [request])[0]["peak_rss_mb"]
        figures.add(f"saoa_{name}_training_peak_rss", peak, "MB")


def answer(folder: str, quick: bool, how: str) -> dict[str, float]:
    """Memory of this process once it has trained SAOA for one pass."""
    effort = QUICK if quick else FULL
    with open_store(Path(folder)) as store:
        table = make_table(store.generation(STAGE, KEY), effort, resident=how == "resident")
        make_learner(effort, "saoa", "cpu").train_pass(table, 1)
    return {"peak_rss_mb": peak_rss_mb()}
