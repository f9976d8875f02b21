"""What `symbio report` does: read runs, write a page, say where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.console import format_nbytes
from pipeline.errors import RunFolderError
from pipeline.report import render_run
from pipeline.report_comparison import render_comparison
from pipeline.report_run import ReportedRun, read_run
from pipeline.runs import evaluation_folder
from stores.durable import replace_file

__all__ = ["report_runs"]

REPORT_NAME, COMPARISON_NAME = "report.html", "comparison.html"


def report_runs(
    folders: Sequence[Path],
    console: Console,
    *,
    split: str | None,
    segment_ids: Sequence[str],
    out: Path | None,
) -> Path:
    """Write the report of a run, or the comparison of several; says where it lies.

    Args:
        segment_ids: to show with their frames; by default some right and some wrong ones.
        out: by default ``report.html`` beside the scores of a run, and ``comparison.html`` here.

    Raises:
        RunFolderError: not a run folder, not evaluated yet, or runs that cannot be compared.
    """
    if segment_ids and len(folders) > 1:
        raise RunFolderError(
            f"got --segment with {len(folders)} runs, expected it with one; a comparison chooses "
            "the segments on which the runs disagree"
        )
    runs = [read_run(folder, split) for folder in folders]
    if len(runs) == 1:
        page, path = render_run(runs[0], segment_ids), _report_path(runs[0])
    else:
        page, path = render_comparison(runs), Path(COMPARISON_NAME)
    path = out or path
    content = page.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content, durable=False)
    console.print(f"report: {path} ({format_nbytes(len(content))})")
    return path


def _report_path(run: ReportedRun) -> Path:
    return evaluation_folder(run.folder, run.config, run.split) / REPORT_NAME
