"""``symbio demo``: the whole system on a rendered toy kitchen, in minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline.commands import run_stages
from pipeline.config_file import load_config
from pipeline.datasets import load_dataset
from pipeline.errors import PipelineError
from pipeline.head_commands import finetune_network
from pipeline.segments import Dataset
from pipeline.stage_one import NETWORKS
from pipeline.stages import STAGE_NAMES
from pipeline.sweep_commands import print_table, train_sweep
from pipeline.sweep_file import Measure
from pipeline.sweep_plan import Sweep, plan_sweep
from pipeline.sweep_table import shown_table, summarize

__all__ = ["DEMO_CONFIG", "run_demo"]

DEMO_CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"
HEADS = ("pooled", "saoa")
MEASURES: tuple[Measure, ...] = ("verb_top1", "noun_top1", "action_top1")


def run_demo(folder: Path, *, seeds: str, console: Console) -> None:
    """Render, train stage one, extract, train the heads, compare.

    What is there already is not done again: a second call prints the table at once.

    Args:
        folder: where everything goes.
        seeds: one training of each head per seed, such as ``0,1,2``.
    """
    sweep = _plan(folder, seeds)  # what is wrong with the seeds is found out first
    config = load_config(DEMO_CONFIG, _overrides(folder))
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
    _compare(sweep, dataset, console)
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


def _plan(folder: Path, seeds: str) -> Sweep:
    """The trainings of heads, which the end of the demo compares."""
    grid = f"head.name={','.join(HEADS)}"
    sweep = plan_sweep(
        DEMO_CONFIG, overrides=_overrides(folder), grids=[grid], seeds=seeds, name="heads"
    )
    return replace(sweep, title="Toy kitchen", measures=MEASURES)


def _compare(sweep: Sweep, dataset: Dataset, console: Console) -> None:
    """Train the heads from the store; one table, with what guessing would give."""
    outcomes = train_sweep(sweep, console, official=False, skip_missing=False, quiet=False)
    if failed := [outcome for outcome in outcomes if outcome.error]:
        raise PipelineError(f"{failed[0].folder}: {failed[0].error}")
    console.rule("5  result")
    shown = shown_table(sweep, summarize(sweep, outcomes), MEASURES)
    verbs, nouns = len(dataset.verb_names), len(dataset.noun_names)
    chance = [f"{100 / classes:.1f}" for classes in (verbs, nouns, verbs * nouns)]
    print_table(console, replace(shown, rows=[*shown.rows, ["chance", *chance]]))
