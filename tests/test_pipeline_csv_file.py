from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.csv_file import integer, number, read_rows, required
from pipeline.errors import AnnotationError


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "rows.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def rows_of(file: Path, *columns: str) -> list[tuple[int, dict[str, str]]]:
    return list(read_rows(file, columns or ("a", "b")))


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n3,4\n",
        "a,b\r\n1,2\r\n3,4\r\n",
        "a,b\n1,2\n3,4",
        "\ufeffa,b\n1,2\n3,4\n",
        '"a","b"\n"1","2"\n3,4\n',
    ],
)
def test_rows_come_with_their_lines(tmp_path: Path, content: str) -> None:
    assert rows_of(write(tmp_path, content)) == [
        (2, {"a": "1", "b": "2"}),
        (3, {"a": "3", "b": "4"}),
    ]


def test_empty_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, "a,b\n\n1,2\n\n\n3,4\n")) == [
        (3, {"a": "1", "b": "2"}),
        (6, {"a": "3", "b": "4"}),
    ]


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, 'a,b\n1,"x\ny\n"\n3,4\n')) == [
        (2, {"a": "1", "b": "x\ny\n"}),
        (5, {"a": "3", "b": "4"}),
    ]


def test_quotes_hold_commas_quotes_and_accents(tmp_path: Path) -> None:
    file = write(tmp_path, 'a,b\n"pour, then ""stir""",crème\n')
    assert rows_of(file) == [(2, {"a": 'pour, then "stir"', "b": "crème"})]


def test_columns_nobody_asked_for_are_kept(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, "b,c,a\n2,3,1\n")) == [(2, {"a": "1", "b": "2", "c": "3"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,c\n1,2\n", r"rows\.csv: got the columns a, c; missing: b"),
        ("x\n1\n", r"rows\.csv: got the columns x; missing: a, b"),
        ("", r"rows\.csv: got the columns \(none\); missing: a, b"),
        ("a, b\n1,2\n", r"missing: b"),
        ("a;b\n1;2\n", r"got the columns a;b; missing: a, b"),
        ("a,b,b\n1,2,3\n", r"rows\.csv: got the columns a, b, b; expected each name once"),
        ("a,b\n1,2\n3\n", r"rows\.csv:3: got 1 fields, expected the header's 2"),
        ("a,b\n1,2,3\n", r"rows\.csv:2: got 3 fields, expected the header's 2"),
        ("a,b\n1,2\n1,'x, y'\n", r"rows\.csv:3: got 3 fields, expected"),
        # Without care, all that follows an open quote would be one field, and its rows lost.
        ('a,b\n1,"open\n3,4\n5,6\n', r"rows\.csv:2: cannot be read as CSV: .*quote left open"),
        ('a,b\n1,"two"words\n', r"rows\.csv:2: cannot be read as CSV: .*quote left open"),
        (b"a,b\n1,\xff\n", r"rows\.csv: cannot be read as CSV: .*utf-8"),
    ],
)
def test_broken_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        rows_of(write(tmp_path, content))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"absent\.csv: no such label file"):
        rows_of(tmp_path / "absent.csv")
    with pytest.raises(AnnotationError, match="cannot be read as CSV"):
        rows_of(tmp_path)


def test_required_text() -> None:
    assert required({"a": " P01 "}, "a", "f:2") == "P01"
    with pytest.raises(AnnotationError, match=r"^f:2: a is empty$"):
        required({"a": "  "}, "a", "f:2")


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("-2", -2.0), (" 3 ", 3.0), ("1e-3", 0.001)]
)
def test_numbers(text: str, value: float) -> None:
    assert number({"a": text}, "a", "f:2") == value


@pytest.mark.parametrize("text", ["", "x", "nan", "NaN", "inf", "-inf", "1e999", "1,5", "1:02"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        number({"a": text}, "a", "f:2")
    assert str(caught.value) == f"f:2: got a {text!r}, expected a number"


def test_whole_numbers() -> None:
    assert integer({"a": "12"}, "a", "f:2") == 12


@pytest.mark.parametrize("text", ["", "x", "1.0", "1.5", "1e3", "nan"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        integer({"a": text}, "a", "f:2")
    assert str(caught.value) == f"f:2: got a {text!r}, expected a whole number"
