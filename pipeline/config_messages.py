"""What the checker of the config found, in words for people: where, what was got, what is allowed.

The checker names places by its own structure. Here they become the keys of the file again: the
names it gives to the alternatives of a union, and positions inside lists of plain values, are left
out.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config_base import PLAIN_VALUE

__all__ = ["describe_errors"]

MAX_SHOWN = 120
# Fields that tell the kinds of a section apart.
TAG_FIELDS = ("kind", "name")

Keys = tuple[int | str, ...]
Models = list[type[BaseModel]]

EXPECTED = {
    "model_type": "expected a section of keys and values",
    "model_attributes_type": "expected a section of keys and values",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "invalid_key": "expected a key that is text",
}


def describe_errors(
    error: ValidationError, place: Callable[[Keys], str], model: type[BaseModel]
) -> str:
    """One line per key that is wrong.

    Args:
        error: what ``model`` raised.
        place: where keys stand, such as ``file:line``.
        model: the file as a whole.
    """
    found: dict[str, list[str]] = {}
    for item in error.errors():
        keys, text = _describe(item, model)
        name = ".".join(str(key) for key in keys) or "(the whole file)"
        found.setdefault(f"{place(keys)}: {name}", []).append(text)
    return "\n".join(f"{where}: {_join(texts)}" for where, texts in found.items())


def _join(texts: list[str]) -> str:
    """The alternatives of a union fail one by one; they are one message to a person."""
    first, *others = texts
    expected = [text.partition("expected ")[2] for text in others]
    return " or ".join([first, *filter(None, expected)])


def _describe(item: ErrorDetails, root: type[BaseModel]) -> tuple[Keys, str]:
    keys, owners = _visible(item["loc"], root)
    match item["type"]:
        case "extra_forbidden":
            return keys, _unknown_key(str(keys[-1]), owners)
        case "missing":
            return keys, "this key is required and absent"
        case "union_tag_not_found":
            text = f"this key is required and absent; expected one of {_tags(keys, root)}"
            return (*keys, _tag_field(item)), text
        case "union_tag_invalid":
            got = item["ctx"]["tag"]
            return (*keys, _tag_field(item)), f"got {got!r}; expected one of {_tags(keys, root)}"
    message = item["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be "):
        message = f"expected {message.removeprefix('Input should be ')}"
    message = EXPECTED.get(item["type"], message)
    if isinstance(item["input"], dict):
        return keys, message
    return keys, f"got {_shown(item['input'])}; {message[0].lower()}{message[1:]}"


def _unknown_key(key: str, owners: Models) -> str:
    allowed = sorted({name for model in owners for name in model.model_fields})
    close = get_close_matches(key, allowed, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown key; allowed here: {', '.join(allowed)}{hint}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _visible(location: Keys, root: type[BaseModel]) -> tuple[Keys, Models]:
    """The keys of the file that a place stands for, and the sections that may hold the last."""
    keys: list[int | str] = []
    owners: Models = []
    models: Models = [root]
    for part in location:
        tagged = [model for model in models if len(models) > 1 and part in _kinds(model)]
        if tagged:
            models = tagged
            continue
        if part == PLAIN_VALUE or any(part == model.__name__ for model in models):
            continue
        if not models:
            break
        keys.append(part)
        if isinstance(part, int):  # one of a list of sections
            continue
        owners = models
        fields = [model.model_fields.get(str(part)) for model in owners]
        models = [model for field in fields if field for model in _models(field.annotation)]
    return tuple(keys), owners


def _tags(keys: Keys, root: type[BaseModel]) -> str:
    """The kinds of the section at `keys`, quoted."""
    models: Models = [root]
    for key in keys:
        models = [m for model in models for m in _models(model.model_fields[str(key)].annotation)]
    return ", ".join(repr(kind) for model in models for kind in _kinds(model))


def _tag_field(item: ErrorDetails) -> str:
    return str(item["ctx"]["discriminator"]).strip("'")


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    fields = (model.model_fields.get(name) for name in TAG_FIELDS)
    return tuple(kind for field in fields if field for kind in get_args(field.annotation))


def _models(annotation: Any) -> Models:
    """The sections that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, tuple):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    if hasattr(annotation, "__metadata__"):
        return _models(get_args(annotation)[0])
    return []
