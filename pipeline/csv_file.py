"""Reading CSV with errors that name file, line, column and value."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import AnnotationError

__all__ = ["integer", "number", "read_rows", "required"]


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file whose header has all the columns.

    The number is that of the row's first line; empty lines are passed over.

    Raises:
        AnnotationError: no file, not CSV, a column is absent or comes twice, or a row has too few
            or many fields.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            records = _records(path, file)
            _, header = next(records, (0, []))
            _check_header(path, header, columns)
            for line, fields in records:
                if len(fields) != len(header):
                    raise AnnotationError(
                        f"{path}:{line}: got {len(fields)} fields, expected the header's "
                        f"{len(header)}"
                    )
                yield line, dict(zip(header, fields, strict=True))
    except FileNotFoundError as error:
        raise AnnotationError(f"{path}: no such label file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as CSV: {error}") from error


def _records(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    # Strict, or an open quote would take the rest of the file for one field and lose its rows.
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise AnnotationError(
                f"{path}:{line}: cannot be read as CSV: {error}; is a quote left open?"
            ) from error
        if fields:
            yield line, fields


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    absent = [column for column in columns if column not in header]
    if absent:
        raise AnnotationError(
            f"{path}: got the columns {', '.join(header) or '(none)'}; missing: {', '.join(absent)}"
        )
    if len(set(header)) < len(header):
        raise AnnotationError(
            f"{path}: got the columns {', '.join(header)}; expected each name once"
        )


def required(row: dict[str, str], column: str, where: str) -> str:
    """The text of a field that must not be empty."""
    value = row[column].strip()
    if not value:
        raise AnnotationError(f"{where}: {column} is empty")
    return value


def number(row: dict[str, str], column: str, where: str, *, finite: bool = True) -> float:
    """A number, a finite one unless told otherwise."""
    try:
        value = float(row[column])
        usable = math.isfinite(value) or not finite
    except ValueError:
        usable = False
    if not usable:
        raise AnnotationError(f"{where}: got {column} {row[column]!r}, expected a number")
    return value


def integer(row: dict[str, str], column: str, where: str) -> int:
    """A whole number."""
    try:
        return int(row[column])
    except ValueError as error:
        raise AnnotationError(
            f"{where}: got {column} {row[column]!r}, expected a whole number"
        ) from error
