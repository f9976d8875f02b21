"""Sweep files: the rows of one table, each an experiment file with other settings.

Guess where the papers are silent: they train each row once; here each is trained with several
seeds, and fused rows fuse runs of the same seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pipeline.config_base import Natural, Section
from pipeline.config_file import parse_sections
from pipeline.yaml_file import YamlError, parse_yaml

__all__ = ["SWEEP_NAME", "Measure", "SweepFile", "SweepRow", "is_sweep_file", "parse_sweep"]

Measure = Literal[
    "verb_top1",
    "verb_top5",
    "noun_top1",
    "noun_top5",
    "action_top1",
    "action_top5",
    "mean_class_accuracy",
    "verb_mean_class_accuracy",
    "noun_mean_class_accuracy",
]
SWEEP_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Label = Annotated[str, Field(min_length=1, max_length=100)]
Percent = Annotated[float, Strict(), Field(ge=0, le=100)]


class SweepRow(Section):
    """A row is trained, once per seed, or made of rows that are.

    ``config``: another experiment file than the sweep's. ``set``: as `--set`. ``fuse``: rows whose
    scores are averaged. ``mean``: rows whose figures are, for splits of other segments. ``paper``:
    what a paper reports for this row, in percent.
    """

    label: Label
    config: Path | None = None
    set: tuple[str, ...] = ()
    fuse: tuple[Label, ...] = ()
    mean: tuple[Label, ...] = ()
    paper: dict[Measure, Percent] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _trained_or_made_of_others(self) -> Self:
        for name, labels in (("fuse", self.fuse), ("mean", self.mean)):
            if labels and (self.config or self.set):
                raise ValueError(f"got {name} with config or set; such a row trains nothing itself")
            if len(labels) == 1:
                raise ValueError(f"got {name} with one row; expected two or more")
            _check_differ(f"row in {name}", labels)
        if self.fuse and self.mean:
            raise ValueError("got fuse and mean; expected one of them")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Labels of the rows that this one is made of; none if it is trained."""
        return (*self.fuse, *self.mean)


class SweepFile(Section):
    """One table. ``set``: for all rows, before their own. ``measures``: its columns."""

    name: Annotated[str, Field(pattern=SWEEP_NAME)]
    title: str = ""
    base: Path
    set: tuple[str, ...] = ()
    seeds: tuple[Natural, ...] = (0, 1, 2)
    measures: tuple[Measure, ...] = ("verb_top1", "noun_top1", "action_top1")
    rows: tuple[SweepRow, ...]

    @model_validator(mode="after")
    def _labels_and_seeds_differ(self) -> Self:
        for name in ("seeds", "measures", "rows"):
            if not getattr(self, name):
                raise ValueError(f"got no {name}; expected one or more")
        _check_differ("label", [row.label for row in self.rows])
        _check_differ("seed", self.seeds)
        trained = {row.label for row in self.rows if not row.parts}
        for row in self.rows:
            if unknown := [label for label in row.parts if label not in trained]:
                raise ValueError(
                    f"row {row.label!r} is made of {unknown[0]!r}, which is no row that is trained"
                )
        return self


def _check_differ(what: str, values: Sequence[object]) -> None:
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"got the {what} {twice[0]!r} twice; each must differ")


def parse_sweep(text: str, *, source: str) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        ConfigError: names the file, the line, the key, what was got and what is allowed.
    """
    return parse_sections(text, source=source, model=SweepFile)


def is_sweep_file(text: str) -> bool:
    """True for what is meant as a sweep file: an experiment file has neither rows nor base."""
    try:
        settings: Any = parse_yaml(text)[0]
    except YamlError:
        return False
    return isinstance(settings, dict) and not settings.keys().isdisjoint({"rows", "base"})
