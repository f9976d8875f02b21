"""The demonstration from end to end, on a kitchen small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_fixtures import symbio

import pipeline.demo
from heads.base import Head

ROOT = Path(__file__).parent.parent


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own config with a few segments, one epoch and tiny networks."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    config["data"] |= {"train_segments": 6, "val_segments": 3}
    config["views"] = {"train": 1}
    config["train"] = {"epochs": 1}
    for network in ("verb", "noun"):
        config["stages"][network]["network"]["width"] = 2
        config["finetune"][network] |= {"epochs": 1, "cached_views": 1, "decay_epochs": []}
    config["finetune"]["objects"] |= {"epochs": 1, "frames_per_video": 1}
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(pipeline.demo, "DEMO_CONFIG", path)


@pytest.mark.usefixtures("small_demo")
def test_the_demo_ends_with_a_table_and_a_second_one_only_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    done = symbio("demo", "--folder", folder, "--seeds", "0,3")
    assert (done.code, done.err) == (0, "")
    table = done.out[done.out.index("Toy kitchen, 3 segments, percent, mean ± std of 2 seeds") :]
    _, heading, _, *lines = table.splitlines()
    labels = [line.split()[0] for line in lines[: lines.index("")]]
    assert labels == ["pooled", "saoa", "chance"]
    assert heading.strip() == "verb top-1  noun top-1  action top-1"
    heads = folder / "runs" / "heads"
    assert (heads / "saoa-seed3" / "head.safetensors").is_file()
    assert (heads / "table.csv").is_file()

    monkeypatch.setattr(Head, "loss", lambda *arguments: pytest.fail("trained again"))
    again = symbio("demo", "--folder", folder, "--seeds", "0,3")
    assert again.code == 0
    assert table in again.out


@pytest.mark.usefixtures("small_demo")
def test_bad_seeds_are_found_before_anything_is_rendered(tmp_path: Path) -> None:
    done = symbio("demo", "--folder", tmp_path / "demo", "--seeds", "0,a")
    assert done.code == 2
    assert "--seeds: got '0,a', expected whole numbers" in done.err
    assert not (tmp_path / "demo").exists()
