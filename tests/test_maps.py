"""The maps at the top of the packages name every module, and none that is not there."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", ["extractors", "heads", "pipeline", "stores"])
def test_every_module_is_on_the_map(package: str) -> None:
    folder = ROOT / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False) or ""
    rooms = text.partition("Where to look:")[2]
    columns = [re.split(r"  +", line.strip())[-1] for line in rooms.splitlines() if line.strip()]
    words = re.findall(r"[a-z][a-z0-9_]*\*?", re.sub(r"\([^)]*\)", "", " ".join(columns)))
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    lost = {name for name in modules if not any(fnmatch(name, word) for word in words)}
    gone = {word for word in words if not any(fnmatch(name, word) for name in modules)}
    assert (lost, gone) == (set(), set())
