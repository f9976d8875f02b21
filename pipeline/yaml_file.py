"""YAML, read so that nothing is lost or misread in silence.

Plain YAML keeps the last of two equal keys, takes 1e-4 for text, and lets aliases unfold a few
lines into gigabytes. Here a key given twice is an error, 1e-4 is a number, and a document may hold
as many values as a person would write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["YamlError", "dump_yaml", "line_of", "parse_yaml"]

MAX_VALUES = 100_000

_FLOAT_TAG = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


class YamlError(ValueError):
    """A text that is not YAML, or not YAML as it is read here.

    Attributes:
        line: 1-based line of the problem; None where it is about the whole text.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind in (_Loader, _Dumper):
    # The dumper has to know as well, to put quotes round texts that look like such numbers.
    _kind.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> tuple[Any, Node | None]:
    """Read one document: its value, and the tree that `line_of` finds lines in.

    Raises:
        YamlError: not YAML, a key twice in one section, or more than `MAX_VALUES` values with
            all aliases written out.
    """
    try:
        loader = _Loader(text)
        try:
            tree = loader.get_single_node()
            if tree is None:
                return None, None
            _check(tree, {})
            return _written_out(loader.construct_document(tree)), tree
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise YamlError(f"not valid YAML: {error.problem or error.context}", line) from error
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError("got sections nested hundreds deep, expected a few levels") from error


def dump_yaml(value: Any) -> str:
    """Write plain values so that `parse_yaml` gives them back; keys keep their order."""
    dumped = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return str(dumped)


def line_of(tree: Node | None, keys: Sequence[int | str]) -> int | None:
    """The 1-based line of the deepest of nested keys that stands in the text, or None.

    Whole numbers are positions in lists, counted from 0.
    """
    node, line = tree, None
    for key in keys:
        if isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, MappingNode):
            break
        # From the end: keys that were merged in by << stand before those that override them.
        pair = next((pair for pair in reversed(node.value) if pair[0].value == key), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def _written_out(value: Any) -> Any:
    """A copy in which what an alias stands for is not shared: a change to one is not to both."""
    if isinstance(value, dict):
        return {key: _written_out(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    return value


def _check(node: Node, sizes: dict[int, int | None]) -> int:
    """Values in a node, aliases written out; refuses keys that come twice and endless nodes."""
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise YamlError("got an alias inside of what it stands for", _line(node))
        return size
    sizes[id(node)] = None
    children: list[Node] = []
    if isinstance(node, MappingNode):
        _check_keys(node)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, SequenceNode):
        children = node.value
    size = 1
    for child in children:
        size += _check(child, sizes)
        if size > MAX_VALUES:
            raise YamlError(
                f"got more than {MAX_VALUES:,} values, aliases written out", _line(node)
            )
    sizes[id(node)] = size
    return size


def _check_keys(node: MappingNode) -> None:
    first: dict[tuple[str, str], Node] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            continue
        other = first.setdefault((key.tag, key.value), key)
        if other is not key:
            raise YamlError(
                f"got the key {key.value} twice in one section, first in line {_line(other)}; "
                "remove one of the two",
                _line(key),
            )


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
