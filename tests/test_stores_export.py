"""Exports: names that are safe and different, folders of .npy files, one HDF5 file."""

import csv
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    fast_folder,
    make_arrays,
    make_key,
    make_rows,
)

from stores import ArraySpec, CorruptRowError, Row, RowInfo, open_store
from stores.export import select_rows
from stores.export_names import (
    MAX_FILE_NAME_BYTES,
    encode_file_name,
    encode_link_name,
    file_names,
    link_names,
)
from stores.export_npy import export_npy
from stores.hdf5_export import export_hdf5
from stores.memory_store import MemoryStore
from stores.registry import FORMATS

# ---- names


def named(*clip_ids: str) -> list[tuple[str, RowInfo]]:
    return [(make_key(number), RowInfo(clip_id)) for number, clip_id in enumerate(clip_ids)]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("P01_01/12/0", "P01_01%2F12%2F0"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".", "%2E"),
        ("..", "%2E."),
        (".bashrc", "%2Ebashrc"),
        ("~root", "%7Eroot"),
        ("a b\\c:d*e?f", "a%20b%5Cc%3Ad%2Ae%3Ff"),
        ("\u00e9\U0001f600", "%C3%A9%F0%9F%98%80"),
        ("nul", "%6Eul"),
        ("COM1.x", "%43OM1.x"),
        ("conserve", "conserve"),
        ("A-z_0.9", "A-z_0.9"),
        ("-rf", "-rf"),
    ],
)
def test_file_names(label: str, name: str) -> None:
    assert encode_file_name(label) == name
    assert unquote(name) == label


def test_a_long_file_name_is_cut_and_told_apart() -> None:
    one, other = (encode_file_name("\U0001f600" * 63 + end) for end in "ab")
    assert len(one) == len(other) == MAX_FILE_NAME_BYTES
    assert one != other
    assert encode_file_name("x" * MAX_FILE_NAME_BYTES) == "x" * MAX_FILE_NAME_BYTES


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("P01_01/12/0", "P01_01%2F12%2F0"),
        ("/etc", "%2Fetc"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../x", "..%2Fx"),
        ("a\0b", "a%00b"),
        ("50%2F", "50%252F"),
        ("v@1.5s \u00e9", "v@1.5s \u00e9"),
    ],
)
def test_link_names(label: str, name: str) -> None:
    assert encode_link_name(label) == name
    assert unquote(name) == label


def test_rows_of_one_clip_are_told_apart_by_view_then_time_then_key() -> None:
    rows = [
        (make_key(1), RowInfo("a", view=0, first_seconds=1.5)),
        (make_key(2), RowInfo("a", view=1, first_seconds=1.5)),
        (make_key(3), RowInfo("b", view=0, first_seconds=1234.567891)),
        (make_key(4), RowInfo("b", view=0, first_seconds=1234.567892)),
        (make_key(5), RowInfo("c", view=0, first_seconds=10.0)),
        (make_key(6), RowInfo("c", view=0, first_seconds=10.0)),
        (make_key(7), RowInfo("d", view=3)),
    ]
    assert link_names(rows) == [
        *("a#0", "a#1"),
        *("b@1234.567891", "b@1234.567892"),
        *(f"c~{make_key(5)[:12]}", f"c~{make_key(6)[:12]}"),
        "d",
    ]


def test_case_does_not_tell_file_names_apart_but_links() -> None:
    rows = named("P01", "p01", "q")
    assert file_names(rows) == [f"P01%7E{make_key(0)[:12]}", f"p01%7E{make_key(1)[:12]}", "q"]
    assert link_names(rows) == ["P01", "p01", "q"]


def test_an_id_that_looks_like_a_fallback_takes_no_name_away() -> None:
    key = make_key(1)
    rows = [
        (make_key(0), RowInfo("a")),
        (key, RowInfo("a")),
        (make_key(2), RowInfo("a#0")),
        (make_key(3), RowInfo("a@0")),
        (make_key(4), RowInfo(f"a~{key[:12]}")),
        (make_key(5), RowInfo(key)),
    ]
    for names in (link_names(rows), file_names(rows)):
        assert len(set(names)) == len(rows)


