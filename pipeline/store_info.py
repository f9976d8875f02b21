"""`symbio store info`: what a store holds, for somebody who has never seen it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.console import format_nbytes
from pipeline.tables import table
from stores.base import ArraySpec, FeatureStore, GenerationInfo, Store
from stores.registry import open_store

__all__ = ["show_store"]

# The whole config of an experiment is pages long, and what decides the numbers stands elsewhere.
TOO_LONG = ("not_in_key", "config")


def show_store(path: Path, stage: str | None, console: Console) -> None:
    """Print the generations of a store, and what each row of them holds.

    Args:
        stage: print only this one, and where its rows come from.

    Raises:
        ValueError: there is no such stage.
    """
    with open_store(path, mode="r") as store:
        held = store.generations()
        shown = [info for info in held if stage in (None, info.stage)]
        if stage is not None and not shown:
            names = ", ".join(dict.fromkeys(info.stage for info in held)) or "none yet"
            raise ValueError(f"got stage {stage!r}, expected one of: {names}")
        opened = list(_open(store, shown, console))
        console.print(_generations_table(f"{path} ({store.format})", opened))
        console.print(_outputs_table(opened))
        for info, generation in opened if stage else []:
            console.print(_provenance_table(info, generation.provenance))


def _open(
    store: Store, infos: Sequence[GenerationInfo], console: Console
) -> Iterator[tuple[GenerationInfo, FeatureStore]]:
    """Open generations; one whose description is damaged is told, and costs no other."""
    for info in infos:
        try:
            yield info, store.generation(info.stage, info.key)
        except ValueError as error:
            console.print(Text(str(error), style="red"))


def _generations_table(title: str, opened: Sequence[tuple[GenerationInfo, FeatureStore]]) -> Any:
    rows = [
        (
            info.stage,
            info.key[:12],
            f"{info.rows:,}",
            f"{info.failures:,}",
            format_nbytes(info.nbytes),
            made.compression,
            f"{made.rows_per_shard:,} rows, {format_nbytes(made.rows_per_shard * _nbytes(made))}",
            info.created.partition(".")[0].replace("T", " "),
        )
        for info, made in opened
    ]
    columns = {"stage": "left", "key": "left", "rows": "right", "failed": "right"}
    columns |= {"size": "right", "compression": "left", "shards of": "left", "created": "left"}
    return table(title, columns, rows, spare=("shards of", "compression"))


def _nbytes(made: FeatureStore) -> int:
    return sum(spec.row_nbytes for spec in made.specs.values())


def _outputs_table(opened: Sequence[tuple[GenerationInfo, FeatureStore]]) -> Any:
    rows = [
        (info.stage, info.key[:12], name, _shape(spec), spec.dtype, spec.units, _words(spec))
        for info, made in opened
        for name, spec in made.specs.items()
    ]
    columns = ("stage", "key", "output", "one row", "dtype", "units", "is")
    named = dict.fromkeys(columns, "left")
    return table("Outputs", named, rows, spare=("key", "units"))


def _shape(spec: ArraySpec) -> str:
    sizes = (f"{dim} {size}" for dim, size in zip(spec.dims, spec.shape, strict=True))
    return " × ".join(sizes) or "one number"


def _words(spec: ArraySpec) -> str:
    return "; ".join(
        [spec.description] * bool(spec.description)
        + [f"{name}: {value}" for name, value in spec.attributes.items()]
    )


def _provenance_table(info: GenerationInfo, provenance: Mapping[str, Any]) -> Any:
    title = f"Where the rows of {info.stage} {info.key[:12]} come from"
    return table(title, {"setting": "left", "value": "left"}, list(_flat(provenance)))


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield name and value of every leaf: {"a": {"b": 1}} → ("a.b", "1")."""
    if path == TOO_LONG:
        yield ".".join(path), "the whole experiment, see stage.json"
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, (*path, str(name)))
    else:
        yield ".".join(path), str(value)
