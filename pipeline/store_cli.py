"""`symbio store …`: the command line of `pipeline.store_commands`, `store_copies`, `store_info`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli_support import EXIT_INCOMPLETE, errors, make_console

__all__ = ["store"]

_PATH = click.Path(path_type=Path)
_path = click.argument("path", metavar="PATH", type=_PATH)


@click.group()
def store() -> None:
    """Look at feature stores, keep them in order, and take rows out of them.

    Example: symbio store info features/epic55
    """


@store.command()
@_path
@click.option("--stage", help="Only this stage, with the settings that produced its rows.")
def info(path: Path, stage: str | None) -> None:
    """Show what a store holds: stages, keys, rows, outputs, bytes.

    Example: symbio store info features/epic55 --stage verb
    """
    with errors():
        from pipeline.store_info import show_store

        show_store(path, stage, make_console())


@store.command()
@_path
@click.option("--deep", is_flag=True, help="Read every row back and compare its checksum.")
def verify(path: Path, deep: bool) -> None:
    """Check that everything is as it was written, and name the clips that are hurt.

    Exit code 1 if there are problems. Example: symbio store verify features/epic55 --deep
    """
    with errors():
        from pipeline.store_commands import verify_store

        sound = verify_store(path, make_console(), deep=deep)
    _exit_incomplete_unless(sound)


@store.command()
@_path
def repair(path: Path) -> None:
    """Put damaged files aside and make exactly the rows missing that are hurt.

    Nothing is deleted. The next `symbio run` makes the missing rows again.

    Example: symbio store repair features/epic55
    """
    with errors():
        from pipeline.store_commands import repair_store

        sound = repair_store(path, make_console())
    _exit_incomplete_unless(sound)


@store.command()
@_path
@click.argument("configs", metavar="CONFIG...", type=_PATH, nargs=-1, required=True)
@click.option("--delete", is_flag=True, help="Delete what is listed; without, it is only listed.")
def gc(path: Path, configs: tuple[Path, ...], delete: bool) -> None:
    """List what none of the given experiments needs, with its bytes, or delete it.

    That is: stages under settings that no CONFIG names, an experiment or a sweep file, files put
    aside as damaged, and files all of whose rows were forgotten. What somebody reads is left alone.

    Example: symbio store gc features/epic55 configs/epic55_saoa_r50.yaml --delete
    """
    with errors():
        from pipeline.store_commands import collect_garbage

        complete = collect_garbage(path, configs, make_console(), delete=delete)
    _exit_incomplete_unless(complete)


@store.command()
@click.argument("source", metavar="SRC", type=_PATH)
@click.argument("target", metavar="DST", type=_PATH)
@click.option(
    "--format", type=click.Choice(["zarr", "hdf5"]), required=True, help="Format of the new store."
)
@click.option(
    "--compression",
    type=click.Choice(["none", "zstd"]),
    default="none",
    show_default=True,
    help="Of single rows.",
)
@click.option(
    "--shard-mib",
    type=click.FloatRange(min=0, min_open=True),
    help="Size of a shard in MiB. Default: as many rows as in SRC.",
)
def convert(
    source: Path, target: Path, format: str, compression: str, shard_mib: float | None
) -> None:
    """Copy a store into another format, and compare every row with what was read.

    Called again after it was cut off, it goes on. Rows that are damaged in SRC are named and left
    out, with exit code 1.

    Example: symbio store convert features/epic55 features/epic55-h5 --format hdf5
    """
    with errors():
        from pipeline.store_copies import convert_stores

        complete = convert_stores(
            source, target, make_console(), format, compression=compression, shard_mib=shard_mib
        )
    _exit_incomplete_unless(complete)


@store.command()
@_path
@click.argument("out", metavar="OUT", type=_PATH)
@click.option("--stage", required=True, help="Rows of this stage.")
@click.option("--key", default="", help="First digits of the stage key, where there are several.")
@click.option("--output", "outputs", multiple=True, help="Only this output. Default: all.")
@click.option("--clip", "clips", multiple=True, help="Only rows of this clip id.")
@click.option("--video", "videos", multiple=True, help="Only rows of this video id.")
@click.option("--rows", "rows_file", type=_PATH, help="Only the clip ids in this file, one a line.")
@click.option(
    "--to",
    "form",
    type=click.Choice(["npy", "h5"]),
    required=True,
    help="A folder of .npy files, or one HDF5 file with a group per clip.",
)
def export(
    path: Path,
    out: Path,
    stage: str,
    key: str,
    outputs: tuple[str, ...],
    clips: tuple[str, ...],
    videos: tuple[str, ...],
    rows_file: Path | None,
    form: str,
) -> None:
    """Write rows to a new folder or file OUT that other programs read without Symbio.

    Example: symbio store export features/epic55 clips.h5 --stage aligned --video P01_01 --to h5
    """
    with errors():
        from pipeline.store_copies import export_rows

        export_rows(
            path,
            out,
            make_console(),
            stage=stage,
            key=key,
            outputs=outputs,
            clips=clips,
            videos=videos,
            rows_file=rows_file,
            form=form,
        )


def _exit_incomplete_unless(complete: bool) -> None:
    if not complete:
        sys.exit(EXIT_INCOMPLETE)
