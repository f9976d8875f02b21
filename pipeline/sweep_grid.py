"""`--grid key.path=values` and `--seeds`: what a sweep is asked for on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from pipeline.errors import ConfigError
from pipeline.yaml_file import YamlError, parse_yaml

__all__ = ["GridRow", "grid_rows", "parse_seeds"]

SEED_KEY = "train.seed"
HEAD_KEY = "head.name"


@dataclass(frozen=True)
class GridRow:
    """One combination: its label in tables, and overrides as `--set` takes them."""

    label: str
    overrides: tuple[str, ...]


def grid_rows(grids: Sequence[str]) -> list[GridRow]:
    """Every combination of the values of all grids; the last grid varies fastest.

    Args:
        grids: ``key.path=value,value``; what stands right of the first ``=`` is what could stand
            between the brackets of a YAML list.

    Raises:
        ConfigError: not of this form, no or equal values, a key twice or inside another.
    """
    axes = [_axis(grid) for grid in grids]
    for (one, _), (other, _) in combinations(axes, 2):
        if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
            raise ConfigError(
                f"--grid {other}: got {one} as well, expected keys that do not overwrite each "
                "other; put their values into one --grid"
            )
    choices = [[(key, value) for value in values] for key, values in axes]
    return [
        GridRow(
            ", ".join(_name(key, value) for key, value in chosen),
            tuple(f"{key}={_text(value)}" for key, value in chosen),
        )
        for chosen in product(*choices)
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` as numbers.

    Raises:
        ConfigError: not whole numbers from 0 up, or one twice.
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds: got {text!r}, expected whole numbers from 0 up that differ, e.g. 0,1,2"
        )
    return seeds


def _axis(grid: str) -> tuple[str, list[Any]]:
    """The key of one grid and its values."""
    key, separator, text = grid.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--grid {grid}: expected key.path=value,value")
    if key == SEED_KEY:
        raise ConfigError(f"--grid {grid}: give seeds as --seeds")
    try:
        values = parse_yaml(f"[{text}]")[0]
    except YamlError as error:
        raise ConfigError(f"--grid {grid}: {error}") from error
    if not values or text.rstrip().endswith(","):
        raise ConfigError(f"--grid {grid}: got an empty value, expected key.path=value,value")
    texts = [_text(value) for value in values]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ConfigError(f"--grid {grid}: got {twice[0]} twice, expected values that differ")
    return key, values


def _text(value: Any) -> str:
    """A value as YAML on one line."""
    return json.dumps(value, default=str, sort_keys=True)


def _name(key: str, value: Any) -> str:
    """A value as people read it; a head's name needs no key before it."""
    shown = value if isinstance(value, str) else _text(value).replace('"', "")
    return shown if key == HEAD_KEY else f"{key}={shown}"
