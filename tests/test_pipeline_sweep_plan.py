"""Sweeps before anything is trained: grids, seeds, sweep files, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_fixtures import settings

from pipeline.config_file import load_config
from pipeline.errors import ConfigError
from pipeline.sweep_grid import grid_rows, parse_seeds
from pipeline.sweep_plan import plan_sweep


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An experiment file; nothing that it names is there."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path)))
    return path


def write_sweep(config: Path, rows: list[dict[str, Any]], **others: Any) -> Path:
    """A sweep file beside an experiment file, one key a line."""
    path = config.parent / "table.yaml"
    keys = {"name": "table", "base": str(config), **others, "rows": rows}
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(path, **options)
    return str(caught.value)


# Grids


def test_a_grid_is_every_combination_and_the_last_key_varies_fastest() -> None:
    rows = grid_rows(["head.name=saoa,pooled", "train.learning_rate=1e-3,0.1"])
    assert [row.label for row in rows] == [
        "saoa, train.learning_rate=0.001",
        "saoa, train.learning_rate=0.1",
        "pooled, train.learning_rate=0.001",
        "pooled, train.learning_rate=0.1",
    ]
    assert rows[1].overrides == ('head.name="saoa"', "train.learning_rate=0.1")


def test_values_may_be_lists_and_sections() -> None:
    rows = grid_rows(["train.decay_epochs=[], [5, 8]", "head={name: saoa, l2_rescale: true}"])
    assert [row.label for row in rows] == [
        "train.decay_epochs=[], head={l2_rescale: true, name: saoa}",
        "train.decay_epochs=[5, 8], head={l2_rescale: true, name: saoa}",
    ]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["head.name"], "--grid head.name: expected key.path=value,value"),
        (["=saoa"], "--grid =saoa: expected key.path=value,value"),
        (["head.name="], "--grid head.name=: got an empty value, expected"),
        (["head.name=saoa,"], "--grid head.name=saoa,: got an empty value, expected"),
        (["head.name=saoa,,pooled"], "--grid head.name=saoa,,pooled: not valid YAML"),
        (["head.name=[saoa"], "--grid head.name=[saoa: not valid YAML"),
        (["train.epochs=2,3,2"], "--grid train.epochs=2,3,2: got 2 twice"),
        (["train.momentum=0.001,1e-3"], "--grid train.momentum=0.001,1e-3: got 0.001 twice"),
        (["train.seed=0,1"], "--grid train.seed=0,1: give seeds as --seeds"),
        (["head.name=saoa", "head.name=pooled"], "--grid head.name: got head.name as well"),
        (["head={name: saoa}", "head.l2_rescale=true"], "--grid head.l2_rescale: got head as well"),
    ],
)  # fmt: skip
def test_a_bad_grid_is_named(grids: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        grid_rows(grids)
    assert str(caught.value).startswith(message)


def test_keys_with_a_common_beginning_do_not_overwrite_each_other() -> None:
    assert len(grid_rows(["train.decay_epochs=[1]", "train.decay=1,2"])) == 2


def test_seeds() -> None:
    assert parse_seeds("0") == (0,)
    assert parse_seeds("2, 0,11") == (2, 0, 11)


@pytest.mark.parametrize("text", ["", "a", "0,1.5", "0,,1", "-1", "0,1,0"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="expected whole numbers from 0 up that differ"):
        parse_seeds(text)


# Plans


def test_a_plan_of_a_grid(config: Path, tmp_path: Path) -> None:
    sweep = plan_sweep(
        config, overrides=["train.epochs=3"], grids=["head.name=saoa,pooled"], seeds="4,1"
    )
    assert (sweep.name, sweep.seeds) == ("small-sweep", (4, 1))
    assert sweep.folder == tmp_path / "runs" / "small-sweep"
    assert [(run.label, run.seed, run.folder.name) for run in sweep.runs] == [
        ("saoa", 4, "saoa-seed4"),
        ("saoa", 1, "saoa-seed1"),
        ("pooled", 4, "pooled-seed4"),
        ("pooled", 1, "pooled-seed1"),
    ]
    for run in sweep.runs:
        same = load_config(
            config, ["train.epochs=3", f"head.name={run.label}", f"train.seed={run.seed}"]
        )
        assert run.config == same


def test_three_seeds_by_default(config: Path) -> None:
    assert plan_sweep(config, grids=["head.name=saoa"]).seeds == (0, 1, 2)


def test_a_plan_of_a_sweep_file(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**settings(tmp_path), "name": "other"}))
    path = write_sweep(
        config,
        [
            {"label": "SA w/o CSG", "set": ["head.name=pooled", "train.epochs=4"]},
            {"label": "another", "config": str(other), "paper": {"verb_top1": 57}},
            {"label": "both", "fuse": ["another", "SA w/o CSG"]},
        ],
        set=["train.epochs=5", "train.momentum=0.5"],
        seeds=[7],
        measures=["noun_top1"],
    )
    sweep = plan_sweep(path, overrides=["train.batch_size=9"])
    assert (sweep.name, sweep.seeds, sweep.measures) == ("table", (7,), ("noun_top1",))
    first, second = sweep.runs
    assert first.folder == tmp_path / "runs" / "table" / "SA-w-o-CSG-seed7"
    assert (first.config.head.name, second.config.head.name) == ("pooled", "saoa")
    assert (first.config.name, second.config.name) == ("small", "other")
    for run, epochs in ((first, 4), (second, 5)):
        train = run.config.train
        assert (train.epochs, train.momentum, train.batch_size) == (epochs, 0.5, 9)
    assert [row.fuse for row in sweep.rows] == [(), (), ("another", "SA w/o CSG")]
    assert sweep.rows[1].paper == {"verb_top1": 57.0}
    renamed = plan_sweep(path, seeds="0", name="mine")
    assert [run.folder.name for run in renamed.runs] == ["SA-w-o-CSG-seed0", "another-seed0"]
    assert renamed.folder == tmp_path / "runs" / "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no --grid, expected what to vary, such as --grid head.name="),
        ({"grids": ["train.epoch=1"]}, "row 'train.epoch=1': --set: train.epoch: unknown key"),
        ({"grids": ["train.epochs=1,0"]}, "row 'train.epochs=0': --set: train.epochs: got 0;"),
        ({"grids": ["train.decay_epochs=[1],[7]"]}, "row 'train.decay_epochs=[7]': train: got "
         "decay_epochs=(7,), expected"),
        ({"grids": ["head.name=saoa,sapp"]}, "row 'sapp': head.name: got 'sapp', expected one of"),
        ({"grids": ["train.momentum=0,0.0"]},
         "rows 'train.momentum=0' and 'train.momentum=0.0' have the same settings"),
        ({"grids": ["store.path=a b,a/b"]},
         "rows 'store.path=a b' and 'store.path=a/b' would share the folder store.path=a-b"),
        ({"grids": ["head.name=saoa"], "name": "../up"}, "--name: got '../up', expected letters"),
        ({"grids": ["head.name=saoa"], "seeds": "x"}, "--seeds: got 'x'"),
        ({"grids": ["head.name=saoa"], "overrides": ["train.epochs=0"]}, "--set: train.epochs"),
    ],
)  # fmt: skip
def test_a_bad_plan_is_found_before_training(
    config: Path, options: dict[str, Any], message: str
) -> None:
    assert message in error_of(config, **options)


def test_folders_of_long_labels_differ(config: Path) -> None:
    values = ["x" * 120 + end for end in "ab"]
    runs = plan_sweep(config, grids=[f"store.path={','.join(values)}"], seeds="0").runs
    assert len({run.folder for run in runs}) == 2
    assert max(len(run.folder.name) for run in runs) < 100


# Sweep files


def sweep_errors(config: Path, rows: list[dict[str, Any]], **others: Any) -> list[str]:
    path = write_sweep(config, rows, **others)
    return error_of(path).replace(str(path), "table.yaml").splitlines()


ROW: dict[str, Any] = {"label": "one"}


@pytest.mark.parametrize(
    ("rows", "others", "message"),
    [
        ([ROW, {"label": "two", "sett": []}], {},
         "table.yaml:6: rows.1.sett: unknown key; allowed here: config, fuse, label, mean, paper, "
         "set; did you mean set?"),
        ([{"set": []}], {}, "table.yaml:4: rows.0.label: this key is required and absent"),
        ([ROW], {"titel": "x"},
         "table.yaml:3: titel: unknown key; allowed here: base, measures, name, rows, seeds, set, "
         "title; did you mean title?"),
        ([], {}, "table.yaml: (the whole file): got no rows; expected one or more"),
        ([ROW], {"seeds": [0, -1]},
         "table.yaml:3: seeds: got -1; expected greater than or equal to 0"),
        ([ROW, ROW], {}, "table.yaml: (the whole file): got the label 'one' twice; each must "
         "differ"),
        ([ROW], {"seeds": [1, 1]}, "table.yaml: (the whole file): got the seed 1 twice; each must "
         "differ"),
        ([ROW, {"label": "f", "fuse": ["one", "two"]}], {},
         "table.yaml: (the whole file): row 'f' is made of 'two', which is no row that is trained"),
        ([ROW, {"label": "f", "fuse": ["one"]}], {},
         "table.yaml:5: rows.1: got fuse with one row; expected two or more"),
        ([ROW, {"label": "f", "fuse": ["one", "one"]}], {},
         "table.yaml:5: rows.1: got the row in fuse 'one' twice; each must differ"),
        ([ROW, {"label": "f", "fuse": ["one", "two"], "set": ["a=1"]}], {},
         "table.yaml:5: rows.1: got fuse with config or set; such a row trains nothing itself"),
        ([ROW, {"label": "m", "mean": ["one", "two"]}], {},
         "table.yaml: (the whole file): row 'm' is made of 'two', which is no row that is trained"),
        ([ROW, {"label": "m", "fuse": ["one", "two"], "mean": ["one", "two"]}], {},
         "table.yaml:5: rows.1: got fuse and mean; expected one of them"),
    ],
)  # fmt: skip
def test_a_bad_sweep_file_is_named_with_its_line(
    config: Path, rows: list[dict[str, Any]], others: dict[str, Any], message: str
) -> None:
    assert sweep_errors(config, rows, **others) == [message]


def test_a_percentage_of_a_paper_is_one(config: Path) -> None:
    (message,) = sweep_errors(config, [{"label": "one", "paper": {"verb_top1": 101}}])
    assert message.startswith("table.yaml:5: rows.0.paper: got 101; expected less than")
    (message,) = sweep_errors(config, [{"label": "one", "paper": {"verb": 10}}])
    assert message.startswith("table.yaml:5: rows.0.paper: got 'verb'; expected 'verb_top1', ")


def test_a_sweep_file_takes_no_grid(config: Path) -> None:
    path = write_sweep(config, [ROW])
    assert "is a sweep file, whose rows say what to train" in error_of(path, grids=["a=1"])


def test_two_rows_that_are_the_same_are_refused(config: Path) -> None:
    path = write_sweep(config, [ROW, {"label": "two", "set": ["train.seed=3"]}])
    assert "rows 'one' and 'two' have the same settings" in error_of(path)
