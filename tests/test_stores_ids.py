"""Ids come from other people's files: kept to the letter or refused, and never part of a path."""

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_damage import damage_row
from store_suite import SPECS, STAGE, TEN_ROWS_MIB, assert_rows, fast_folder, make_arrays, make_key

from stores import CorruptRowError, Failure, Row, RowInfo, open_store
from stores.memory_store import MemoryStore
from stores.registry import FORMATS

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9/\u1e9b\u0323") for form in ("NFC", "NFD"))
KEPT = [
    *("../../../etc/passwd", "/etc/passwd", "..", ".", "a//b\\c", "C:\\nul", "~root", "*?[x]"),
    *(NFC, NFD, "K", "\u212a", "stra\u00dfe", "STRASSE"),
    *("\U0001f600\u200d\U0001f525", "\u202egnp.exe\u202c", "\u200f\u05d0", "\u200b", "\ufeff"),
    *(
        "<script>alert(1)</script>",
        "&amp;",
        "{{7*7}}",
        "%s%n{0}",
        "$(id)`id`",
        "'; DROP TABLE rows",
    ),
    *("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", '"', "a,b;c", "'", "#", "null", "NaN", "1e999"),
    *(" ", " leading", "trailing ", "\u00a0", "\u2028", "\u2029", "\ue000", "\uffff", "\U0010ffff"),
    *("x" * 255, "\u00e9" * 127, "\U0001f600" * 63, "shard.0.h5", "c.0.0", "zarr.json", "-rf"),
]
REFUSED = [
    *("a\0b", "\0", "line\nfeed", "\r", "tab\t", "\x1b[31m", "\x7f", "\x85", "\x9b"),
    *("\ud800", "a\udcffb", "x" * 256, "\u00e9" * 128, "x" * 300, "\U0001f600" * 64),
]
MESSAGES = [*KEPT, "two\nlines\r\n", "\x1b[2J", "x" * 10_000]


def make_row(number: int, name: str) -> Row:
    info = RowInfo(name, name, name, number, number, number, name)
    return Row(make_key(number), make_arrays(number), info)


def make_failure(number: int, name: str, message: str) -> Failure:
    return Failure(make_key(number), name, name, "DecodeError", message, number)


def fill_store(store: Any, names: list[str], messages: list[str]) -> Any:
    made = store.generation(STAGE, make_key(1000), SPECS, None, TEN_ROWS_MIB)
    made.append([make_row(number, name) for number, name in enumerate(names)])
    failures = [make_failure(500 + n, names[n % 7], text) for n, text in enumerate(messages)]
    made.commit([], failures)
    return made


@pytest.fixture(params=sorted(FORMATS))
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            fill_store(store, KEPT, MESSAGES)
        yield folder


def assert_kept(made: Any) -> None:
    keys = [make_key(number) for number in range(len(KEPT))]
    infos = made.infos(keys)
    for info, name in zip(infos, KEPT, strict=True):
        assert (info.clip_id, info.video_id, info.segment_id, info.flags) == (name,) * 4
    assert_rows(made, list(range(len(KEPT))))


def assert_failures(made: Any) -> None:
    found = {failure.row_key: failure for failure in made.failures()}
    for number, text in enumerate(MESSAGES):
        failure = found[make_key(500 + number)]
        assert (failure.clip_id, failure.message) == (KEPT[number % 7], text)


def test_ids_are_kept_to_the_letter(folder: Path) -> None:
    made = open_store(folder / "store").generation(STAGE, make_key(1000))
    assert_kept(made)
    assert_failures(made)
    assert made.verify() == []


def test_ids_are_kept_to_the_letter_in_memory() -> None:
    made = fill_store(MemoryStore(), KEPT, MESSAGES)
    assert_kept(made)
    assert_failures(made)


def test_shards_keep_ids_to_the_letter(folder: Path) -> None:
    (folder / "store" / "manifest.sqlite").unlink()
    with open_store(folder / "store", "a") as store:
        made: Any = store.generation(STAGE, make_key(1000))
        assert_kept(made)
        assert made.verify() == []


