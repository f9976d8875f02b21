"""The pages of the documentation, taken apart: what the tests of the documentation share."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["CONFIGS", "PAGES", "ROOT", "blocks", "prose", "section", "table_rows", "text_of"]

ROOT = Path(__file__).parent.parent
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.M | re.S)


def prose(page: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(page), re.M | re.S)
    assert found, heading
    return found[1]


def table_rows(text: str) -> list[list[str]]:
    """The body rows of the tables in a text, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads_and_rules = {i for i, row in enumerate(rows) if set("".join(row)) <= set("-")}
    heads_and_rules |= {i - 1 for i in heads_and_rules}
    return [row for i, row in enumerate(rows) if i not in heads_and_rules]
