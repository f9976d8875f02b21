"""Reading an experiment file: YAML, ``--set`` overrides, and errors that point at the line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.config import ExperimentConfig
from pipeline.config_messages import describe_errors
from pipeline.errors import ConfigError
from pipeline.yaml_file import YamlError, dump_yaml, line_of, parse_yaml

__all__ = ["dump_config", "load_config", "parse_config", "parse_sections", "read_config"]

Model = TypeVar("Model", bound=BaseModel)

# A pattern such as {video_id}.MP4 is text, though YAML would see the start of a mapping.
PATTERN = re.compile(r"\{\w+\}")


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read and check an experiment file.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` strings, the value in YAML; they win over the file.

    Raises:
        ConfigError: names the file, the line, the path of the key, what was got and what is
            allowed.
    """
    return parse_config(read_config(path), overrides, source=str(path))


def read_config(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such experiment file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def parse_config(text: str, overrides: Sequence[str] = (), *, source: str) -> ExperimentConfig:
    """`load_config` on text that is already in memory."""
    return parse_sections(text, overrides, source=source, model=ExperimentConfig)


def parse_sections(
    text: str, overrides: Sequence[str] = (), *, source: str, model: type[Model]
) -> Model:
    """`parse_config` for any kind of file that ``model`` describes."""
    try:
        settings, tree = parse_yaml(text)
    except YamlError as error:
        where = f"{source}:{error.line}" if error.line else source
        raise ConfigError(f"{where}: {error}") from error
    if not isinstance(settings, dict):
        got = "nothing" if settings is None else type(settings).__name__
        raise ConfigError(f"{source}: got {got}, expected keys and values")
    overridden = [_apply(settings, override) for override in overrides]

    def place(location: tuple[int | str, ...]) -> str:
        if any(location[: len(keys)] == keys for keys in overridden):
            return "--set"
        line = line_of(tree, location)
        return f"{source}:{line}" if line else source

    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, place, model)) from error


def dump_config(config: ExperimentConfig) -> str:
    """The whole experiment with every default written out, as YAML."""
    return dump_yaml(config.model_dump(mode="json"))


def _apply(settings: dict[str, Any], override: str) -> tuple[str, ...]:
    """Put one override into the settings; return the keys that lead to it."""
    path, separator, text = override.partition("=")
    keys = tuple(path.split("."))
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: expected key.path=value")
    node = settings
    for depth, key in enumerate(keys[:-1]):
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is not a section")
    if PATTERN.match(text):
        node[keys[-1]] = text
        return keys
    try:
        node[keys[-1]], _ = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"--set {override}: {error}") from error
    return keys
