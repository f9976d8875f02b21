"""What all commands share: options, the console, errors in words. Loads only click."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import ExperimentConfig

__all__ = [
    "EXIT_CANNOT",
    "EXIT_INCOMPLETE",
    "EXIT_INTERRUPTED",
    "config_options",
    "errors",
    "load",
    "make_console",
    "quiet_option",
    "set_option",
]

F = TypeVar("F", bound=Callable[..., Any])

EXIT_INCOMPLETE, EXIT_CANNOT, EXIT_INTERRUPTED = 1, 2, 130
WIDTH_WITHOUT_TERMINAL = 140

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print results and errors only.")


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override one setting, e.g. --set train.epochs=30. May be given several times.",
)


def config_options(command: F) -> F:
    """Argument CONFIG and option --set."""
    path = click.Path(dir_okay=False, path_type=Path)
    return click.argument("config", metavar="CONFIG", type=path)(set_option(command))


def load(config: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    """The experiment in a file, with overrides."""
    from pipeline.config_file import load_config

    return load_config(config, overrides)


def make_console() -> Console:
    """Where results are printed."""
    from rich.console import Console

    # Files and pipes have no width of their own; a table in them should not be cut.
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, soft_wrap=True, width=width)


@contextmanager
def errors() -> Iterator[None]:
    """Errors that a person can mend become one message; SYMBIO_DEBUG=1 shows the traceback."""
    from pipeline.errors import MENDABLE, in_words

    try:
        yield
    except MENDABLE as error:
        if os.environ.get("SYMBIO_DEBUG"):
            raise
        click.echo(f"Error: {in_words(error)}", err=True)
        sys.exit(EXIT_CANNOT)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
