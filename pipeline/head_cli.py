"""`symbio finetune`, `train`, `evaluate`, `report`: the command line of their `*_commands`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli_support import (
    EXIT_INCOMPLETE,
    config_options,
    errors,
    load,
    make_console,
    quiet_option,
)

__all__ = ["HEAD_COMMANDS"]


@click.command()
@config_options
@click.option(
    "--net", type=click.Choice(["verb", "noun", "objects"]), required=True, help="Which network."
)
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Where it goes.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch.")
@quiet_option
def finetune(
    config: Path,
    overrides: tuple[str, ...],
    net: str,
    run_folder: Path | None,
    resume: bool,
    quiet: bool,
) -> None:
    """Train VerbNet, NounNet or the 2-D network behind given boxes (stage one).

    Example: symbio finetune configs/epic55_saoa_r50.yaml --net verb
    """
    with errors():
        from pipeline.head_commands import finetune_network

        settings = load(config, overrides)
        finetune_network(settings, net, run_folder, make_console(), resume=resume, quiet=quiet)


@click.command()
@config_options
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Where it goes.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch.")
@click.option(
    "--from-epoch",
    type=click.IntRange(min=1),
    help="With --resume: go back to this epoch first, which train.keep_every kept.",
)
@click.option("--skip-missing", is_flag=True, help="Train on the segments that have features.")
@quiet_option
def train(
    config: Path,
    overrides: tuple[str, ...],
    run_folder: Path | None,
    resume: bool,
    from_epoch: int | None,
    skip_missing: bool,
    quiet: bool,
) -> None:
    """Train a head from stored features into a run folder.

    Example: symbio train configs/epic55_saoa_r50.yaml --set head.name=pooled --set train.seed=1
    """
    if from_epoch is not None and not resume:
        raise click.UsageError("--from-epoch goes with --resume")
    with errors():
        from pipeline.head_commands import train_head

        train_head(
            load(config, overrides),
            run_folder,
            make_console(),
            resume=resume,
            from_epoch=from_epoch,
            skip_missing=skip_missing,
            quiet=quiet,
        )


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--split", metavar="SPLIT", help="Default: the config's.")
@click.option("--views", type=click.IntRange(1), help="Clips per segment; default: views.test.")
@click.option("--skip-missing", is_flag=True, help="Leave out segments without features.")
def evaluate(run_folder: Path, split: str | None, views: int | None, skip_missing: bool) -> None:
    """Score a trained head: top-1 and top-5 of verb, noun and action.

    Another number of --views than the run's goes into RUN/SPLIT-Nviews, which fuse takes as a run.
    Its features have to be there: symbio run CONFIG --set views.test=N makes them.

    Example: symbio evaluate runs/epic55-saoa-seed0 --split val
    """
    with errors():
        from pipeline.head_commands import evaluate_head

        evaluate_head(run_folder, split, make_console(), views=views, skip_missing=skip_missing)


@click.command()
@config_options
@click.option(
    "--grid",
    "grids",
    multiple=True,
    metavar="KEY.PATH=VALUE,VALUE",
    help="Values of one setting, as between the brackets of a YAML list. Several multiply.",
)
@click.option(
    "--seeds", metavar="SEED,SEED", help="Values of train.seed; default: 0,1,2 or the file's."
)
@click.option("--name", help="Of the sweep's folder; default: the config's name with -sweep.")
@click.option("--official", is_flag=True, help="Show the figures of the data set's own evaluation.")
@click.option("--skip-missing", is_flag=True, help="Train on the segments that have features.")
@quiet_option
def sweep(
    config: Path,
    overrides: tuple[str, ...],
    grids: tuple[str, ...],
    seeds: str | None,
    name: str | None,
    official: bool,
    skip_missing: bool,
    quiet: bool,
) -> None:
    """Train many heads on one copy of the stored features and compare them in one table.

    CONFIG is an experiment file with --grid, or a sweep file such as those in configs/tables. The
    same command goes on where it was interrupted. Exit code 1: a run failed.

    Example: symbio sweep configs/epic55_saoa_r50.yaml --grid head.name=saoa,sap --seeds 0,1,2
    """
    with errors():
        from pipeline.sweep_commands import sweep_heads

        complete = sweep_heads(
            config,
            make_console(),
            overrides=overrides,
            grids=grids,
            seeds=seeds,
            name=name,
            official=official,
            skip_missing=skip_missing,
            quiet=quiet,
        )
    if not complete:
        sys.exit(EXIT_INCOMPLETE)


@click.command()
@click.argument(
    "run_folders", metavar="RUN", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--split", metavar="SPLIT", help="Whose evaluation. Default: the config's.")
@click.option(
    "--segment",
    "segment_ids",
    metavar="ID",
    multiple=True,
    help="Show this segment's frames. May be given several times. Default: some right, some wrong.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. Default: report.html in the run folder; comparison.html for several.",
)
def report(
    run_folders: tuple[Path, ...],
    split: str | None,
    segment_ids: tuple[str, ...],
    out: Path | None,
) -> None:
    """Write an evaluated run, or the comparison of several, as one HTML file.

    Example: symbio report runs/epic55-saoa-seed0
    """
    with errors():
        from pipeline.report_commands import report_runs

        report_runs(run_folders, make_console(), split=split, segment_ids=segment_ids, out=out)


@click.command()
@click.argument(
    "run_folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--weights", metavar="W,W", help="One per run, such as 0.6,0.4. Default: equal.")
@click.option("--split", metavar="SPLIT", help="Whose scores. Default: the configs'.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
def fuse(run_folders: tuple[Path, ...], weights: str | None, split: str | None, out: Path) -> None:
    """Average the scores of runs over the same segments: two-stream, ensembles.

    The new folder is one that fuse, submit and report take as a run.

    Example: symbio fuse runs/rgb runs/flow --out runs/two-stream
    """
    with errors():
        from pipeline.score_commands import fuse_heads

        fuse_heads(run_folders, out, make_console(), weights=weights, split=split)


LEVEL = click.IntRange(0, 5)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--split", "splits", metavar="SPLIT", multiple=True, help="Default: all test splits.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .zip, or .json for one split. Default: submission.zip in the run folder.",
)
@click.option("--sls-pt", type=LEVEL, help="EPIC-100: level of pre-training supervision.")
@click.option("--sls-tl", type=LEVEL, help="EPIC-100: level of training labels.")
@click.option("--sls-td", type=LEVEL, help="EPIC-100: level of training data.")
def submit(
    run_folder: Path,
    splits: tuple[str, ...],
    out: Path | None,
    sls_pt: int | None,
    sls_tl: int | None,
    sls_td: int | None,
) -> None:
    """Write the scores of a run, or a fusion, as an EPIC-KITCHENS challenge wants them.

    Example: symbio submit runs/epic55-saoa-seed0 --split test_s1 --split test_s2
    """
    with errors():
        from pipeline.score_commands import submit_scores

        submit_scores(
            run_folder, out, make_console(), splits=splits, levels=(sls_pt, sls_tl, sls_td)
        )


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@config_options
@click.option("--split", metavar="SPLIT", help="Which it is of. Default: its name says.")
def check_submission(
    file: Path, config: Path, overrides: tuple[str, ...], split: str | None
) -> None:
    """Check a challenge submission, and measure it where labels are there.

    Example: symbio check-submission submission.zip configs/epic55_saoa_r50.yaml
    """
    with errors():
        from pipeline.score_commands import check_file

        check_file(file, load(config, overrides), make_console(), split=split)


HEAD_COMMANDS = (finetune, train, evaluate, sweep, report, fuse, submit, check_submission)
