"""What `symbio report` does: read runs, write one page, say where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.report import render_run
from pipeline.report_run import read_run
from pipeline.runs import evaluation_folder
from stores.durable import replace_file

__all__ = ["report_runs"]

REPORT_NAME = "report.html"


def report_runs(
    folders: Sequence[Path],
    console: Console,
    *,
    split: str | None,
    segment_ids: Sequence[str],
    out: Path | None,
) -> Path:
    """Write the report of a run; says where it lies.

    Args:
        segment_ids: to show with their frames; by default some right and some wrong ones.
        out: by default ``report.html`` beside the scores.

    Raises:
        RunFolderError: not a run folder, or not evaluated yet.
    """
    run = read_run(folders[0], split)
    path = out or evaluation_folder(run.folder, run.config, run.split) / REPORT_NAME
    page = render_run(run, segment_ids).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page, durable=False)
    console.print(f"report: {path} ({len(page) / 1e6:.1f} MB)")
    return path
