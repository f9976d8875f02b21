"""docs/store.md is true: its code reads a store, its folders look as they are drawn."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs_pages import blocks, prose, section, table_rows, text_of

from cli import main
from stores import ArraySpec, Row, RowInfo, open_store

PAGE = "docs/store.md"
KEY = "0123456789ab".ljust(64, "0")
SPEC = ArraySpec(("time", "y", "x", "channel"), (1, 2, 3, 4), "float16")
MAPS = np.arange(5 * 24, dtype=np.float16).reshape(5, 1, 2, 3, 4)
KEPT = [0, 1, 3, 4]  # row 2 is given up


def snippets() -> dict[str, str]:
    """The page's Python by the word in its first line."""
    found = {}
    for code in blocks(PAGE, "python"):
        match = re.match(r"# (\w+)\n", code)
        assert match, code
        found[match[1]] = code
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stores that the page reads, in the working folder."""
    for name, format in (("my-store", "zarr"), ("my-store-h5", "hdf5")):
        with open_store(tmp_path / name, "a", format) as store:
            made = store.generation("verb", KEY, {"map": SPEC}, shard_mib=2.5 * 48 / 2**20)
            rows = [
                Row(f"{i}" * 64, {"map": MAPS[i]}, RowInfo(clip_id=f"v/{i}/0")) for i in range(5)
            ]
            made.append(rows)
            made.forget(["2" * 64])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["zarr", "tensorstore", "xarray"])
def test_other_readers_of_zarr(folder: Path, name: str) -> None:
    pytest.importorskip(name)
    results: dict[str, Any] = {}
    exec(compile(snippets()["rows"], PAGE, "exec"), results)
    with warnings.catch_warnings():
        if name == "xarray":  # opens the group, and zarr-python warns as the page says
            warnings.simplefilter("ignore")
        exec(compile(snippets()[name], PAGE, "exec"), results)
    assert [row["clip_id"] for row in results["rows"]] == [f"v/{i}/0" for i in KEPT]
    np.testing.assert_array_equal(results["maps"], MAPS[KEPT])


def test_other_readers_of_hdf5(folder: Path) -> None:
    results: dict[str, Any] = {}
    exec(compile(snippets()["h5py"], PAGE, "exec"), results)
    assert results["clip_ids"] == ["v/0/0", "v/1/0"]
    np.testing.assert_array_equal(results["first"], MAPS[0])


def test_no_snippet_is_left_out() -> None:
    assert set(snippets()) == {"rows", "zarr", "tensorstore", "xarray", "h5py"}


def test_zarr_python_warns_as_the_page_says(folder: Path) -> None:
    import zarr

    words = "not recognized as a component of a Zarr hierarchy"
    assert f'"{words}"' in text_of(PAGE)
    with pytest.warns(UserWarning, match=words) as caught:
        list(zarr.open_group("my-store", mode="r").members(max_depth=None))
    named = {str(warning.message).split()[2] for warning in caught} - {".lock"}
    assert named <= set(re.findall(r"`([\w.]+)`", prose(PAGE)))
    assert {"symbio.json", "rows.csv"} <= named


@pytest.mark.parametrize(("heading", "store"), [("Zarr", "my-store"), ("HDF5", "my-store-h5")])
def test_folders_look_as_they_are_drawn(folder: Path, heading: str, store: str) -> None:
    drawn = {
        line.split()[0].rstrip("/")
        for text in (section(PAGE, "What it is made of"), section(PAGE, heading))
        for line in text.partition("```\n")[2].partition("```")[0].splitlines()
    }
    drawn -= {"features/my-kitchen", "verb/3f9c0a1b2c3d", "…"}
    # Of runs, which the store knows nothing of.
    drawn -= {"identities.json", "known.json", "logs/<UTC", "run.json"}
    found = {path.name for path in (folder / store).rglob("*")}
    assert drawn - found == set()
    not_drawn = found - drawn - {"verb", KEY[:12], "shard.2.h5", "c.2.0.0.0.0"}
    assert not_drawn <= {"manifest.sqlite-wal", "manifest.sqlite-shm"}


def test_every_command_has_its_part() -> None:
    store: Any = main.commands["store"]
    for name in store.commands:
        assert f"symbio store {name} " in section(PAGE, name)
    titles = section("README.md", "Commands")
    named = {row[0] for row in table_rows(titles)}
    assert all(any(f"symbio store {name} " in title for title in named) for name in store.commands)
