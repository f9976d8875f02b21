"""What a sweep will train, found out and checked before anything is trained."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from heads.registry import list_heads
from pipeline.config import ExperimentConfig
from pipeline.config_file import dump_config, load_config, read_config
from pipeline.errors import ConfigError
from pipeline.head_check import check_head_name
from pipeline.sweep_file import SWEEP_NAME, Measure, is_sweep_file, parse_sweep
from pipeline.sweep_grid import grid_rows, parse_seeds
from pipeline.train_settings import train_settings

__all__ = ["MEASURES", "PlannedRow", "Sweep", "SweepRun", "experiments", "plan_grid", "plan_sweep"]

MEASURES: tuple[Measure, ...] = tuple(name for name in get_args(Measure) if "top" in name)
DEFAULT_SEEDS = (0, 1, 2)
MAX_FOLDER_NAME = 80


@dataclass(frozen=True)
class SweepRun:
    """One training: a row's settings with one seed, and its run folder."""

    label: str
    seed: int
    config: ExperimentConfig
    folder: Path


@dataclass(frozen=True)
class PlannedRow:
    """One row of the table. It has runs, one per seed, or ``fuse`` or ``mean`` rows that have.

    ``folders``: by seed, of the runs or of the fusions.
    """

    label: str
    folders: Mapping[int, Path]
    runs: tuple[SweepRun, ...]
    fuse: tuple[str, ...]
    mean: tuple[str, ...]
    paper: Mapping[Measure, float]


@dataclass(frozen=True)
class Sweep:
    """All of it. ``folder`` holds the run folders and the tables."""

    name: str
    title: str
    folder: Path
    seeds: tuple[int, ...]
    measures: tuple[Measure, ...]
    rows: tuple[PlannedRow, ...]

    @property
    def runs(self) -> list[SweepRun]:
        """Every training, row by row."""
        return [run for row in self.rows for run in row.runs]


def plan_sweep(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    grids: Sequence[str] = (),
    seeds: str | None = None,
    name: str | None = None,
) -> Sweep:
    """A sweep over a grid of an experiment file's settings, or over the rows of a sweep file.

    Args:
        path: of either file.
        overrides: `--set`, for all rows.
        grids: `--grid`, for an experiment file.
        seeds: `--seeds`; by default the sweep file's, or 0, 1, 2.
        name: of the sweep; by default the sweep file's, or the experiment's with ``-sweep``.

    Raises:
        ConfigError: files, values or heads that are not valid, or rows that are the same.
    """
    text = read_config(path)
    chosen = None if seeds is None else parse_seeds(seeds)
    if not is_sweep_file(text):
        return plan_grid(path, overrides, grids, chosen or DEFAULT_SEEDS, name=name)
    if grids:
        raise ConfigError(
            f"--grid {grids[0]}: {path} is a sweep file, whose rows say what to train"
        )
    file = parse_sweep(text, source=str(path))
    base = load_config(file.base, (*file.set, *overrides))
    rows = []
    for row in file.rows:
        settings = () if row.parts else (*file.set, *row.set, *overrides)
        path = row.config or file.base
        rows.append(_Row(row.label, path, settings, row.fuse, row.mean, row.paper))
    return _sweep(
        name or file.name,
        file.title,
        base.runs,
        chosen or file.seeds,
        file.measures,
        rows,
    )


def experiments(path: Path) -> list[ExperimentConfig]:
    """The experiments that a file stands for: one, or those of a sweep file's rows, each once.

    Raises:
        ConfigError: the file is not valid.
    """
    if not is_sweep_file(read_config(path)):
        return [load_config(path)]
    rows = [row.runs[0].config for row in plan_sweep(path).rows if row.runs]
    return list({dump_config(config): config for config in rows}.values())


def plan_grid(
    path: Path,
    overrides: Sequence[str],
    grids: Sequence[str],
    seeds: Sequence[int],
    *,
    name: str | None = None,
) -> Sweep:
    """A sweep over every combination of some settings' values; see `plan_sweep`."""
    base = load_config(path, overrides)
    if not grids:
        raise ConfigError(
            f"{path}: got an experiment file and no --grid, expected what to vary, such as "
            f"--grid head.name={','.join(list_heads()[:2])}"
        )
    rows = [_Row(row.label, path, (*overrides, *row.overrides)) for row in grid_rows(grids)]
    return _sweep(name or f"{base.name}-sweep", "", base.runs, tuple(seeds), MEASURES, rows)


@dataclass(frozen=True)
class _Row:
    label: str
    config: Path
    overrides: tuple[str, ...]
    fuse: tuple[str, ...] = ()
    mean: tuple[str, ...] = ()
    paper: Mapping[Measure, float] | None = None


def _sweep(
    name: str,
    title: str,
    runs: Path,
    seeds: tuple[int, ...],
    measures: tuple[Measure, ...],
    rows: Sequence[_Row],
) -> Sweep:
    if not re.fullmatch(SWEEP_NAME, name):
        raise ConfigError(f"--name: got {name!r}, expected letters, digits, '.', '_' and '-'")
    folder = runs / name
    same_settings: dict[str, str] = {}
    same_folder: dict[str, str] = {}
    planned = []
    for row in rows:
        place = _folder_name(row.label)
        other = same_folder.setdefault(place.casefold(), row.label)
        if other != row.label:
            raise ConfigError(f"rows {other!r} and {row.label!r} would share the folder {place}")
        folders = {seed: folder / f"{place}-seed{seed}" for seed in seeds}
        made: tuple[SweepRun, ...] = ()
        if not (row.fuse or row.mean):
            config = _config(row)
            other = same_settings.setdefault(dump_config(config), row.label)
            if other != row.label:
                raise ConfigError(f"rows {other!r} and {row.label!r} have the same settings")
            made = tuple(
                SweepRun(row.label, seed, _with_seed(config, seed), folders[seed]) for seed in seeds
            )
        paper = row.paper or {}
        planned.append(PlannedRow(row.label, folders, made, row.fuse, row.mean, paper))
    return Sweep(name, title or name, folder, seeds, measures, tuple(planned))


def _config(row: _Row) -> ExperimentConfig:
    """A row's experiment with seed 0, once its head is known to exist, and its schedule.

    Options that the head does not take are left to the run: other rows may well take them.
    """
    try:
        config = load_config(row.config, row.overrides)
        check_head_name(config)
        train_settings(config.train)
    except ConfigError as error:
        raise ConfigError(f"row {row.label!r}: {error}") from error
    return _with_seed(config, 0)


def _with_seed(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def _folder_name(label: str) -> str:
    """A label as the name of a folder; long ones are cut and told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9._=+-]+", "-", label).strip("-.") or "row"
    if len(plain) <= MAX_FOLDER_NAME:
        return plain
    return f"{plain[: MAX_FOLDER_NAME - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
