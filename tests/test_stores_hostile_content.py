"""A manifest and shards whose checksums are right and whose content means harm."""

import json
import re
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c
from numcodecs import zstd
from store_child import KEY, NUMBERS, STAGE, fill_store, visit_confined
from store_damage import change_manifest, files_of
from store_suite import fast_folder

import stores.hdf5_encode
import stores.zarr_format
from stores import open_store
from stores.formats import FORMATS, shard_format
from stores.shard_footer import encode_tail


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    with fast_folder() as folder:
        fill_store(folder / "store", request.param, "none")
        yield folder / "store"


def assert_found(root: Path, pattern: str) -> None:
    """Assert that some answer matches, and that every row is there after the repair."""
    answers = visit_confined(root)
    assert any(re.search(pattern, answer, re.S) for answer in answers), "\n".join(answers)
    answers = visit_confined(root)
    assert {f"a read {number}: ok" for number in NUMBERS} <= set(answers), "\n".join(answers)


# ---- the manifest

OTHER = "other tables than those of a manifest"
COUNTING = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["DROP TABLE rows"], OTHER),
        (["CREATE TABLE more (x)"], OTHER),
        (["DROP TABLE rows", f"CREATE VIEW rows AS {COUNTING}"], OTHER),
        (["CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END"], OTHER),
        (["DROP TABLE rows", "CREATE TABLE rows AS SELECT 1 AS generation"], OTHER),
        (["PRAGMA user_version = 1"], "got version 1, expected 2"),
        (["PRAGMA user_version = -7"], "got version -7, expected 2"),
    ],
)
def test_another_database(root: Path, statements: list[str], message: str) -> None:
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    assert_found(root, f"r generations: .*{message}.*delete that file")


def test_a_database_of_somebody_else(root: Path) -> None:
    path = root / "manifest.sqlite"
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cookies (name TEXT)")
        connection.execute("INSERT INTO cookies VALUES ('kept')")
    connection.close()
    assert_found(root, "r generations: ManifestError: got version 0")
    with sqlite3.connect(f"{path}.damaged") as connection:
        assert connection.execute("SELECT name FROM cookies").fetchone() == ("kept",)
    connection.close()


def test_a_manifest_from_the_future_is_left_alone(root: Path) -> None:
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    before = (root / "manifest.sqlite").read_bytes()
    answers = visit_confined(root)
    assert any("got manifest version 3, expected 2; update symbio" in text for text in answers)
    assert (root / "manifest.sqlite").read_bytes() == before


def place(generation: int, key: bytes, shard: int, slot: int) -> int:
    return crc32c(struct.pack("<q32sqq", generation, key, shard, slot))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rows SET slot = -1 - slot", "in a slot beyond its shard"),
        ("rows SET slot = slot + 4611686018427387904", "in a slot beyond its shard"),
        ("rows SET shard = 4611686018427387904", "other rows than were committed of 'objects'"),
        ("rows SET shard = -1", "other rows than were committed of 'objects'"),
        ("shards SET shard = 4611686018427387904", "that was never reserved"),
        ("shards SET shard = -9223372036854775808", "that was never reserved"),
        ("shards SET row_count = 2", "other rows than were committed of 'objects'"),
        ("shards SET row_count = 1e300", "other rows than were committed of 'objects'"),
        ("shards SET checks = '[' || hex(zeroblob(30000000))", "too big"),
        ("shards SET checks = replace(hex(zeroblob(50000)), '0', '[')", "no checks of shard"),
        ("shards SET checks = '[1]'", "no checks of shard"),
        ("shards SET checks = '{}'", "it is not the file that was committed"),
        ("generations SET next_shard = 9223372036854775807", "got shard number 922337203685477580"),
        ("generations SET next_shard = -1", "got shard number -1"),
        ("generations SET next_shard = 'many'", "shard number 'many'|got .*many"),
        ("generations SET path = '../../../etc'", "got folder '../../../etc' of stage 'objects'"),
    ],
)
def test_absurd_records(root: Path, change: str, message: str) -> None:
    with sqlite3.connect(root / "manifest.sqlite") as connection:
        connection.create_function("place", 4, place)
        connection.execute(f"UPDATE {change}")
        connection.execute("UPDATE rows SET place = place(generation, row_key, shard, slot)")
        connection.execute("UPDATE shards SET place_sum = (SELECT sum(place) FROM rows)")
    connection.close()
    change_manifest(root, "SELECT 1")
    assert_found(root, message)


def test_the_structure_of_the_file_is_looked_over(root: Path) -> None:
    """SQLite would go on for a while with a page that says something wrong about its free space."""
    with (root / "manifest.sqlite").open("r+b") as file:
        (page,) = struct.unpack(">H", file.read(18)[16:])
        file.seek(page + 7)
        assert file.read(1) == b"\0"
        file.seek(page + 7)
        file.write(b"\1")
    assert_found(root, "r check: problem: got .*[Ff]ragment.*delete that file")


# ---- shards


