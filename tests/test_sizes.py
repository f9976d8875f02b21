"""Files and functions of the packages stay short enough to read in one go.

A function's body is counted from its first statement after the docstring to its last line, with
comments, blank lines and the functions inside it.
"""

from __future__ import annotations

import ast

import pytest
from test_layers import ROOT, sources

FILE_LINES = 300
BODY_LINES = 50


def too_long(path: str, source: str) -> list[str]:
    """What is over the limits in a file."""
    found = []
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        found.append(f"{path}: {lines} lines, at most {FILE_LINES}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _body_lines(node)
            if lines > BODY_LINES:
                found.append(f"{path}:{node.lineno}: {node.name}: {lines}, at most {BODY_LINES}")
    return found


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    has_docstring = ast.get_docstring(function) is not None
    before = function.body[0].end_lineno if has_docstring else function.body[0].lineno - 1
    assert before is not None
    assert function.end_lineno is not None
    return function.end_lineno - before


@pytest.mark.parametrize("path", sources())
def test_files_and_functions_are_short(path: str) -> None:
    assert too_long(path, (ROOT / path).read_text(encoding="utf-8")) == []


def function(body_lines: int, *, keyword: str = "def", docstring: str = "") -> str:
    body = "\n".join(["    pass"] * body_lines)
    return f"{keyword} f(\n    a,\n    b,\n):\n{docstring}{body}\n"


DOCSTRING = '    """Says.\n\n    Much.\n    """\n'


@pytest.mark.parametrize("keyword", ["def", "async def"])
@pytest.mark.parametrize("docstring", ["", DOCSTRING])
def test_the_limit_of_a_body_is_exact(keyword: str, docstring: str) -> None:
    longest = function(BODY_LINES, keyword=keyword, docstring=docstring)
    assert too_long("a.py", longest) == []
    over = function(BODY_LINES + 1, keyword=keyword, docstring=docstring)
    assert too_long("a.py", over) == ["a.py:1: f: 51, at most 50"]


def test_methods_and_functions_inside_functions_count() -> None:
    inside = function(BODY_LINES + 1).replace("\n", "\n    ").rstrip()
    found = too_long("a.py", f"class A:\n    {inside}\n")
    assert found == ["a.py:2: f: 51, at most 50"]
    found = too_long("a.py", f"def outer():\n    {inside}\n")
    assert [line.split(": ")[1] for line in found] == ["outer", "f"]


def test_the_limit_of_a_file_is_exact() -> None:
    assert too_long("a.py", "x = 1\n" * FILE_LINES) == []
    assert too_long("a.py", "x = 1\n" * (FILE_LINES + 1)) == ["a.py: 301 lines, at most 300"]
