"""``symbio demo``: the whole system on a rendered toy kitchen, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from rich.console import Console

from heads.metrics import Metrics
from pipeline.commands import run_stages
from pipeline.config import ExperimentConfig
from pipeline.config_file import load_config
from pipeline.console import table
from pipeline.datasets import load_dataset
from pipeline.errors import PipelineError
from pipeline.experiment import Experiment, resolve
from pipeline.head_commands import finetune_network
from pipeline.head_runs import evaluate_run, train_run
from pipeline.runs import default_run_folder
from pipeline.stage_one import NETWORKS
from pipeline.stages import STAGE_NAMES

__all__ = ["DEMO_CONFIG", "run_demo"]

DEMO_CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"
HEADS = ("pooled", "saoa")
MEASURES = ("verb_top1", "noun_top1", "action_top1")


def run_demo(folder: Path, *, seeds: Sequence[int], console: Console) -> None:
    """Render, train stage one, extract, train the heads, compare.

    What is there already is not done again: a second call prints the table at once.

    Args:
        folder: where everything goes.
        seeds: one training of each head per seed.
    """
    overrides = _overrides(folder)
    config = load_config(DEMO_CONFIG, overrides)
    console.rule("1  render the toy kitchen")
    dataset = load_dataset(config.data)
    train, val = (len(dataset.split(split)) for split in ("train", "val"))
    console.print(f"{train} training and {val} validation segments in {folder / 'kitchen'}")
    console.rule("2  stage one: VerbNet, NounNet and the object network")
    for network in NETWORKS:
        finetune_network(config, network, None, console, resume=True, quiet=False)
    console.rule("3  extract features")
    report = run_stages(
        config, console, stages=STAGE_NAMES, retry_failed=True, rehash=False, quiet=False
    )
    if not report.complete:
        raise PipelineError("the extraction is not complete; run the demo again to go on")
    console.rule("4  train the heads from the store")
    results = {head: _train(folder, head, seeds, console) for head in HEADS}
    console.rule("5  result")
    _print_table(
        results, num_classes=(len(dataset.verb_names), len(dataset.noun_names)), console=console
    )
    console.print("epochs were chosen on these same segments, for both heads alike")
    for name, path in (
        ("videos, annotations, boxes", folder / "kitchen"),
        ("features (standard Zarr)", config.store.path),
        ("checkpoints, heads, logs", config.runs),
        ("the experiment file", DEMO_CONFIG),
    ):
        console.print(f"{name}: {path}")


def _overrides(folder: Path) -> list[str]:
    """The demo's paths, moved to another folder."""
    networks = [
        f"stages.{network}.weights={folder}/runs/demo-finetune-{network}/checkpoint.safetensors"
        for network in NETWORKS
    ]
    return [
        f"store.path={folder}/store",
        f"runs={folder}/runs",
        f"data.folder={folder}/kitchen",
        f"stages.objects.boxes={folder}/kitchen/boxes.csv",
        *networks,
    ]


def _train(folder: Path, head: str, seeds: Sequence[int], console: Console) -> list[Metrics]:
    """Validation metrics of one head, one per seed."""
    found = []
    for seed in seeds:
        overrides = [*_overrides(folder), f"head.name={head}", f"train.seed={seed}"]
        config = load_config(DEMO_CONFIG, overrides)
        metrics = _train_one(config, resolve(config))
        console.print(
            f"{head}, seed {seed}: "
            + ", ".join(f"{m[:-5]} {100 * asdict(metrics)[m]:.1f} %" for m in MEASURES)
        )
        found.append(metrics)
    return found


def _train_one(config: ExperimentConfig, experiment: Experiment) -> Metrics:
    run_folder = default_run_folder(config)
    train_run(experiment, run_folder, resume=True, skip_missing=False, on_epoch=lambda _: None)
    found = evaluate_run(experiment, run_folder, split="val", skip_missing=False)
    return cast(Metrics, found.metrics)  # the kitchen has labels


def _print_table(
    results: dict[str, list[Metrics]], *, num_classes: tuple[int, int], console: Console
) -> None:
    rows = [
        (head, *(_mean_std([asdict(m)[measure] for m in metrics]) for measure in MEASURES))
        for head, metrics in results.items()
    ]
    verbs, nouns = num_classes
    chance = (f"{100 / verbs:.1f}", f"{100 / nouns:.1f}", f"{100 / (verbs * nouns):.1f}")
    first = next(iter(results.values()))
    title = (
        f"Top-1 on {first[0].num_segments} validation segments, mean ± std of {len(first)} seeds"
    )
    columns = {"head": "left", "verb %": "right", "noun %": "right", "action %": "right"}
    console.print(table(title, columns, [*rows, ("chance", *chance)]))


def _mean_std(fractions: Sequence[float]) -> str:
    """Percent; the standard deviation is that of the sample."""
    percent = 100 * np.array(fractions)
    spread = percent.std(ddof=1) if len(percent) > 1 else 0.0
    return f"{percent.mean():.1f} ± {spread:.1f}"