@given(st.lists(st.text("aA./%#~0\u00e9\u0065\u0301", min_size=1, max_size=4), max_size=12))
def test_names_are_always_different_and_safe(ids: list[str]) -> None:
    rows = named(*ids)
    files, links = file_names(rows), link_names(rows)
    folded = {unicodedata.normalize("NFKD", name).casefold() for name in files}
    assert len(folded) == len(set(links)) == len(ids)
    for name in files:
        assert name[0] != "."
        assert "/" not in name
        assert name.isascii()
    assert not any("/" in name or name in (".", "..") for name in links)


# ---- choosing rows


def small_generation() -> Any:
    made = MemoryStore().generation(STAGE, make_key(1000), SPECS)
    made.append(make_rows(1, 2, 3))
    made.append([Row(make_key(9), make_arrays(9), RowInfo("other", "P02"))])
    return made


def chosen(clips: list[str], videos: list[str]) -> list[str]:
    return [info.clip_id for _, info in select_rows(small_generation(), clips, videos)]


def test_rows_are_chosen_by_clip_or_by_video_in_the_order_of_the_store() -> None:
    assert chosen([], []) == ["P01_1", "P01_2", "P01_3", "other"]
    assert chosen(["P01_3", "P01_1"], []) == ["P01_1", "P01_3"]
    assert chosen(["P01_3"], ["P02"]) == ["P01_3", "other"]
    assert chosen([], ["P01"]) == ["P01_1", "P01_2", "P01_3"]


def test_unknown_ids_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 1 clips that stage 'objects' .* \('P01_7'\)"):
        chosen(["P01_1", "P01_7"], [])
    with pytest.raises(ValueError, match=r"got 1 videos .*'P03'"):
        chosen([], ["P02", "P03"])


def test_an_empty_generation_is_not_exported() -> None:
    empty = MemoryStore().generation(STAGE, make_key(1000), SPECS)
    with pytest.raises(ValueError, match="got no rows in stage 'objects'"):
        select_rows(empty)


# ---- writing them