def test_no_path_is_made_of_an_id(folder: Path) -> None:
    with open_store(folder / "plain", "a", open_store(folder / "store").format) as store:
        fill_store(store, [f"clip{n}" for n in range(len(KEPT))], ["text"] * len(MESSAGES))
    odd, plain = (
        sorted(str(path.relative_to(folder / name)) for path in (folder / name).rglob("*"))
        for name in ("store", "plain")
    )
    assert odd == plain
    assert sorted(path.name for path in folder.iterdir()) == ["plain", "store"]


def test_rows_csv_holds_every_id(folder: Path) -> None:
    (path,) = folder.rglob("rows.csv")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [line for line in lines if line["status"] == "ok"]
    assert len(lines) == len(KEPT) + len(MESSAGES)
    for line, name in zip(rows, KEPT, strict=True):
        assert [line[field] for field in ("clip_id", "video_id", "segment_id", "flags")] == [
            name
        ] * 4
    failures = {line["row_key"]: line for line in lines if line["status"] != "ok"}
    for number, text in enumerate(MESSAGES):
        assert failures[make_key(500 + number)]["status"] == f"failed: DecodeError: {text}"


def test_messages_quote_ids_so_that_they_do_no_harm(folder: Path) -> None:
    made: Any = open_store(folder / "store").generation(STAGE, make_key(1000))
    number = KEPT.index("\u202egnp.exe\u202c")
    damage_row(made, "count", number)
    with pytest.raises(CorruptRowError) as caught:
        made.read([make_key(number)])
    (problem,) = made.verify()
    for text in (str(caught.value), str(problem)):
        assert "'\\u202egnp.exe\\u202c'" in text
        assert text.isprintable()


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
@pytest.mark.parametrize("field", ["clip_id", "video_id", "segment_id", "flags"])
def test_what_cannot_be_kept_is_refused(field: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"got {field} .*expected (no control|at most 255 bytes)"):
        RowInfo(**{"clip_id": "clip", field: name})
    if field in ("clip_id", "video_id"):
        values: dict[str, Any] = {"clip_id": "clip", "video_id": "", field: name}
        with pytest.raises(ValueError, match=f"got {field}"):
            Failure(make_key(1), **values, error_class="E", message="")


def test_only_a_clip_needs_a_name() -> None:
    with pytest.raises(ValueError, match="got an empty clip_id"):
        RowInfo("")
    assert RowInfo("clip").video_id == ""


@pytest.mark.parametrize("name", [None, 3, b"clip", Path("clip"), ["clip"]])
def test_ids_are_text(name: Any) -> None:
    for field in ("clip_id", "video_id"):
        with pytest.raises(TypeError, match=f"got {field} .*expected str"):
            RowInfo(**{"clip_id": "clip", field: name})


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_numbers_that_no_file_keeps_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=r"got view .*expected an integer of 64 bits"):
        RowInfo("clip", view=number)
    with pytest.raises(ValueError, match=r"got frame .*expected an integer of 64 bits"):
        Failure(make_key(1), "clip", "video", "E", "", number)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_ends_of_numbers_are_kept(format: str) -> None:
    infos = [
        RowInfo("a", view=2**63 - 1, first_seconds=1e308, last_seconds=-1e308),
        RowInfo("b", view=-(2**63), first_seconds=5e-324, last_seconds=-0.0),
        RowInfo("c", view=np.int64(3), first_seconds=np.float32(0.1), last_seconds=0.1 + 0.2),  # type: ignore[arg-type]
    ]
    failure = Failure(make_key(9), "d", "", "E", "", np.int64(7))  # type: ignore[arg-type]
    with fast_folder() as folder:
        with open_store(folder / "store", "a", format) as store:
            made = store.generation(STAGE, make_key(1000), SPECS)
            made.append([Row(make_key(n), make_arrays(n), info) for n, info in enumerate(infos)])
            made.commit([], [failure])
        again: Any = open_store(folder / "store").generation(STAGE, make_key(1000))
        assert again.infos([make_key(number) for number in range(3)]) == infos
        assert again.failures() == [failure]
        assert again.verify() == []


def test_failures_keep_what_can_be_kept_of_messages() -> None:
    failure = Failure(make_key(1), "clip", "video", "E\0", "no \ud800 text\0")
    assert (failure.error_class, failure.message) == ("E\\x00", "no \\ud800 text\\x00")
    long = Failure(make_key(1), "clip", "video", "E", "x" * 30_000_000)
    assert long.message == "x" * 10_000 + "…"