def rewrite_end(path: Path, root: Path, change: str) -> None:
    """Give a shard file another footer or index, with checksums that match."""
    made: Any = open_store(root).generation(STAGE, KEY)
    form = shard_format(made.layout.format)
    part = next(iter(form.parts(made.layout)))
    with path.open("rb") as file:
        tail = form.read_tail(made.layout, part, path, file.fileno())
        data = file.read()
    start = tail.footer_start
    footer = data[start : start + tail.footer_nbytes]
    index = data[start + tail.footer_nbytes + 20 : -4]
    if change == "wide":  # as much JSON as a footer may hold
        footer = b"[" + b"[]," * (5 * 2**20) + b"[]]"
    elif change in FOOTERS:
        footer = FOOTERS[change](json.loads(footer))
    else:
        index = INDICES[change](index)
    path.write_bytes(data[:start] + encode_tail(footer, index))


def edited(**changes: Any) -> Any:
    return lambda footer: json.dumps({**footer, **changes}).encode()


def with_rows(change: Any) -> Any:
    return lambda footer: json.dumps({**footer, "rows": change(footer["rows"])}).encode()


FOOTERS: dict[str, Any] = {
    "deep": lambda footer: b"[" * 100_000,
    "no object": lambda footer: b"3",
    "no text": lambda footer: b"\xff" * 100,
    "empty": lambda footer: b"",
    "no rows": edited(rows=[]),
    "rows of another kind": edited(rows=7),
    "more rows": with_rows(lambda rows: rows * 1000),
    "rows that are none": with_rows(lambda rows: [[] for _ in rows]),
    "row keys that are paths": with_rows(lambda rows: [["../x", *row[1:]] for row in rows]),
    "absurd views": with_rows(lambda rows: [[*row[:4], 10**40, *row[5:]] for row in rows]),
    "absurd seconds": with_rows(lambda rows: [[*row[:5], 10**400, *row[6:]] for row in rows]),
    "no digest": edited(rows_sha256=["x"]),
    "another stage": edited(stage="verb"),
}
INDICES: dict[str, Any] = {
    "offsets": lambda index: bytes(byte | 0x80 for byte in index),
    "zeros": lambda index: bytes(len(index)),
    "ones": lambda index: b"\xff" * len(index),
    "swapped": lambda index: index[::-1],
    "shorter": lambda index: index[:-16],
    "longer": lambda index: index + bytes(2**20),
}


@pytest.mark.parametrize(
    ("change", "manifest"),
    [
        *((change, lost) for change in (*FOOTERS, *INDICES) for lost in ("kept", "lost")),
        ("wide", "lost"),
    ],
)
def test_ends_of_shards(root: Path, change: str, manifest: str) -> None:
    """Without a manifest, all that is known of rows is what the files say."""
    made: Any = open_store(root).generation(STAGE, KEY)
    rewrite_end(files_of(made, 0)[0], root, change)
    if manifest == "lost":
        (root / "manifest.sqlite").unlink()
    answers = "\n".join(visit_confined(root))
    if manifest == "kept":
        assert re.search("r verify: problem: .*clips 'clip0', 'clip1', 'clip2'", answers), answers
    assert "a read 0: ok" not in answers
    assert re.search("a read 0: (CorruptRowError|MissingRowsError)", answers)


ROW, MORE = 2**16, 2**26


def frame(nbytes: int, declared: int | None = None) -> bytes:
    """A zstd frame of so many zeros, which may declare another size."""
    data = bytearray(zstd.compress(bytes(nbytes), 1))
    if declared is not None:
        assert data[4] == 0x80, "a window of one byte and a size of four bytes behind it"
        data[6:10] = declared.to_bytes(4, "little")
    return bytes(data)


BOMBS = {
    "declares two gigabytes": frame(MORE, 2**31),
    "declares 64 MiB": frame(MORE),
    "declares a row and holds 64 MiB": frame(MORE, ROW),
    "a row and another frame": frame(ROW) + frame(MORE),
    "a row and what is no frame": frame(ROW) + b"\0" * 9,
    "skips two gigabytes": b"\x50\x2a\x4d\x18" + (2**31).to_bytes(4, "little") + bytes(100),
    "less than a row": frame(ROW - 1),
    "no frame": b"\0",
    "no whole frame": frame(ROW)[:9],
    "no size": b"\x28\xb5\x2f\xfd\x00\x58\x03\x00\x00",
}


@pytest.mark.parametrize("bomb", list(BOMBS))
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_compressed_rows_that_are_bombs(
    format: str, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress(values: Any) -> bytes:
        return BOMBS[bomb] if memoryview(values).nbytes == ROW else bytes(zstd.compress(values, 1))

    for module in (stores.zarr_format, stores.hdf5_encode):
        monkeypatch.setattr(module, "compress", compress)
    with fast_folder() as folder:
        fill_store(folder / "store", format, "zstd")
        answers = "\n".join(visit_confined(folder / "store"))
    for number in NUMBERS:
        assert re.search(f"r read {number}: CorruptRowError: .*'clip{number}'", answers), answers
    assert re.search("r verify: problem: .*clips 'clip0', 'clip1', 'clip2'", answers), answers
