"""What the commands about saved scores do: call, then show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.config import ExperimentConfig
from pipeline.datasets import load_dataset
from pipeline.fusion import fuse_runs
from pipeline.head_console import print_measured
from pipeline.head_runs import Evaluated
from pipeline.submission import Supervision, challenge_of, write_submission
from pipeline.submission_check import check_submission

__all__ = ["check_file", "fuse_heads", "submit_scores"]


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


def submit_scores(
    folder: Path,
    out: Path | None,
    console: Console,
    *,
    splits: Sequence[str],
    levels: tuple[int | None, int | None, int | None],
) -> None:
    """Write a submission and say where it is.

    Args:
        levels: of pre-training, training labels and training data; all or none.
    """
    given = [level for level in levels if level is not None]
    if len(given) not in (0, len(levels)):
        raise ValueError("got some of --sls-pt, --sls-tl and --sls-td, expected all three or none")
    path = out or folder / "submission.zip"
    supervision = Supervision(*given) if given else None
    written = write_submission(folder, path, splits=splits, supervision=supervision)
    console.print(f"submission of {', '.join(written)}: {path}", markup=False)


def check_file(
    file: Path, config: ExperimentConfig, console: Console, *, split: str | None
) -> None:
    """Check a submission and show its figures."""
    dataset = load_dataset(config.data)
    found = check_submission(file, dataset, split=split)
    for one in found:
        actions = "with actions" if one.has_actions else "without actions"
        console.print(f"{one.name}: valid, {one.num_segments:,} segments, {actions}", markup=False)
        if one.measured is None:
            console.print(f"split {one.split} has no labels: nothing to measure", markup=False)
        else:
            evaluated = Evaluated(one.split, one.measured, one.num_segments)
            print_measured(console, one.name, evaluated)
    wanted = set(challenge_of(dataset).members.values())
    names = {one.name for one in found}
    if split is None and file.suffix == ".zip" and names & wanted and wanted - names:
        missing = ", ".join(sorted(wanted - names))
        console.print(f"the challenge wants {missing} in the zip as well", markup=False)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(one) for one in text.split(",")]
    except ValueError as error:
        raise ValueError(f"got --weights {text}, expected numbers such as 0.6,0.4") from error
