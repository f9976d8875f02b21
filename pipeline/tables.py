"""Tables that fit the terminal: columns that can be spared give way, figures are never cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["FittingTable", "table"]

# A last column of words may be broken into lines of this length.
MIN_WORDS_WIDTH = 24


class FittingTable:
    """A table that is laid out when the width is known.

    Where it does not fit, columns in ``spare`` are left out, the first of them first; then headings
    are broken at their spaces, and a last column of words into lines.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[tuple[str, str]],
        rows: Sequence[Sequence[Text]],
        spare: Sequence[str],
    ) -> None:
        self._title = title
        self._columns = columns
        self._rows = rows
        self._spare = spare

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, then the first layout that fits, or the narrowest."""
        if self._title:
            yield Text(self._title, style="table.title")
        wide = options.update(width=10_000)
        for made in self._layouts():
            if Measurement.get(console, wide, made).minimum <= options.max_width:
                break
        yield made
        yield Text()

    def _layouts(self) -> Iterator[Table]:
        for count in range(len(self._spare) + 1):
            yield self._lay_out(self._spare[:count], tall=False)
        yield self._lay_out(self._spare, tall=True)

    def _lay_out(self, hidden: Collection[str], *, tall: bool) -> Table:
        made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        shown = [i for i, (name, _) in enumerate(self._columns) if name not in hidden]
        for i in shown:
            name, justify = self._columns[i]
            heading = Text(name.replace(" ", "\n") if tall else name)
            width = max(_width(cell) for cell in (heading, *(row[i] for row in self._rows)))
            of_words = i == shown[-1] and justify == "left"
            made.add_column(
                heading,
                justify="right" if justify == "right" else "left",
                no_wrap=not of_words,
                min_width=min(width, MIN_WORDS_WIDTH) if of_words else width,
            )
        for row in self._rows:
            made.add_row(*(row[i] for i in shown))
        return made


def _width(text: Text) -> int:
    return max((line.cell_len for line in text.split()), default=0)


def table(
    title: str,
    columns: Mapping[str, str] | Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Any]],
    *,
    spare: Sequence[str] = (),
) -> FittingTable:
    """A table whose columns are named and justified ("left" or "right").

    Args:
        spare: columns to do without where there is no room for all, the first of them first.
    """
    named = list(columns.items() if isinstance(columns, Mapping) else columns)
    cells = [[v if isinstance(v, Text) else Text(str(v)) for v in row] for row in rows]
    return FittingTable(title, named, cells, spare)
