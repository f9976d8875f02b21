"""Whole sweeps on a small store: rows read once, one run's end is not the others', resuming."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_fixtures import Outcome, symbio, write_experiment
from numpy.typing import NDArray
from test_cli_training import Interrupt

import pipeline.sweep
from heads.base import Head
from heads.registry import list_heads
from heads.scores import load_scores
from pipeline.head_rows import load_data, open_rows
from pipeline.stages import AlignedStage, ClipStage
from stores.base import FeatureReader

GRID = ("--grid", "head.name=saoa,pooled", "--seeds", "0,1")
FOLDERS = ["pooled-seed0", "pooled-seed1", "saoa-seed0", "saoa-seed1"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with everything extracted."""
    path = write_experiment(tmp_path_factory.mktemp("sweep"))
    assert symbio("run", path, "--quiet").code == 0
    return path


def sweep(config: Path, runs: Path, *options: str) -> Outcome:
    return symbio("sweep", config, "--set", f"runs={runs}", *options)


class CountingReader(FeatureReader):
    """Says what is read, and reads it."""

    def __init__(self, reader: FeatureReader, reads: list[list[str]]) -> None:
        self.reader, self.reads = reader, reads
        self.specs = reader.specs

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        self.reads.append(sorted(outputs or ()))
        return self.reader.read(keys, outputs, out)

    def missing(self, keys: Iterable[str]) -> list[str]:
        return self.reader.missing(keys)

    def keys(self) -> list[str]:
        return self.reader.keys()

    def __len__(self) -> int:
        return len(self.reader)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The outputs of each read of a sweep."""
    found: list[list[str]] = []

    @contextmanager
    def counted(experiment: Any) -> Iterator[FeatureReader]:
        with open_rows(experiment) as reader:
            yield CountingReader(reader, found)

    monkeypatch.setattr(pipeline.sweep, "open_rows", counted)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(done: Outcome) -> str:
    """The table and what follows, as printed."""
    return done.out[done.out.index("small-sweep, 2 segments, percent, mean ± std of 2 seeds") :]


def test_many_heads_train_on_one_copy_as_each_would_alone(
    config: Path, tmp_path: Path, reads: list[list[str]]
) -> None:
    done = sweep(config, tmp_path, *GRID)
    assert (done.code, done.err) == (0, "")
    union = ["noun_gap", "object_features", "object_mask", "verb_gap", "verb_roi"]
    assert reads == [union, union]  # training rows once, validation rows once, for four runs
    folder = tmp_path / "small-sweep"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == FOLDERS
    for head in ("saoa", "pooled"):
        alone = tmp_path / f"alone-{head}"
        options = ("--set", f"head.name={head}", "--set", "train.seed=1")
        symbio("train", config, "--set", f"runs={tmp_path}", *options, "--run", alone)
        for name in ("head.safetensors", "config.yaml", "metrics.json", "scores.npz"):
            assert (folder / f"{head}-seed1" / name).read_bytes() == (alone / name).read_bytes()
        again = ("--run", folder / f"{head}-seed1", "--resume")
        assert symbio("train", folder / f"{head}-seed1" / "config.yaml", *again).code == 0
    assert f"tables and run folders: {folder}" in done.out
    for line in ("1/4  saoa, seed 0: verb ", "4/4  pooled, seed 1: verb "):
        assert line in done.out


def test_a_second_call_trains_and_reads_nothing(
    config: Path, tmp_path: Path, reads: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep(config, tmp_path, *GRID)
    tables = {path: path.read_bytes() for path in (tmp_path / "small-sweep").glob("*.*")}
    reads.clear()
    monkeypatch.setattr(Head, "loss", lambda *arguments: pytest.fail("trained again"))
    again = sweep(config, tmp_path, *GRID)
    assert again.code == 0
    assert reads == []
    assert again.out.count("finished before") == 4
    assert table_of(again) == table_of(first)
    assert {path: path.read_bytes() for path in tables} == tables
    assert {path.name for path in tables} == {"table.md", "table.csv", "runs.csv"}


def test_more_seeds_and_values_train_what_is_new(config: Path, tmp_path: Path) -> None:
    sweep(config, tmp_path, "--grid", "head.name=pooled", "--seeds", "1")
    done = sweep(config, tmp_path, *GRID)
    assert done.code == 0
    assert done.out.count("finished before") == 1
    assert "1/4  pooled, seed 1: verb " in done.out


@pytest.mark.parametrize("at_call", [2, 3, 5])
def test_an_interrupted_sweep_goes_on_to_the_bit(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    sweep(config, whole, *GRID)
    with monkeypatch.context() as patch:
        patch.setattr(Head, "loss", Interrupt(Head.loss, at_call))
        done = sweep(config, half, *GRID)
    assert (done.code, done.err) == (130, "interrupted\n")
    losses = []
    with monkeypatch.context() as patch:
        loss = Head.loss
        patch.setattr(Head, "loss", lambda *all: losses.append(1) or loss(*all))
        done = sweep(config, half, *GRID)
    assert done.code == 0
    # Two runs with two epochs of one batch, each twice: what was finished is not done again.
    assert len(losses) == 8 - (at_call - 1)
    for folder in FOLDERS:
        for name in ("head.safetensors", "scores.npz"):
            one, other = (runs / "small-sweep" / folder / name for runs in (whole, half))
            assert one.read_bytes() == other.read_bytes()
    assert rows_of(whole / "small-sweep" / "table.csv") == rows_of(half / "small-sweep/table.csv")


def test_a_run_that_fails_is_reported_and_the_others_go_on(config: Path, tmp_path: Path) -> None:
    grid = "head={name: pooled, depth: 3},{name: pooled},{name: saoa}"
    options = ("--grid", grid, "--grid", "train.learning_rate=1e38,0.01", "--seeds", "0")
    options = (*options, "--name", "mixed")
    done = sweep(config, tmp_path, *options)
    assert done.code == 1
    rows = rows_of(tmp_path / "mixed" / "runs.csv")
    errors = {row["row"]: row["error"] for row in rows}
    assert len(errors) == 6
    for label, error in errors.items():
        if "depth" in label:
            assert "got option 'depth' for head 'pooled'" in error
        elif "e+38" in label:
            assert "NaN or infinite" in error
        else:
            assert error == ""
        assert (f"{label}, seed 0: failed, see below" in done.out) == bool(error)
        assert not error or f": {error}\n" in done.out
    good = [row for row in rows if not row["error"]]
    assert len(good) == 2
    assert all(0 <= float(row["verb_top1"]) <= 1 for row in good)
    assert [row["verb_top1"] for row in rows if row["error"]] == [""] * 4
    text = (tmp_path / "mixed" / "table.md").read_text()
    assert text.count("0 of 1") == 4
    assert text.count("- failed: ") == len({error for error in errors.values() if error})
    # Not finished: a second call tries them again and fails again, and touches no other.
    again = sweep(config, tmp_path, *options)
    assert again.code == 1
    assert again.out.count("finished before") == 2


def test_all_heads_train_on_one_copy(config: Path, tmp_path: Path, reads: list[list[str]]) -> None:
    """But one, whose input is not stored: it fails alone, and trains from whole maps."""
    grid = ("--grid", f"head.name={','.join(list_heads())}", "--seeds", "0", "--quiet")
    done = sweep(config, tmp_path, *grid)
    assert done.code == 1
    assert len(reads) == 2
    failed = [row["row"] for row in rows_of(tmp_path / "small-sweep" / "runs.csv") if row["error"]]
    assert failed == ["saoa_local_noun"]
    reads.clear()
    done = sweep(config, tmp_path, *grid, "--set", "train.features=maps", "--name", "maps")
    assert (done.code, done.err) == (0, "")
    assert len(reads) == 2
    assert {"noun_roi", "verb_roi"} <= set(reads[0])


def test_settings_that_share_no_rows_are_trained_apart(
    config: Path, tmp_path: Path, reads: list[list[str]]
) -> None:
    grid = ("--grid", "head.name=pooled", "--grid", "views.train=2,1")
    done = sweep(config, tmp_path, *grid, "--seeds", "0")
    assert done.code == 0
    assert reads == [["noun_gap", "verb_gap"]] * 4


def test_rows_that_are_missing_fail_the_runs_that_want_them(config: Path, tmp_path: Path) -> None:
    grid = ("--grid", "head.name=pooled", "--grid", "stages.verb.weights_seed=1,99")
    done = sweep(config, tmp_path, *grid, "--seeds", "0")
    assert done.code == 1
    first, second = rows_of(tmp_path / "small-sweep" / "runs.csv")
    assert first["error"] == ""
    assert "no aligned rows under key" in second["error"]


def test_what_stops_all_runs_stops_the_sweep(config: Path, tmp_path: Path) -> None:
    done = sweep(config, tmp_path, *GRID, "--set", "stages.verb.weights_seed=99")
    assert (done.code, done.err.count("no aligned rows under key")) == (2, 1)
    assert not (tmp_path / "small-sweep").exists()


def test_official_figures_that_are_not_there_are_said(config: Path, tmp_path: Path) -> None:
    done = sweep(config, tmp_path, "--grid", "head.name=pooled", "--seeds", "0", "--official")
    assert done.code == 0
    assert "this data set's evaluation has no other figures" in done.out


def test_folders_with_other_settings_stop_the_sweep_before_it_trains(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(config, tmp_path, *GRID)
    monkeypatch.setattr(Head, "loss", lambda *arguments: pytest.fail("trained"))
    done = sweep(config, tmp_path, *GRID, "--set", "train.momentum=0.5")
    assert done.code == 2
    assert "saoa-seed0: holds a run with other settings: train.momentum (0.9 then" in done.err
    assert "give the sweep another --name" in done.err


def test_more_epochs_go_on_from_the_last_one(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    sweep(config, tmp_path / "two", *grid)
    sweep(config, tmp_path / "three", *grid, "--set", "train.epochs=3")
    passes = []
    loss = Head.loss
    monkeypatch.setattr(Head, "loss", lambda *all: passes.append(1) or loss(*all))
    assert sweep(config, tmp_path / "two", *grid, "--set", "train.epochs=3").code == 0
    assert len(passes) == 1
    one, other = (
        (tmp_path / name / "small-sweep/pooled-seed0/scores.npz").read_bytes()
        for name in ("two", "three")
    )
    assert one == other


def test_numbers_of_other_features_are_not_shown_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    assert sweep(config, tmp_path, *grid).code == 0
    monkeypatch.setattr(ClipStage, "VERSION", ClipStage.VERSION + 1)
    done = sweep(config, tmp_path, *grid)
    assert done.code == 2
    assert "no aligned rows under key" in done.err


def test_half_a_run_does_not_go_on_with_other_features(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    with monkeypatch.context() as patch:
        patch.setattr(Head, "loss", Interrupt(Head.loss, 2))
        assert sweep(config, tmp_path, *grid).code == 130
    monkeypatch.setattr(AlignedStage, "VERSION", AlignedStage.VERSION + 1)
    assert symbio("run", config).code == 0
    done = sweep(config, tmp_path, *grid)
    assert done.code == 1
    assert "trained on other features: stage aligned has another key" in done.out


@pytest.mark.parametrize("name", ["metrics.json", "last.safetensors", "head.safetensors"])
def test_a_run_with_a_file_that_is_not_whole_is_not_finished(
    config: Path, tmp_path: Path, name: str
) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    assert sweep(config, tmp_path, *grid).code == 0
    path = tmp_path / "small-sweep" / "pooled-seed0" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = sweep(config, tmp_path, *grid)
    assert "finished before" not in done.out
    if name == "metrics.json":
        assert done.code == 0
        assert path.read_bytes() == whole
    else:  # a training that cannot go on says so
        assert done.code == 1


def test_an_evaluation_by_hand_of_half_a_run_does_not_finish_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    folder = tmp_path / "small-sweep" / "pooled-seed0"
    with monkeypatch.context() as patch:
        patch.setattr(Head, "loss", Interrupt(Head.loss, 2))
        assert sweep(config, tmp_path, *grid).code == 130
    assert symbio("evaluate", folder).code == 0
    assert "finished before" not in sweep(config, tmp_path, *grid).out


def test_an_evaluation_of_another_epoch_is_made_anew(config: Path, tmp_path: Path) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    assert sweep(config, tmp_path, *grid).code == 0
    path = tmp_path / "small-sweep" / "pooled-seed0" / "metrics.json"
    whole = json.loads(path.read_text())
    other = json.loads(path.read_text())
    other["details"]["checkpoint"]["epoch"] += 1
    path.write_text(json.dumps(other))
    done = sweep(config, tmp_path, *grid)
    assert done.code == 0
    assert "finished before" not in done.out
    assert json.loads(path.read_text()) == whole


def test_figures_of_the_data_sets_own_evaluation_on_request(config: Path, tmp_path: Path) -> None:
    grid = ("--grid", "head.name=pooled", "--seeds", "0")
    assert sweep(config, tmp_path, *grid).code == 0
    path = tmp_path / "small-sweep" / "pooled-seed0" / "metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "official": {"mean_class_accuracy": 0.25}}))
    assert "mean class accuracy" not in sweep(config, tmp_path, *grid).out
    assert "mean class accuracy" in sweep(config, tmp_path, *grid, "--official").out
    (row,) = rows_of(tmp_path / "small-sweep" / "runs.csv")
    assert row["mean_class_accuracy"] == "0.25"


def test_segments_without_features_are_left_out_on_request(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def load(*arguments: Any, skip_missing: bool, **others: Any) -> Any:
        asked.append(skip_missing)
        return load_data(*arguments, skip_missing=skip_missing, **others)

    monkeypatch.setattr(pipeline.sweep, "load_data", load)
    for name, options in (("a", ()), ("b", ("--skip-missing",))):
        sweep(config, tmp_path, "--grid", "head.name=pooled", "--name", name, *options)
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("split", "message"), [("train", ""), ("test", "split 'test' has no segments to measure")]
)
def test_the_split_that_is_measured_is_the_configs(
    config: Path, tmp_path: Path, split: str, message: str
) -> None:
    done = sweep(config, tmp_path, "--grid", "head.name=pooled", "--seeds", "0",
                 "--set", f"evaluate.split={split}")  # fmt: skip
    (row,) = rows_of(tmp_path / "small-sweep" / "runs.csv")
    assert (done.code == 0) == (message == "")
    assert message in row["error"]
    if not message:
        details = json.loads((Path(row["folder"]) / "metrics.json").read_text())["details"]
        assert details["split"] == "train"


def test_a_quiet_sweep_prints_its_table(config: Path, tmp_path: Path) -> None:
    done = sweep(config, tmp_path, *GRID, "--quiet")
    assert "seed 0:" not in done.out
    means = rows_of(tmp_path / "small-sweep" / "table.csv")
    for row in means:
        shown = [f"{100 * float(row[f'{name}_top1_mean']):.1f}" for name in ("verb", "noun")]
        (line,) = [line for line in done.out.splitlines() if line.startswith(f"{row['row']} ")]
        assert all(f" {value} ± " in line for value in shown)
    runs = rows_of(tmp_path / "small-sweep" / "runs.csv")
    by_hand = [float(row["verb_top1"]) for row in runs if row["row"] == "saoa"]
    assert float(means[0]["verb_top1_mean"]) == np.mean(by_hand)
    assert float(means[0]["verb_top1_std"]) == pytest.approx(np.std(by_hand, ddof=1))


# Sweep files


def write_table(config: Path, tmp_path: Path, rows: list[dict[str, Any]], **others: Any) -> Path:
    path = tmp_path / "table.yaml"
    keys = {"name": "table", "base": str(config), "seeds": [0, 1], **others, "rows": rows}
    path.write_text(yaml.safe_dump(keys))
    return path


ROWS: list[dict[str, Any]] = [
    {"label": "Baseline", "set": ["head.name=pooled"], "paper": {"verb_top1": 54.6}},
    {"label": "SA", "paper": {"verb_top1": 57.7}},
    {"label": "both", "fuse": ["SA", "Baseline"]},
]


def test_a_fused_row_is_the_mean_of_the_scores_seed_by_seed(config: Path, tmp_path: Path) -> None:
    path = write_table(config, tmp_path, ROWS, title="Table 3.1")
    done = sweep(path, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "6/6  both, seed 1: verb " in done.out
    assert "verb top-1  paper" in done.out
    folder = tmp_path / "table"
    for row in rows_of(folder / "runs.csv")[4:]:
        assert row["row"] == "both"
        assert Path(row["folder"]) == folder / f"both-seed{row['seed']}"
        one, other = (
            load_scores(folder / f"{label}-seed{row['seed']}" / "scores.npz")
            for label in ("SA", "Baseline")
        )
        assert one.segment_ids == other.segment_ids
        best = (one.verb_scores + other.verb_scores).argmax(axis=1)
        assert float(row["verb_top1"]) == np.mean(best == one.verb_labels)
        fused = load_scores(Path(row["folder"]) / "scores.npz")
        expected = (one.noun_scores + other.noun_scores) / 2
        np.testing.assert_allclose(fused.noun_scores, expected, rtol=1e-12)
    assert sweep(path, tmp_path).out.count("finished before") == 4


def test_a_mean_row_is_the_mean_of_the_figures_seed_by_seed(config: Path, tmp_path: Path) -> None:
    path = write_table(config, tmp_path, [*ROWS[:2], {"label": "all", "mean": ["SA", "Baseline"]}])
    done = sweep(path, tmp_path)
    assert (done.code, done.err) == (0, "")
    rows = rows_of(tmp_path / "table" / "runs.csv")
    figures = {(row["row"], row["seed"]): float(row["noun_top1"]) for row in rows}
    for seed in ("0", "1"):
        both = figures["SA", seed] + figures["Baseline", seed]
        assert figures["all", seed] == pytest.approx(both / 2, rel=1e-12)
    assert not (tmp_path / "table" / "all-seed0").exists()


def test_a_fused_row_of_a_row_that_failed_fails(config: Path, tmp_path: Path) -> None:
    broken = {**ROWS[0], "set": ["head={name: pooled, depth: 3}"]}
    path = write_table(config, tmp_path, [broken, *ROWS[1:]], seeds=[0])
    assert sweep(path, tmp_path).code == 1
    errors = [row["error"] for row in rows_of(tmp_path / "table" / "runs.csv")]
    assert errors[1:] == ["", "nothing to average: Baseline failed"]
    assert "got option 'depth'" in errors[0]
