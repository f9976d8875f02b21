"""docs/sweeps.md is true: its keys, its commands, its example and its list of files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT, blocks, section, table_rows
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from test_docs import command_lines, parsed
from test_docs_reference import documented, plain

from pipeline.sweep_file import SweepFile, SweepRow, parse_sweep
from pipeline.sweep_plan import plan_sweep

PAGE = "docs/sweeps.md"


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def default(info: FieldInfo) -> Any:
    return ... if info.is_required() else plain(info.get_default(call_default_factory=True))


def defaults(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": default(info) for name, info in model.model_fields.items()}


def test_every_key_of_a_sweep_file_is_documented_with_its_default() -> None:
    expected = defaults(SweepFile, "") | defaults(SweepRow, "rows.")
    del expected["rows"]
    assert documented(section(PAGE, "A sweep file")) == expected


def test_the_example_is_a_sweep(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    sweep = plan_sweep(path)
    assert set(SweepFile.model_fields) - {"title"} == set(
        parse_sweep(text, source="x").model_fields_set
    )
    assert [row.label for row in sweep.rows] == ["RGB", "RGB, no gating", "flow", "both"]
    assert len(sweep.runs) == 6


def test_the_commands_are_sweeps() -> None:
    lines = [line for code in blocks(PAGE, "sh") for line in command_lines(code)]
    assert len(lines) == 5
    for arguments in lines:
        name, options = parsed(arguments)
        assert name == "sweep", shlex.join(arguments)
        chosen = {key: options[key] for key in ("overrides", "grids", "seeds", "name")}
        assert plan_sweep(options["config"], **chosen).runs


def test_the_tables_are_listed() -> None:
    listed = {row[0].strip("`") for row in table_rows(section(PAGE, "The papers' tables"))}
    assert listed == {path.name for path in (ROOT / "configs" / "tables").iterdir()}