@pytest.fixture(params=sorted(FORMATS))
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield a generation of three rows, one of them with an id that is no name."""
    with fast_folder() as folder, open_store(folder / "store", "a", request.param) as store:
        made = store.generation(STAGE, make_key(1000), SPECS, {"by": "me"}, TEN_ROWS_MIB)
        made.append(make_rows(1, 2))
        made.append([Row(make_key(3), make_arrays(3), RowInfo("../\u00e9", "P02", "s", 1, 2, 3))])
        yield made


def out(made: Any) -> Path:
    folder: Path = made.path.parent.parent.parent / "exports" / "first"
    return folder


def test_npy_files_are_what_is_stored(made: Any) -> None:
    export_npy(made, select_rows(made), out(made))
    assert sorted(path.name for path in out(made).iterdir()) == [
        *("about.json", "boxes_xyxy_px", "count", "features", "index.csv", "mask")
    ]
    with (out(made) / "index.csv").open(newline="", encoding="utf-8") as file:
        index = list(csv.DictReader(file))
    assert [row["name"] for row in index] == ["P01_1", "P01_2", "%2E.%2F%C3%A9"]
    assert index[2] == {
        **{"name": "%2E.%2F%C3%A9", "row_key": make_key(3), "clip_id": "../\u00e9"},
        **{"video_id": "P02", "segment_id": "s", "view": "1"},
        **{"first_seconds": "2.0", "last_seconds": "3.0", "flags": ""},
    }
    for number, row in enumerate(index, 1):
        for output, expected in make_arrays(number).items():
            array = np.load(out(made) / output / f"{row['name']}.npy", allow_pickle=False)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
    about = json.loads((out(made) / "about.json").read_text())
    assert (about["stage"], about["key"], about["rows"]) == (STAGE, make_key(1000), 3)
    assert about["provenance"] == {"by": "me"}
    assert about["outputs"]["features"]["dims"] == ["object", "channel"]
    assert about["outputs"]["boxes_xyxy_px"]["units"] == "px"


def test_hdf5_is_keyed_by_clip(made: Any) -> None:
    export_hdf5(made, select_rows(made), out(made))
    with h5py.File(out(made), "r") as file:
        assert (file.attrs["stage"], file.attrs["key"]) == (STAGE, make_key(1000))
        assert json.loads(file.attrs["provenance"]) == {"by": "me"}
        assert sorted(file) == ["..%2F\u00e9", "P01_1", "P01_2"]
        for number, name in enumerate(["P01_1", "P01_2", "..%2F\u00e9"], 1):
            group = file[name]
            assert group.attrs["row_key"] == make_key(number)
            assert group.attrs["clip_id"] == unquote(name)
            for output, expected in make_arrays(number).items():
                assert group[output].dtype == expected.dtype
                np.testing.assert_array_equal(group[output][()], expected)
        features = group["features"]
        assert [dim.label for dim in features.dims] == ["object", "channel"]
        assert dict(features.attrs) | {"DIMENSION_LABELS": 0} == {
            **{"units": "1", "description": "pooled", "layer": "fc7", "DIMENSION_LABELS": 0}
        }
        assert dict(group.attrs) == {
            **{"row_key": make_key(3), "clip_id": "../\u00e9", "video_id": "P02"},
            **{"segment_id": "s", "view": 1, "first_seconds": 2, "last_seconds": 3, "flags": ""},
        }


@pytest.mark.parametrize("export", [export_npy, export_hdf5])
def test_some_outputs(made: Any, export: Any) -> None:
    export(made, select_rows(made, ["P01_2"]), out(made), ["count"])
    if export is export_npy:
        found = {str(p.relative_to(out(made))) for p in out(made).rglob("*.npy")}
        assert found == {"count/P01_2.npy"}
    else:
        with h5py.File(out(made), "r") as file:
            assert list(file["P01_2"]) == ["count"]
    with pytest.raises(ValueError, match="got output 'flow', expected one of"):
        export(made, select_rows(made), out(made).with_name("second"), ["flow"])


@pytest.mark.parametrize("export", [export_npy, export_hdf5])
def test_more_rows_than_a_portion(made: Any, export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.export.PORTION_NBYTES", 1)
    export(made, select_rows(made), out(made), ["count"])
    if export is export_npy:
        values = [int(np.load(path)) for path in sorted(out(made).rglob("*.npy"))]
    else:
        with h5py.File(out(made), "r") as file:
            values = [int(group["count"][()]) for group in file.values()]
    assert sorted(values) == [1, 2, 3]


@pytest.mark.parametrize("export", [export_npy, export_hdf5])
def test_what_is_there_is_not_written_over(made: Any, export: Any) -> None:
    out(made).mkdir(parents=True)
    (out(made) / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="exists, expected a new name"):
        export(made, select_rows(made), out(made))
    assert [path.name for path in out(made).iterdir()] == ["mine"]
    (out(made) / "mine").unlink()
    export(made, select_rows(made), out(made))
    assert out(made).is_dir() == (export is export_npy)
    with pytest.raises(FileExistsError):
        export(made, select_rows(made), out(made))


@pytest.mark.parametrize("export", [export_npy, export_hdf5])
def test_an_export_that_breaks_off_leaves_nothing(
    made: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = made.read, []

    def read_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise CorruptRowError("got clip 'P01_2' damaged")
        return read(*arguments)

    monkeypatch.setattr("stores.export.PORTION_NBYTES", 1)
    monkeypatch.setattr(made, "read", read_once)
    with pytest.raises(CorruptRowError):
        export(made, select_rows(made), out(made))
    assert list(out(made).parent.iterdir()) == []


@pytest.mark.parametrize("export", [export_npy, export_hdf5])
def test_there_must_be_room(made: Any, export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"got 5 bytes of free space for .*first, expected at least"):
        export(made, select_rows(made), out(made))
    assert not out(made).exists()


def test_bfloat16_is_exported_as_float32(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    spec = ArraySpec(("channel",), (3,), "bfloat16")
    made = MemoryStore().generation("verb", make_key(1), {"map": spec})
    values = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    made.append([Row(make_key(1), {"map": values}, RowInfo("a"))])
    export_npy(made, select_rows(made), tmp_path / "npy")
    export_hdf5(made, select_rows(made), tmp_path / "all.h5")
    array = np.load(tmp_path / "npy/map/a.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(np.float32))
    about = json.loads((tmp_path / "npy/about.json").read_text())["outputs"]["map"]
    assert (about["dtype"], about["stored_dtype"]) == ("float32", "bfloat16")
    with h5py.File(tmp_path / "all.h5", "r") as file:
        assert file["a/map"].dtype == np.float32
        np.testing.assert_array_equal(file["a/map"][()], array)
