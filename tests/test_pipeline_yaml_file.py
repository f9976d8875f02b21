from __future__ import annotations

import pytest

from pipeline.yaml_file import YamlError, dump_yaml, line_of, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("-2.5E+3", -2500.0),
        ("5e2", 500.0),
        (".5e1", 5.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.5", 1.5),
        ("12", 12),
        ("'1e-4'", "1e-4"),
    ],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: object) -> None:
    got, _ = parse_yaml(text)
    assert got == value
    assert type(got) is type(value)


def test_an_empty_document_has_no_value() -> None:
    assert parse_yaml("# nothing but a comment\n") == (None, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4),
        ("{a: 1, a: 1}", 1),
        ("- x\n- {k: 1,\n   k: 2}\n", 3),
    ],
)
def test_a_key_given_twice_is_refused(text: str, line: int) -> None:
    with pytest.raises(YamlError, match="twice in one section, first in line") as caught:
        parse_yaml(text)
    assert caught.value.line == line


def test_equal_keys_in_different_sections_are_fine() -> None:
    value, _ = parse_yaml("a: {x: 1}\nb: {x: 2}\n")
    assert value == {"a": {"x": 1}, "b": {"x": 2}}


def test_aliases_and_merges_work() -> None:
    value, _ = parse_yaml("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\n")
    assert value == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


def _laughs(levels: int, item: str) -> str:
    lines = ["l0: &l0 {k: v}"]
    for level in range(1, levels):
        inner = ", ".join([f"*l{level - 1}"] * 9)
        lines.append(f"l{level}: &l{level} {item.format(inner)}")
    return "\n".join(lines)


@pytest.mark.parametrize("item", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_unfold_without_end_are_refused(item: str) -> None:
    # 9^12 values, written out, are 280 thousand million.
    with pytest.raises(YamlError, match="more than 100,000 values"):
        parse_yaml(_laughs(12, item))


@pytest.mark.parametrize("text", ["&a [*a]", "&a {x: {y: *a}}"])
def test_an_alias_inside_of_itself_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="alias inside"):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 5000 + "]" * 5000, "{a: " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="nested hundreds deep"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\n", 3),
        ("a: b: c", 1),
        ("a: 1\n\tb: 2", 2),
        ("a: 1\nb: *nobody\n", 2),
        ("!!python/object/apply:os.getcwd []", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: \x00", None),
        ("a: 2020-13-45", None),
        ("a: " + "9" * 5000, None),
    ],
)
def test_what_is_not_yaml_is_an_error_with_its_line(text: str, line: int | None) -> None:
    with pytest.raises(YamlError, match=r"^not valid YAML: ") as caught:
        parse_yaml(text)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


LINES = """\
# a comment
a:
  b: 1
  c:

    d: [1, 2]
base: &base
  x: 1
  y: 2
merged:
  <<: *base
  y: 3
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ((), None),
        (("a",), 2),
        (("a", "b"), 3),
        (("a", "c", "d"), 6),
        (("a", "absent"), 2),
        (("absent", "b"), None),
        (("a", "b", "below a number"), 3),
        (("merged", "x"), 8),
        (("merged", "y"), 12),
    ],
)
def test_lines_of_keys(keys: tuple[str, ...], line: int | None) -> None:
    _, tree = parse_yaml(LINES)
    assert line_of(tree, keys) == line


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["1e5", "12", "1.0", "true", "null", "2020-01-01", "", "~", "a: b", "é", "x\ny"]},
        {"numbers": [1e-4, 1e-10, 1e22, 0.1, -3, 2.0, 10**15]},
        {"others": [True, False, None, [], {}]},
        {"z": 1, "a": {"y": 2, "b": 3}},
    ],
)
def test_what_is_dumped_is_read_back(value: dict[str, object]) -> None:
    again, _ = parse_yaml(dump_yaml(value))
    assert repr(again) == repr(value)  # also the types, and the order of the keys


def test_dumps_hold_no_aliases() -> None:
    shared = {"name": "resnet3d", "depth": 50}
    assert dump_yaml({"verb": shared, "noun": shared}) == (
        "verb:\n  name: resnet3d\n  depth: 50\nnoun:\n  name: resnet3d\n  depth: 50\n"
    )
