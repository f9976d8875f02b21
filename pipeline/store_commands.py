"""`symbio store verify`, `repair` and `gc`, between the command line and the stores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from pipeline.console import format_nbytes
from pipeline.errors import ConfigError
from pipeline.tables import table
from stores.base import FeatureStore, GenerationInfo, GenerationInUseError, Leftovers, Store
from stores.manifest_db import MANIFEST_FILE
from stores.marker import restore_marker
from stores.records import Problem, name_some
from stores.registry import open_store

__all__ = ["MAX_CLIPS_SHOWN", "collect_garbage", "repair_store", "verify_store"]

MAX_CLIPS_SHOWN = 20
TABLE = {"stage": "left", "key": "left", "rows": "right"}


# ---- verify


def verify_store(path: Path, console: Console, *, deep: bool) -> bool:
    """Print what is wrong with a store; return whether nothing is."""
    with open_store(path, mode="r") as store:
        problems, lines = store.check(), []
        _print_problems(console, problems)
        for info, made in [] if _is_manifest_unusable(store) else _opened(store):
            with _reading_bar(console, info) as read:
                found = made.verify(deep, read.add)
            _print_problems(console, found)
            _print_hurt(console, made, found)
            problems += found
            lines.append(
                (
                    info.stage,
                    info.key[:12],
                    f"{info.rows:,}",
                    format_nbytes(read.nbytes),
                    len(found),
                )
            )
    how = "every row" if deep else "all but the rows themselves, which --deep reads too"
    columns = {**TABLE, "read": "right", "problems": "right"}
    console.print(table(f"{path}: checked {how}", columns, lines))
    if problems:
        console.print(
            f"problems: {len(problems):,}; `symbio store repair {path}` mends them", markup=False
        )
    return not problems


def _is_manifest_unusable(store: Store) -> bool:
    try:
        store.generations()
    except (RuntimeError, FileNotFoundError):  # `check` has said so
        return True
    return False


def _opened(store: Store) -> Iterator[tuple[GenerationInfo, FeatureStore]]:
    for info in store.generations():
        try:
            made = store.generation(info.stage, info.key)
        except ValueError:  # `check` has said so
            continue
        yield info, made


def _print_problems(console: Console, problems: Sequence[Problem]) -> None:
    for problem in problems:
        console.print(Text(str(problem), style="red"))


def _print_hurt(console: Console, made: FeatureStore, problems: Sequence[Problem]) -> None:
    keys = list(dict.fromkeys(key for problem in problems for key in problem.row_keys))
    if keys:
        clips = list(dict.fromkeys(info.clip_id for info in made.infos(keys)))
        named = name_some(clips, MAX_CLIPS_SHOWN)
        console.print(Text(f"{made.stage}: {len(keys):,} rows are hurt: {named}", style="red"))


@dataclass
class _Read:
    progress: Progress
    nbytes: int = 0

    def add(self, nbytes: int) -> None:
        self.nbytes += nbytes
        self.progress.update(self.progress.task_ids[0], completed=self.nbytes)


@contextmanager
def _reading_bar(console: Console, info: GenerationInfo) -> Iterator[_Read]:
    """Count the bytes read of a generation; on a terminal, show how far it is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        progress.add_task(f"{info.stage} {info.key[:12]}", total=info.nbytes)
        yield _Read(progress)


# ---- repair


def repair_store(path: Path, console: Console) -> bool:
    """Make what is hurt missing, and say what that is; return whether nothing is wrong now."""
    if restore_marker(path):
        console.print(
            f"{path}: the marker of the store was lost, and was written again", markup=False
        )
    lines: list[tuple[str, ...]] = []
    with _open_to_change(path, console) as store:
        _print_problems(console, store.repair())
        for info, made in _opened(store):
            lines.append(_repair(info, made, console))
        left = store.check()
    columns = {**TABLE, "lost": "right", "bytes": "right", "clips": "left"}
    console.print(table(f"{path}: repaired", columns, lines))
    _print_problems(console, left)
    if any(lost != "0" for _, _, _, lost, *_ in lines):
        console.print("the next `symbio run` makes exactly the lost rows again", markup=False)
    return not left


