"""The papers' tables as sweep files: valid, complete in themselves, true to each other."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from heads.registry import head_class
from pipeline.config_data import EgteaData
from pipeline.sweep_plan import PlannedRow, Sweep, plan_sweep

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "configs" / "tables").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_is_a_sweep_of_heads_that_take_their_options(path: Path) -> None:
    sweep = plan_sweep(path)
    assert f"\n#   symbio sweep {path.relative_to(ROOT)}\n" in path.read_text()
    assert sweep.name == path.stem.replace("_", "-")
    assert sweep.seeds == (0, 1, 2)
    for run in sweep.runs:
        head = run.config.head
        assert set(head.options) <= set(inspect.signature(head_class(head.name)).parameters)
    papers = path.stem != "egtea_splits"  # the papers report no SAOA there
    for row in sweep.rows:
        assert set(row.paper) == (set(sweep.measures) if papers else set())


def test_every_table_has_its_file() -> None:
    thesis = {f"thesis_3_{number}" for number in (1, 2, 3, 4, 5)}
    assert {path.stem for path in TABLES} == thesis | {"challenge_1", "egtea_splits"}


def test_the_splits_of_egtea_are_averaged_and_share_no_weights() -> None:
    *splits, mean = plan_sweep(ROOT / "configs/tables/egtea_splits.yaml", seeds="0").rows
    configs = [row.runs[0].config for row in splits]
    numbers = [config.data.split for config in configs if isinstance(config.data, EgteaData)]
    assert numbers == [1, 2, 3]
    for network in ("verb", "noun"):
        assert len({getattr(config.stages, network).weights for config in configs}) == 3
    assert mean.mean == tuple(row.label for row in splits)


def test_ablations_are_told_apart_by_their_heads() -> None:
    heads = [
        run.config.head.name
        for run in plan_sweep(ROOT / "configs/tables/thesis_3_1.yaml", seeds="0").runs
    ]
    assert heads == [
        "pooled",
        "saoa_no_csg",
        "saoa_no_gating",
        "saoa_no_cross_stream",
        "saoa_no_arm",
        "saoa",
    ]


def test_the_same_model_has_the_same_numbers_in_every_table() -> None:
    """The papers print SAOA, SAP and the baselines more than once."""
    found: dict[tuple[str, str, str], dict[float, list[str]]] = {}
    for path in TABLES:
        sweep = plan_sweep(path, seeds="0")
        for row in sweep.rows:
            model = _model(sweep, row)
            for measure, percent in row.paper.items():
                numbers = found.setdefault((*model, measure), {})
                numbers.setdefault(percent, []).append(f"{path.stem}: {row.label}")
    assert {key: numbers for key, numbers in found.items() if len(numbers) > 1} == {}
    repeated = [next(iter(n.values())) for n in found.values() if len(next(iter(n.values()))) > 1]
    assert len(repeated) >= 20


def _model(sweep: Sweep, row: PlannedRow) -> tuple[str, str]:
    """What a row stands for: experiments and heads, those of all rows that it fuses."""
    runs = [run for run in sweep.runs if run.label in (row.fuse or (row.label,))]
    names = sorted((run.config.name, run.config.head.name) for run in runs)
    return str([name for name, _ in names]), str([head for _, head in names])
