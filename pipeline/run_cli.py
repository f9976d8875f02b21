"""Extraction on the command line: `symbio plan`, `run`, `status`, `explain` and the like."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli_support import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    config_options,
    errors,
    load,
    make_console,
    quiet_option,
    set_option,
)

__all__ = ["RUN_COMMANDS"]

STAGES = ("verb", "noun", "objects", "aligned")

stage_option = click.option(
    "--stage", "stages", multiple=True, type=click.Choice(STAGES), help="Only these stages."
)
class_option = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Only rows that failed so, e.g. decode_error. May be given several times.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@config_options
@click.option("--rehash", is_flag=True, help="Hash every video again, whatever its times say.")
@click.option(
    "--measure",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=32,
    metavar="[ROWS]",
    help="Make so many rows of each stage (32) and forget them, to know the hours a run takes.",
)
@json_option
def plan(
    config: Path, overrides: tuple[str, ...], rehash: bool, measure: int | None, as_json: bool
) -> None:
    """Show what `run` would do: rows, bytes and hours per stage, and all that would stop it.

    Makes no row, and keeps but what planning learnt (known.json). The exit code says how `run`
    would fare: 2, it would not start; 1, it would leave out rows that failed before or whose videos
    are missing.

    Example: symbio plan configs/epic55_saoa_r50.yaml --measure
    """
    with errors():
        from pipeline.plan_commands import show_plan

        code = show_plan(
            load(config, overrides),
            make_console(),
            rehash=rehash,
            measure=measure,
            as_json=as_json,
        )
    sys.exit(code)


@click.command()
@config_options
@stage_option
@click.option("--retry-failed", is_flag=True, help="Try rows again that failed before.")
@class_option
@click.option("--rehash", is_flag=True, help="Hash every video again, whatever its times say.")
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was done, what failed and where the time went as JSON.",
)
@quiet_option
def run(
    config: Path,
    overrides: tuple[str, ...],
    stages: tuple[str, ...],
    retry_failed: bool,
    classes: tuple[str, ...],
    rehash: bool,
    report_path: Path | None,
    quiet: bool,
) -> None:
    """Make every row that is missing. Ctrl-C loses nothing that is finished.

    Example: symbio run configs/epic55_saoa_r50.yaml --stage verb --stage noun
    """
    if classes and not retry_failed:
        raise click.UsageError("--class goes with --retry-failed")
    with errors():
        from pipeline.commands import run_stages
        from pipeline.reproduce import ConfigSource

        report = run_stages(
            load(config, overrides),
            make_console(),
            stages=stages,
            retry_failed=classes or retry_failed,
            source=ConfigSource(config, overrides),
            rehash=rehash,
            quiet=quiet,
            report_path=report_path,
        )
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if not (report.complete or report.handed_over):
        sys.exit(EXIT_INCOMPLETE)


@click.command()
@click.argument("config", metavar="CONFIG|RUN", type=click.Path(path_type=Path))
@set_option
@click.option("--watch", is_flag=True, help="Keep showing it, every two seconds, until Ctrl-C.")
def status(config: Path, overrides: tuple[str, ...], watch: bool) -> None:
    """Show what is stored for an experiment, what failed and why, and who works on it now.

    Given the folder of a training instead: how far it is, its last and best epoch, the time left;
    also while it goes on.

    Example: symbio status configs/epic55_saoa_r50.yaml --watch
    """
    with errors():
        if config.is_dir():
            from pipeline.head_commands import show_run_status

            if overrides or watch:
                raise click.UsageError(f"{config} is a folder; --set and --watch go with a config")
            show_run_status(config, make_console())
            return
        from pipeline.status_commands import show_status, watch_status

        show = watch_status if watch else show_status
        show(load(config, overrides), make_console())


@click.command()
@config_options
@stage_option
@class_option
@json_option
def failures(
    config: Path,
    overrides: tuple[str, ...],
    stages: tuple[str, ...],
    classes: tuple[str, ...],
    as_json: bool,
) -> None:
    """List every row that could not be made, why, and the command that shows it again.

    Example: symbio failures configs/epic55_saoa_r50.yaml --class decode_error
    """
    with errors():
        from pipeline.failure_commands import show_failures
        from pipeline.reproduce import ConfigSource

        show_failures(
            load(config, overrides),
            ConfigSource(config, overrides),
            make_console(),
            stages=stages or STAGES,
            classes=classes,
            as_json=as_json,
        )


@click.command()
@config_options
def merge(config: Path, overrides: tuple[str, ...]) -> None:
    """Take in what jobs on a cluster have made so far; safe at any time, also while they run.

    Jobs that are over are removed. What they did not make is made by the next `symbio run`.

    Example: symbio merge configs/epic55_saoa_r50.yaml
    """
    with errors():
        from pipeline.merge_commands import show_merge

        all_went_well = show_merge(load(config, overrides), make_console())
    if not all_went_well:
        sys.exit(EXIT_INCOMPLETE)


@click.command()
@config_options
@click.option("--stage", required=True, type=click.Choice(STAGES), help="Which stage.")
@click.option("--clip", "clip_id", help="One row, by its name: video/segment/view, or video@1.5s.")
@click.option(
    "--try", "try_it", is_flag=True, help="With --clip: make that row now, and store nothing."
)
@json_option
def explain(
    config: Path,
    overrides: tuple[str, ...],
    stage: str,
    clip_id: str | None,
    try_it: bool,
    as_json: bool,
) -> None:
    """Say why rows are missing: which setting, video or label changed, or which error there was.

    Example: symbio explain configs/epic55_saoa_r50.yaml --stage verb
    """
    if try_it and clip_id is None:
        raise click.UsageError("--try goes with --clip")
    with errors():
        from pipeline import explain_commands
        from pipeline.reproduce import ConfigSource

        experiment, console = load(config, overrides), make_console()
        source = ConfigSource(config, overrides)
        if clip_id is None:
            explain_commands.explain(experiment, source, console, stage, as_json=as_json)
            return
        made = explain_commands.explain_row(
            experiment, source, console, stage, clip_id, try_it=try_it, as_json=as_json
        )
    if not made:
        sys.exit(EXIT_INCOMPLETE)


RUN_COMMANDS = (plan, run, status, explain, failures, merge)
