"""The `symbio` command. Commands are thin: they read options, call the pipeline, print."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from pipeline.cli_support import errors, make_console
from pipeline.head_cli import HEAD_COMMANDS
from pipeline.run_cli import RUN_COMMANDS
from pipeline.store_cli import store


def _version() -> str:
    try:
        return version("symbio")
    except PackageNotFoundError:
        return "not installed"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="symbio")
def main() -> None:
    """Turn egocentric videos into cached features once; train light heads on them at will.

    A first look: symbio demo. An experiment of your own: symbio plan CONFIG, symbio run CONFIG,
    symbio train CONFIG, symbio evaluate RUN.

    Exit codes: 0 all is there; 1 finished, but rows failed or are missing; 2 could not start;
    130 interrupted, with everything finished kept.
    """


@main.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where everything goes.",
)
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of the heads.")
def demo(folder: Path, seeds: str) -> None:
    """Render a toy kitchen and run the whole system on it, in under ten minutes.

    Example: symbio demo --folder /tmp/demo
    """
    with errors():
        from pipeline.demo import run_demo

        run_demo(folder, seeds=seeds, console=make_console())


for command in (*RUN_COMMANDS, *HEAD_COMMANDS, store):
    main.add_command(command)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    Example: eval "$(symbio completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(main, {}, "symbio", "_SYMBIO_COMPLETE").source())


if __name__ == "__main__":
    main(prog_name="symbio")
