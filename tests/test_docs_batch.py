"""docs/batch.md: its sizes come out of the formulas the code uses, its settings can be read."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.config_executor import ExecutorConfig
from pipeline.config_file import load_config
from pipeline.generations import create_network, row_specs
from pipeline.sizing import future_layout, stored_size
from pipeline.stages import AlignedStage, ClipStage, ObjectsStage
from stores.base import ArraySpec, RowInfo

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
CONFIGS = {
    "resnet3d": "epic55_saoa_r50.yaml",
    "i3d": "epic55_saoa_i3d.yaml",
    "r2plus1d": "epic55_saoa_r2plus1d.yaml",
}
WORK = {"resnet3d": "resnet50_3d", "i3d": "i3d_rgb", "r2plus1d": "r2plus1d_34"}
CLIPS = (28_472, 89_977, 10_321)
FRAMES = tuple(hours * 3600 * 2 for hours in (55, 100, 28))
NAMES = RowInfo("P01_01/12345/0", "P01_01", "12345", 0, 1.0, 2.0)


@cache
def specs_of(network: str) -> dict[str, dict[str, ArraySpec]]:
    """What each stage of a network's config stores of one row."""
    random = [
        f"stages.{stage}.{key}"
        for stage in ("verb", "noun", "objects")
        for key in ("weights=random", "weights_seed=0")
    ]
    sections = load_config(ROOT / "configs" / CONFIGS[network], random).stages
    clips = {
        name: ClipStage(name, getattr(sections, name), {}, {}, None) for name in ("verb", "noun")
    }
    objects = ObjectsStage(sections.objects, 6.0, {}, {}, None)
    aligned = AlignedStage(sections.aligned, clips["verb"], clips["noun"], objects)
    specs = {
        stage.name: row_specs(create_network(stage, "meta").outputs) for stage in aligned.upstream
    }
    return {**specs, "aligned": aligned.output_specs(specs)}


def gigabytes(specs: dict[str, ArraySpec], rows: int) -> str:
    layout = future_layout(
        ROOT, "verb", "0" * 64, specs, {}, format="zarr", shard_mib=32, compression="none"
    )
    return f"{stored_size(layout, rows, [NAMES]).nbytes / 1e9:.1f}"


def tables() -> list[list[list[str]]]:
    """Cells of the tables of sizes and of hours, without the lines of names."""
    section = TEXT.split("## How large, how long\n")[1].split("\n## ")[0]
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in re.findall(r"((?:^\|.*\n)+)", section, re.MULTILINE)
    ]


def expected_sizes() -> list[list[str]]:
    rows = []
    stages = [("verb", f"`{name}`", name, CLIPS) for name in CONFIGS]
    stages.append(("objects", "`objects`", "resnet3d", FRAMES))
    stages += [("aligned", f"`aligned` of `{name}`", name, CLIPS) for name in CONFIGS]
    for stage, label, network, counts in stages:
        specs = specs_of(network)[stage]
        kib = sum(spec.row_nbytes for spec in specs.values()) / 1024
        rows.append([label, f"{kib:,.1f}", *(gigabytes(specs, count) for count in counts)])
    return rows


def test_sizes_are_those_of_the_formulas() -> None:
    assert [[line[0], *line[2:]] for line in tables()[0]] == expected_sizes()


def test_hours_are_those_of_the_work_that_was_counted() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "extract.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in results["figures"]}
    expected = []
    for network, name in WORK.items():
        rate = 10_000 / figures[f"{name}_forward_work"]
        hours = [f"{clips / rate / 3600:,.2f}" for clips in CLIPS]
        expected.append([f"`{network}`", f"{10_000 / rate:,.0f}", f"{rate:,.1f}", *hours])
    assert tables()[1] == expected


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_settings_can_be_read(block: str) -> None:
    settings = yaml.safe_load(block)
    assert TypeAdapter(ExecutorConfig).validate_python(settings["executor"])
