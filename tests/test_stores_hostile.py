"""Files from people who mean harm: a clear error each time, in little memory, without waiting."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_child import KEY, NUMBERS, STAGE, fill_store, visit_confined
from store_damage import change_manifest, files_of
from store_suite import fast_folder

from stores import open_store
from stores.formats import FORMATS

Change = Callable[[Path], None]
GENERATION = f"{STAGE}/{KEY[:12]}"


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        fill_store(folder / "store", "zarr", "none")
        yield folder / "store"


def assert_refused(root: Path, pattern: str) -> list[str]:
    """Visit the store; some question must have been answered with a matching error or problem."""
    answers = visit_confined(root)
    assert any(re.search(pattern, answer) for answer in answers), "\n".join(answers)
    return answers


def assert_unharmed(answers: list[str]) -> None:
    """Assert that the second visitor, who may write, found and read everything."""
    assert {f"a read {number}: ok" for number in NUMBERS} <= set(answers), "\n".join(answers)


def test_a_sound_store_is_visited_without_complaint(root: Path) -> None:
    assert all(answer.endswith(": ok") for answer in visit_confined(root))


# ---- things that are no files


def put(path: Path, thing: str) -> None:
    """Put something that is no file in the place of one."""
    outside = path.parents[-2] / "dev/shm" / f"outside-{os.getpid()}"
    if thing == "link to a copy":
        outside = next(p for p in path.parents if p.name == "store").with_name("copy")
        shutil.copyfile(path, outside)
    path.unlink(missing_ok=True)
    match thing:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            folder = os.getcwd()
            os.chdir(path.parent)  # names of sockets are short
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(path.name)
            os.chdir(folder)
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "link to itself":
            path.symlink_to(path.name)
        case "link to a copy":
            path.symlink_to(outside)


THINGS = ["pipe", "folder", "socket", "link to a device", "link to itself", "link to a copy"]


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_shards_that_are_no_files(format: str, thing: str) -> None:
    with fast_folder() as folder:
        root = folder / "store"
        fill_store(root, format, "none")
        victim = files_of(open_store(root).generation(STAGE, KEY), 0)[-1]
        put(victim, thing)
        answers = assert_refused(root, "r read 0: CorruptRowError.*'clip0'.*it is no file but a")
        assert any(answer.startswith("a verify: ok\na verify: problem") for answer in answers)


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", ["symbio.json", "manifest.sqlite", f"{GENERATION}/stage.json"])
def test_documents_that_are_no_files(root: Path, name: str, thing: str) -> None:
    put(root / name, thing)
    assert_refused(root, f"got .*{name}|{name}.*got|no plain file")


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize(
    "name",
    [
        *("zarr.json", f"{GENERATION}/rows.csv", f"{GENERATION}/count/zarr.json", ".lock"),
        *("manifest.sqlite-wal", "manifest.sqlite-shm", f"{GENERATION}/map/c.7.0"),
    ],
)
def test_other_files_that_are_no_files(root: Path, name: str, thing: str) -> None:
    if (root / name).exists() or thing != "link to a copy":
        put(root / name, thing)
        visit_confined(root)


# ---- documents that say or are too much


def grow(path: Path) -> None:
    os.truncate(path, 2**30)  # takes no space on disk


@pytest.mark.parametrize(
    "name",
    [
        *("symbio.json", "manifest.sqlite", "zarr.json"),
        *(f"{GENERATION}/{name}" for name in ("stage.json", "rows.csv", "map/zarr.json")),
    ],
)
def test_huge_documents(root: Path, name: str) -> None:
    grow(root / name)
    answers = visit_confined(root)
    if name in ("symbio.json", f"{GENERATION}/stage.json"):
        assert "expected a short document" in "\n".join(answers)
    else:
        assert_unharmed(answers)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_huge_shards(format: str, committed: bool) -> None:
    with fast_folder() as folder:
        root = folder / "store"
        fill_store(root, format, "none")
        for path in files_of(open_store(root).generation(STAGE, KEY), 0 if committed else 7):
            path.touch()
            grow(path)
        answers = visit_confined(root)
        if committed:
            assert any(answer.startswith("r read 0: CorruptRowError") for answer in answers)
        else:
            assert_unharmed(answers)
            assert list(root.rglob(".quarantine/*"))


DEEP = "[" * 100_000
WIDE = f"[{'[],' * 340_000}[]]"


@pytest.mark.parametrize("text", [DEEP, WIDE, "3", "null", "[]", '"\\ud800"', "9" * 10_000, ""])
@pytest.mark.parametrize("name", ["symbio.json", f"{GENERATION}/stage.json"])
def test_documents_that_are_none(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)
    change_manifest(root, "DELETE FROM descriptions")
    assert_refused(root, f"got .*{name} that is no")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows_per_shard": 10**12}, "got rows_per_shard 1000000000000, expected 1 to 4096"),
        ({"rows_per_shard": 0}, "got rows_per_shard 0"),
        ({"rows_per_shard": 3.0}, "got rows_per_shard 3.0"),
        ({"rows_per_shard": True}, "got rows_per_shard True"),
        ({"compression": "xz"}, "got compression 'xz'"),
        ({"compression": ["zstd"]}, r"got compression \['zstd'\]"),
        ({"format": "hdf5"}, "got .* of format 'hdf5' in a store of format 'zarr'"),
        ({"stage": "../../x"}, "got stage name '../../x'"),
        ({"outputs": {}}, "got no outputs"),
        ({"outputs": {"../x": {"dims": [], "shape": [], "dtype": "int8"}}}, "got output name"),
        ({"outputs": {"x": {"dims": ["t"], "shape": [10**13], "dtype": "int8"}}}, "got rows of"),
        ({"outputs": {"x": {"dims": ["t"], "shape": [-(10**13)], "dtype": "int8"}}}, "got shape"),
        ({"outputs": {"x": {"dims": [f"d{n}" for n in range(40)], "shape": [1] * 40,
                            "dtype": "int8"}}}, "got rows of 40 axes"),
        ({"outputs": {"x": {"dims": [], "shape": [], "dtype": "object"}}}, "got dtype 'object'"),
        ({"provenance": json.loads("[" * 200 + "]" * 200)}, "nested deeper than 64"),
        ({"unheard_of": 1}, "got fields"),
    ],
)  # fmt: skip
def test_descriptions_of_absurd_stores(root: Path, change: dict[str, Any], message: str) -> None:
    path = root / GENERATION / "stage.json"
    document = {**json.loads(path.read_text()), **change}
    del document["crc32c"]
    path.write_text(json.dumps(document))
    change_manifest(root, "DELETE FROM descriptions")
    assert_refused(root, f"generation: ValueError: .*{message}")


def test_a_shape_that_no_file_has(root: Path) -> None:
    """Small enough to be allowed, and nothing is set aside for it before a file is looked at."""
    path = root / GENERATION / "stage.json"
    document = json.loads(path.read_text())
    document["outputs"]["map"]["shape"] = [2**27]
    del document["crc32c"]
    path.write_text(json.dumps(document))
    change_manifest(root, "DELETE FROM descriptions")
    assert_refused(root, "r read 0: CorruptRowError")