def _repair(info: GenerationInfo, made: FeatureStore, console: Console) -> tuple[str, ...]:
    """Repair a generation; return its line of the table."""
    before = made.keys()
    clip_ids = dict(zip(before, (i.clip_id for i in made.infos(before)), strict=True))
    with _reading_bar(console, info) as read:
        _print_problems(console, made.repair(read.add))
    lost = made.missing(before)
    clips = list(dict.fromkeys(clip_ids[key] for key in lost))
    nbytes = len(lost) * sum(spec.row_nbytes for spec in made.specs.values())
    return (
        *(info.stage, info.key[:12], f"{len(made):,}", f"{len(lost):,}"),
        *(format_nbytes(nbytes), name_some(clips, MAX_CLIPS_SHOWN)),
    )


@contextmanager
def _open_to_change(path: Path, console: Console) -> Iterator[Store]:
    """Open a store that is there, and print what opening it had to mend."""
    open_store(path, mode="r").close()  # to write, a missing store would be created
    if not (path / MANIFEST_FILE).exists():
        console.print(
            f"{path / MANIFEST_FILE}: it is gone, and is rebuilt from the shards", markup=False
        )
    with _printing_log(console):
        store = open_store(path, mode="a", recheck=True)
    with store:
        yield store


@contextmanager
def _printing_log(console: Console) -> Iterator[None]:
    """Print what the stores log, instead of letting it go to stderr."""
    taken_in: list[str] = []

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                console.print(Text(record.getMessage(), style="yellow"))
            else:
                taken_in.append(record.getMessage())  # a lost manifest makes thousands of them

    logger, handler = logging.getLogger("stores"), Printer()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        if taken_in:
            console.print(
                f"took in {len(taken_in):,} shards that the manifest did not know", markup=False
            )


# ---- gc


def collect_garbage(path: Path, configs: Sequence[Path], console: Console, *, delete: bool) -> bool:
    """List or delete what no config names; return whether all of it could be deleted.

    Raises:
        ConfigError: a config is of another store.
    """
    wanted = {named for config in configs for named in _named_by(config, path)}
    opened = _open_to_change(path, console) if delete else open_store(path, mode="r")
    with opened as store:
        unnamed = [info for info in store.generations() if (info.stage, info.key) not in wanted]
        going = {(info.stage, info.key) for info in unnamed}
        leftovers = [left for left in store.leftovers() if (left.stage, left.key) not in going]
        things: list[GenerationInfo | Leftovers] = [*unnamed, *leftovers]
        if not things:
            console.print(f"{path}: everything in it is needed", markup=False)
            return True
        console.print(_garbage_table(path, things))
        if not delete:
            console.print("nothing was deleted; --delete does", markup=False)
            return True
        left_alone = 0
        for thing in things:
            try:
                freed = _delete(store, thing)
            except GenerationInUseError as error:
                left_alone += 1
                console.print(Text(f"left alone: {error}", style="yellow"))
            else:
                name = f"{thing.stage} {thing.key[:12]}".strip() or "damaged manifests"
                console.print(f"deleted {name}: {format_nbytes(freed)}", markup=False)
    return not left_alone


def _named_by(file: Path, path: Path) -> set[tuple[str, str]]:
    """Stages and keys of an experiment file, or of a sweep file's rows with this store."""
    # torch, which the other commands do without
    from pipeline.experiment import stage_keys
    from pipeline.sweep_plan import experiments

    configs = experiments(file)
    here = [c for c in configs if os.path.realpath(c.store.path) == os.path.realpath(path)]
    if not here:
        raise ConfigError(
            f"{file}: got store.path {configs[0].store.path}, expected {path}; give the configs "
            "of this store"
        )
    return {item for config in here for item in stage_keys(config).items()}


def _garbage_table(path: Path, things: Sequence[GenerationInfo | Leftovers]) -> object:
    lines = []
    for thing in things:
        whole = isinstance(thing, GenerationInfo)
        rows = f"{thing.rows:,}" if isinstance(thing, GenerationInfo) else ""
        why = "no config names it" if whole else "files without rows"
        why = why if thing.stage else "manifests that were damaged"
        lines.append((thing.stage, thing.key[:12], rows, format_nbytes(thing.nbytes), why))
    total = sum(thing.nbytes for thing in things)
    lines.append(("total", "", "", format_nbytes(total), ""))
    return table(f"{path}: not needed", {**TABLE, "size": "right", "why": "left"}, lines)


def _delete(store: Store, thing: GenerationInfo | Leftovers) -> int:
    if isinstance(thing, GenerationInfo):
        return store.remove(thing.stage, thing.key)
    return store.remove_leftovers(thing)
