"""What the commands about saved scores do: call, then show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.fusion import fuse_runs
from pipeline.head_console import print_measured

__all__ = ["fuse_heads"]


def fuse_heads(
    folders: Sequence[Path],
    out: Path,
    console: Console,
    *,
    weights: str | None,
    split: str | None,
) -> None:
    """Fuse runs and show how good they are together.

    Args:
        weights: numbers between commas; None for equal ones.
    """
    found = fuse_runs(folders, out, weights=_numbers(weights), split=split)
    print_measured(console, str(out), found)
    console.print(f"fused {len(folders)} runs: {out}", markup=False)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(one) for one in text.split(",")]
    except ValueError as error:
        raise ValueError(f"got --weights {text}, expected numbers such as 0.6,0.4") from error
