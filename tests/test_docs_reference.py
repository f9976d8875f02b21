"""The reference pages name every key, option, output and column, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from docs_pages import ROOT, section, table_rows, text_of
from pydantic import BaseModel

from extractors.base import object_outputs
from extractors.flow_registry import FLOW_ESTIMATORS
from extractors.registry import CLIP_EXTRACTORS, FRAME_EXTRACTORS, create_clip_extractor
from heads.registry import head_class, head_options, list_heads
from pipeline.boxes import BOX_COLUMNS
from pipeline.config import ExperimentConfig
from pipeline.config_file import load_config
from pipeline.stage_aligned import AlignedStage
from pipeline.stage_clip import ClipStage
from pipeline.stage_objects import ObjectsStage
from stores import ArraySpec
from stores.rows_csv import HEADER


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for argument in get_args(annotation) for model in models_of(argument)]
    return models_of(get_args(annotation)[0]) if hasattr(annotation, "__metadata__") else []


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a section and its default; Ellipsis for keys that must be given."""
    for name, info in model.model_fields.items():
        inner = models_of(info.annotation)
        for section_model in inner:
            yield from keys_of(section_model, f"{prefix}{name}.")
        if not inner or set(get_args(info.annotation)) - {*inner, type(None)}:
            yield f"{prefix}{name}", ... if info.is_required() else plain(info.default)


def plain(value: Any) -> Any:
    """A default as YAML reads it."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def expand(key: str) -> list[str]:
    """`a.{b,c}.d` → a.b.d, a.c.d"""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", key)
    return [f"{match[1]}{part}{match[3]}" for part in match[2].split(",")] if match else [key]


def documented(text: str) -> dict[str, Any]:
    """Keys and defaults of the tables in a text."""
    found = {}
    for key, default, _ in table_rows(text):
        value = ... if default == "*required*" else yaml.safe_load(default.strip("`"))
        for name in expand(key.strip("`")):
            assert name not in found, f"{name} is documented twice"
            found[name] = value
    return found


def test_every_config_key_is_documented_with_its_default() -> None:
    text = text_of("docs/config.md").partition("## Options of networks")[0]
    assert documented(text) == dict(keys_of(ExperimentConfig))


def test_every_option_of_a_network_is_documented_with_its_default() -> None:
    expected: dict[str, dict[str, Any]] = {}
    for registry in (CLIP_EXTRACTORS, FRAME_EXTRACTORS, FLOW_ESTIMATORS):
        for name in registry.names():
            options = fields(registry.resolve(name).Options)
            expected[name] = {option.name: option.default for option in options}
    for name, options_of in expected.items():
        family, _, member = name.partition(":")  # members share a section that names them
        text = section("docs/config.md", family)
        assert documented(text) == options_of
        assert not member or f"`{name}`" in text


def words_in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_head_is_documented_with_its_inputs_and_options() -> None:
    rows = table_rows(section("docs/heads.md", "All heads"))
    found = {words_in_code(name)[0]: (inputs, options) for name, *_, inputs, options in rows}
    assert sorted(found) == list_heads()
    used: dict[str, Any] = {}
    for name, (inputs, options) in found.items():
        assert sorted(words_in_code(inputs)) == sorted(head_class(name).inputs), name
        assert sorted(words_in_code(options)) == sorted(head_options(name, {})), name
        used |= head_options(name, {})
    assert documented(section("docs/heads.md", "Options")) == used


@pytest.mark.parametrize("table", ["3_1", "3_2", "3_3", "3_5"])
def test_the_papers_numbers_are_those_of_the_sweep_files(table: str) -> None:
    rows = table_rows(section("docs/heads.md", "All heads"))
    found = {words_in_code(name)[0]: top1.split(" / ") for name, _, _, top1, *_ in rows}
    sweep = yaml.safe_load((ROOT / "configs" / "tables" / f"thesis_{table}.yaml").read_text())
    compared = 0
    for row in sweep["rows"]:
        if row.get("config", sweep["base"]) != "configs/epic55_saoa_r50.yaml" or "fuse" in row:
            continue
        heads = [s for s in row.get("set", []) if s.startswith("head.name=")]
        name = heads[0].removeprefix("head.name=") if heads else "saoa"
        for stream, printed in zip(("verb", "noun"), found[name], strict=True):
            if (number := row["paper"].get(f"{stream}_top1")) is not None:
                assert printed == f"{number:.1f}", (name, stream)
                compared += 1
    assert compared


def documented_outputs(heading: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """Output → its dims and dtype, from a table of docs/conventions.md."""
    rows = table_rows(section("docs/conventions.md", heading))
    found = {}
    for name, shape, dtype, *_ in rows:
        dims = re.search(r"`([^`]+)`", shape)
        found[name.strip("`")] = (tuple(dims[1].split(", ")) if dims else (), dtype)
    return found


def test_every_stored_output_is_documented() -> None:
    demo = load_config(ROOT / "configs" / "demo.yaml").stages
    verb, noun = (ClipStage(n, getattr(demo, n), {}, {}) for n in ("verb", "noun"))
    objects = ObjectsStage(demo.objects, 1.5, {}, {}, None)
    network = demo.verb.network
    clip_outputs = create_clip_extractor(
        network.name,
        architecture=network.options,
        weights=None,
        seed=0,
        frames=16,
        size_px=32,
        outputs=("map", "pooled", "logits"),
    ).outputs
    map_specs = {name: ArraySpec(**vars(spec)) for name, spec in clip_outputs.items()}
    object_specs = {n: ArraySpec(**vars(s)) for n, s in object_outputs(5, 8, "float16").items()}
    aligned = AlignedStage(demo.aligned, verb, noun, objects).derived_specs(
        {"verb": map_specs, "noun": map_specs, "objects": object_specs}
    )
    for heading, specs in (
        ("verb, noun", map_specs),
        ("objects", object_specs),
        ("aligned", aligned),
    ):
        expected = {
            name: (spec.dims, "`dtype`" if spec.dtype == "float16" else spec.dtype)
            for name, spec in specs.items()
        }
        assert documented_outputs(heading) == expected


def test_columns_of_files_are_documented() -> None:
    assert f"`{', '.join(HEADER)}`" in text_of("docs/store.md")
    assert f"`{', '.join(BOX_COLUMNS)}`" in text_of("docs/conventions.md")
