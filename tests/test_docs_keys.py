"""The pages say which settings enter a stage's key, and what a changed setting makes again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_pages import section, table_rows
from experiment_fixtures import make_experiment, settings
from pydantic import BaseModel

from pipeline.config_file import parse_config
from pipeline.config_flow import FlowConfig
from pipeline.config_stages import AlignedConfig, ClipStageConfig, ObjectsConfig
from pipeline.experiment import resolve

WEIGHTS: dict[str, dict[str, Any]] = {
    "weights": {"weights": "weights.pth", "weights_seed": None},
    "weights_seed": {"weights_seed": 9},
}


@dataclass(frozen=True)
class Case:
    """A section of the stages: what it starts from, and another value of each of its keys.

    Keys that only change together stand together; ``row``: its row in the table of keys.
    """

    path: tuple[str, ...]
    model: type[BaseModel]
    row: str
    base: dict[str, Any]
    changes: dict[str, dict[str, Any]]


CASES = {
    "stages.verb": Case(
        ("verb",),
        ClipStageConfig,
        "`verb`, `noun`",
        {"size_px": None},
        {
            **WEIGHTS,
            "network": {"network": {"name": "resnet3d", "depth": 10, "width": 8}},
            "clip": {"clip": {"frames": 8, "stride": 2, "rate_fps": 30}},
            "geometry": {"geometry": "published"},
            "size_px": {"size_px": 64},
            "outputs": {"outputs": ["map", "pooled"]},
            "dtype": {"dtype": "float32"},
            "precision": {"precision": "bfloat16"},
            "compile": {"compile": True},
            "batch_size": {"batch_size": 3},
        },
    ),
    "stages.verb.flow": Case(
        ("verb", "flow"),
        FlowConfig,
        "computed flow",
        {"method": "raft", "weights": "random", "weights_seed": 5},
        {
            **WEIGHTS,
            "method": {"method": "tvl1", "weights": None, "weights_seed": None},
            "bound_px": {"bound_px": 25},
            "span": {"span": 2},
            "short_side_px": {"short_side_px": 128},
            "precision": {"precision": "bfloat16"},
            "batch_size": {"batch_size": 3},
        },
    ),
    "stages.objects": Case(
        ("objects",),
        ObjectsConfig,
        "`objects`",
        {"detector": {"name": "faster_rcnn"}},
        {
            **WEIGHTS,
            "detector": {"detector": {"name": "faster_rcnn", "score_threshold": 0.5}},
            "boxes": {"boxes": None},
            "top_k": {"top_k": 4},
            "rate_fps": {"rate_fps": 4},
            "times": {"times": "centred"},
            "dtype": {"dtype": "float32"},
            "precision": {"precision": "bfloat16"},
            "compile": {"compile": True},
            "batch_size": {"batch_size": 3},
        },
    ),
    "stages.aligned": Case(
        ("aligned",),
        AlignedConfig,
        "`aligned`",
        {},
        {
            "global_window_seconds": {"global_window_seconds": 3},
            "local_window_seconds": {"local_window_seconds": 2},
            "map_time": {"map_time": "max"},
            "output_size": {"output_size": 3},
            "noun_roi": {"noun_roi": True},
            "dtype": {"dtype": "float32"},
        },
    ),
}
EACH = [(name, field) for name, case in CASES.items() for field in case.changes]

# Rows by stage: the stage's key, and the keys of the rows it wants.
Wanted = dict[str, tuple[str, set[str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment, and a file to be weights."""
    folder = tmp_path_factory.mktemp("experiment")
    make_experiment(folder)
    (folder / "weights.pth").write_bytes(b"weights")
    return folder


def wanted(folder: Path, case: Case, change: dict[str, Any]) -> Wanted:
    """What the small experiment wants, with the case's base and a change on top."""
    document = settings(folder)
    part = document["stages"]
    for name in case.path:
        part = part.setdefault(name, {})
    if case.model is FlowConfig:
        document["stages"]["verb"]["network"] = {"name": "i3d", "modality": "flow", "width": 4}
    part |= {**case.base, **change}
    if part.get("weights") == "weights.pth":
        part["weights"] = str(folder / "weights.pth")
    experiment = resolve(parse_config(yaml.safe_dump(document), source="small.yaml"))
    assert not experiment.missing_videos
    return {
        name: (stage.key, {row.key for row in stage.rows(experiment.table)})
        for name, stage in experiment.stages.items()
    }


def words(text: str) -> set[str]:
    """What stands in backticks, outside of parentheses."""
    return set(re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", text)))


def changes_of_the_readme() -> Iterator[tuple[str, set[str], set[str]]]:
    """(section, its keys, the stages that are made again) of each row; "" for no section."""
    for change, again in table_rows(section("README.md", "What is made again")):
        name, _, keys = change.partition(": ")
        known = name.strip("`") in CASES
        yield name.strip("`") if known else "", words(keys if known else change), words(again)


@pytest.mark.parametrize("name", CASES)
def test_no_key_of_a_section_is_left_out(name: str) -> None:
    case = CASES[name]
    # Flow is a section of its own here.
    assert set(case.changes) == set(case.model.model_fields) - {"flow"}


@pytest.mark.parametrize(("name", "field"), EACH)
def test_the_readme_says_what_a_changed_setting_makes_again(
    folder: Path, name: str, field: str
) -> None:
    if field == "method":
        pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")
    before = wanted(folder, CASES[name], {})
    after = wanted(folder, CASES[name], CASES[name].changes[field])
    again = {
        stage
        for stage, (key, rows) in after.items()
        if key != before[stage][0] or rows - before[stage][1]
    }
    rows = list(changes_of_the_readme())
    documented = [stages for where, keys, stages in rows if where == name and field in keys]
    if not again:
        documented += [stages for where, keys, stages in rows if not where and field in keys]
    assert documented == [again]


@pytest.mark.parametrize(("name", "field"), EACH)
def test_the_conventions_say_what_is_in_a_key(folder: Path, name: str, field: str) -> None:
    if field == "method":
        pytest.importorskip("cv2", reason="pip install opencv-contrib-python-headless")
    case = CASES[name]
    before, after = (wanted(folder, case, c)[case.path[0]] for c in ({}, case.changes[field]))
    table = dict(table_rows(section("docs/conventions.md", "Keys")))
    assert (field in words(table[case.row])) == (before[0] != after[0])
