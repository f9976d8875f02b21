"""Tables of sweeps against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import re
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.sweep import Outcome
from pipeline.sweep_commands import print_table
from pipeline.sweep_plan import PlannedRow, Sweep
from pipeline.sweep_table import (
    failure_lines,
    official_measures,
    shown_table,
    summarize,
    write_tables,
)

MEASURES = ("verb_top1", "noun_top1")


def make_sweep(folder: Path, seeds: tuple[int, ...] = (5, 3, 4)) -> Sweep:
    rows = (
        PlannedRow("SA w/o CSG", {}, (), (), (), {"verb_top1": 57.0}),
        PlannedRow("a|b", {}, (), (), (), {}),
        PlannedRow("nothing", {}, (), (), (), {"noun_top1": 23.8}),
    )
    return Sweep("t", "Table 3.1", folder, seeds, MEASURES, rows)


def outcome(label: str, seed: int, verb: float, noun: float, error: str = "") -> Outcome:
    metrics = {"verb_top1": verb, "noun_top1": noun, "num_segments": 5281, "tail_verb_top1": verb}
    return Outcome(label, seed, Path(f"{label}-{seed}"), {} if error else metrics, error)


# As they may end: not in the order of the seeds.
OUTCOMES = [
    outcome("a|b", 4, 0.25, 0.125),
    outcome("SA w/o CSG", 3, 0.6, 0.2),
    outcome("SA w/o CSG", 5, 0.5, 0.25),
    outcome("SA w/o CSG", 4, 0.7, 0.4),
    outcome("a|b", 5, 0.0, 0.0, error="got NaN\nin epoch 3"),
    outcome("a|b", 3, 0.75, 0.125),
]


def test_means_and_sample_deviations(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    table = shown_table(sweep, summarize(sweep, OUTCOMES), MEASURES)
    assert table.title == "Table 3.1, 5,281 segments, percent, mean ± std of 3 seeds"
    assert table.columns == ["", "verb top-1", "paper", "noun top-1", "paper", "seeds"]
    # 50, 60, 70: deviations -10, 0, 10, over 2. 25, 20, 40: mean 28.33; -3.33, -8.33, 11.67.
    # 75, 25: deviations 25 and -25, over 1: 35.36.
    assert table.rows == [
        ["SA w/o CSG", "60.0 ± 10.0", "57.0", "28.3 ± 10.4", "–", "3 of 3"],
        ["a|b", "50.0 ± 35.4", "–", "12.5 ± 0.0", "–", "2 of 3"],
        ["nothing", "–", "–", "–", "23.8", "0 of 3"],
    ]


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=(3,))
    table = shown_table(sweep, summarize(sweep, OUTCOMES), ["noun_top1"])
    assert table.title == "Table 3.1, 5,281 segments, percent"
    assert table.columns == ["", "noun top-1", "paper", "seeds"]
    assert [row[1] for row in table.rows] == ["20.0", "12.5", "–"]


def test_seeds_are_counted_only_where_some_are_missing(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=(3, 4))
    done = [found for found in summarize(sweep, OUTCOMES) if found.label != "nothing"]
    assert "seeds" not in shown_table(sweep, done, MEASURES).columns


def test_segments_are_named_only_where_all_runs_have_as_many(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    fewer = Outcome("nothing", 3, Path("n"), {"verb_top1": 0.5, "num_segments": 9})
    summaries = summarize(sweep, [*OUTCOMES, fewer])
    table = shown_table(sweep, summaries, MEASURES)
    assert table.title == "Table 3.1, percent, mean ± std of 3 seeds"


def test_figures_of_the_data_sets_own_evaluation(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    summaries = summarize(sweep, OUTCOMES)
    assert official_measures(summaries) == ["tail_verb_top1"]
    table = shown_table(sweep, summaries, ["tail_verb_top1"])
    assert table.columns[1] == "tail verb top-1"
    assert table.rows[0][1] == "60.0 ± 10.0"


def test_runs_that_failed_alike_are_one_line() -> None:
    outcomes = [
        outcome("a", 0, 0, 0, error="no rows"),
        outcome("a", 1, 0.5, 0.5),
        outcome("b", 0, 0, 0, error="NaN"),
        outcome("b", 1, 0, 0, error="no rows"),
        outcome("c", 0, 0, 0, error="no rows"),
    ]
    assert failure_lines(outcomes) == [
        "failed: a, seed 0, and 2 more: no rows",
        "failed: b, seed 0: NaN",
    ]


def test_files(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "new" / "sweep")
    write_tables(sweep, OUTCOMES, MEASURES)
    assert (sweep.folder / "table.md").read_text().splitlines() == [
        "Table 3.1, 5,281 segments, percent, mean ± std of 3 seeds",
        "",
        "|  | verb top-1 | paper | noun top-1 | paper | seeds |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| SA w/o CSG | 60.0 ± 10.0 | 57.0 | 28.3 ± 10.4 | – | 3 of 3 |",
        r"| a\|b | 50.0 ± 35.4 | – | 12.5 ± 0.0 | – | 2 of 3 |",
        "| nothing | – | – | – | 23.8 | 0 of 3 |",
        "",
        "- failed: a|b, seed 5: got NaN in epoch 3",
    ]
    with (sweep.folder / "table.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert list(first) == [
        *("row", "seeds", "verb_top1_mean", "verb_top1_std", "verb_top1_paper"),
        *("noun_top1_mean", "noun_top1_std", "noun_top1_paper"),
    ]
    assert (first["row"], first["seeds"]) == ("SA w/o CSG", "3")
    assert float(first["noun_top1_mean"]) == pytest.approx(0.85 / 3, rel=1e-15)
    # The squares of -1/30, -5/60 and 7/60 add up to 13/600.
    assert float(first["noun_top1_std"]) == pytest.approx((13 / 1200) ** 0.5, rel=1e-14)
    assert float(first["verb_top1_paper"]) == 0.57
    assert second["verb_top1_paper"] == ""
    assert third["verb_top1_mean"] == third["verb_top1_std"] == ""
    with (sweep.folder / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(run["row"], run["seed"], run["verb_top1"]) for run in runs] == [
        ("SA w/o CSG", "5", "0.5"),
        ("SA w/o CSG", "3", "0.6"),
        ("SA w/o CSG", "4", "0.7"),
        ("a|b", "5", ""),
        ("a|b", "3", "0.75"),
        ("a|b", "4", "0.25"),
    ]
    assert runs[3]["error"] == "got NaN\nin epoch 3"
    assert runs[0]["folder"] == "SA w/o CSG-5"


@pytest.mark.parametrize("width", [40, 55, 200])
def test_a_wide_table_is_printed_in_parts_and_nothing_is_cut(tmp_path: Path, width: int) -> None:
    sweep = make_sweep(tmp_path)
    table = shown_table(sweep, summarize(sweep, OUTCOMES), MEASURES)
    console = Console(width=width, file=io.StringIO())
    print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    for label, *values in table.rows:
        parts = [line[1:] for line in cells if line[0] == label]
        assert [value for part in parts for value in part] == values
        assert (len(parts) == 1) == (width == 200)
    assert max(len(line) for line in lines[1:]) <= width
    heads = [re.split(r"\s{2,}", line.strip()) for line in lines[1:] if "top-1" in line]
    pairs = [pair for head in heads for pair in pairwise(head) if "top-1" in pair[0]]
    assert pairs == [("verb top-1", "paper"), ("noun top-1", "paper")]


def test_an_only_seed_has_an_empty_deviation(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=(3,))
    write_tables(sweep, OUTCOMES, MEASURES)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verb_top1_std"] for row in rows] == ["", "", ""]
    assert [row["verb_top1_mean"] for row in rows] == ["0.6", "0.75", ""]
