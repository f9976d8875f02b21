"""The command line as tests use it: called in this process, on a small experiment in a file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from experiment_fixtures import make_experiment, settings

from cli import main

__all__ = [
    "ALL_ROWS",
    "FINETUNE",
    "Outcome",
    "by_stage",
    "planned",
    "symbio",
    "table_rows",
    "write_experiment",
]

# Rows of the small experiment: two views of two training segments, one of two others, and the
# half-second grid from 0 to 2 s of two videos.
ALL_ROWS = {"verb": 6, "noun": 6, "objects": 10, "aligned": 6}

_CLIPS = {
    "weights": "random",
    "weights_seed": 0,
    "epochs": 3,
    "batch_size": 2,
    "learning_rate": 0.01,
    "crop_px": 32,
    "scale_range_px": [32, 36],
    "test_resize_px": 32,
    "cached_views": 1,
    "workers": 0,
}
FINETUNE: dict[str, Any] = {
    "verb": _CLIPS,
    "noun": _CLIPS,
    "objects": {
        "weights": "random",
        "weights_seed": 0,
        "epochs": 3,
        "batch_size": 2,
        "frames_per_video": 3,
    },
}


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


def symbio(*arguments: str | Path) -> Outcome:
    """Run a command; an error that would show as a traceback is raised here."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="symbio")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        command = shlex.join(str(argument) for argument in arguments)
        raise AssertionError(f"symbio {command}: traceback") from result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def write_experiment(folder: Path) -> Path:
    """The small experiment, its videos and its file; returns the file."""
    make_experiment(folder)
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**settings(folder), "finetune": FINETUNE}, sort_keys=False))
    return file


def planned(config: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """What `symbio plan --json` prints, which ends with that exit code."""
    done = symbio("plan", config, *options, "--json")
    assert (done.code, done.err) == (code, "")
    found: dict[str, Any] = json.loads(done.out)
    assert found["exit_code"] == code
    return found


def by_stage(document: dict[str, Any], name: str) -> dict[str, Any]:
    """One entry of each stage of such a document."""
    return {stage["stage"]: stage[name] for stage in document["stages"]}


def table_rows(text: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Rows of the table with these columns, by stage, each as {column: cell}."""
    found: dict[str, dict[str, str]] = {}
    names: list[str] = []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if set(columns) <= set(cells):
            names = cells
        elif cells == [""]:
            names = []
        elif names and cells[0] in ALL_ROWS:
            found[cells[0]] = dict(zip(names, cells, strict=False))
    return found
