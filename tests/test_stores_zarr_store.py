"""The conformance suite, and what holds for the Zarr backend alone: foreign readers, folders,
one writer, many readers."""

import csv
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import struct
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr
from numcodecs import zstd
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    StoreSuite,
    assert_rows,
    fast_folder,
    make_arrays,
    make_failure,
    make_key,
    make_row,
    make_rows,
)

from stores import ArraySpec, Receipt, Row, RowInfo, Store, StoreLockedError, open_store

LATE_SECONDS = 1e9  # on a clock: whatever is written now and then is due


def find_row(made: Any, output: str, number: int) -> tuple[Path, int, int]:
    """Return file, offset and size of a row's values, from SQLite and the Zarr index alone."""
    connection = sqlite3.connect(made.path.parent.parent / "manifest.sqlite")
    shard, slot = connection.execute(
        "SELECT shard, slot FROM rows JOIN generations ON id = generation "
        "WHERE key = ? AND row_key = ?",
        (made.key, bytes.fromhex(make_key(number))),
    ).fetchone()
    connection.close()
    (path,) = (made.path / output).glob(f"c.{shard}*")
    data = path.read_bytes()
    index_start = len(data) - 4 - 16 * made.rows_per_shard
    offset, nbytes = struct.unpack_from("<QQ", data, index_start + 16 * slot)
    return path, offset, nbytes - 4


class TestZarrStore(StoreSuite):
    def make_store(self, folder: Path) -> Store:
        return open_store(folder, "a")

    def reopen(self, store: Store) -> Store:
        store.close()
        return open_store(store.path, "a")

    def raw_get(self, made: Any, output: str, number: int) -> bytes:
        path, offset, nbytes = find_row(made, output, number)
        return path.read_bytes()[offset : offset + nbytes]

    def raw_set(self, made: Any, output: str, number: int, data: bytes) -> None:
        path, offset, nbytes = find_row(made, output, number)
        assert len(data) == nbytes
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)


class TestCompressedZarrStore(TestZarrStore):
    compression = "zstd"

    def raw_get(self, made: Any, output: str, number: int) -> bytes:
        return bytes(zstd.decompress(super().raw_get(made, output, number)))

    def raw_set(self, made: Any, output: str, number: int, data: bytes) -> None:
        """Only ever called with changed values: change the stored bytes, which are others."""
        stored = bytearray(super().raw_get(made, output, number))
        stored[-1] ^= 0x10
        super().raw_set(made, output, number, bytes(stored))


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "store"


@pytest.fixture
def made(root: Path) -> Iterator[Any]:
    """Yield a generation of ten rows a shard in a store open for writing."""
    with open_store(root, "a") as store:
        yield store.generation(STAGE, make_key(1000), SPECS, {"a": 1}, shard_mib=TEN_ROWS_MIB)


def fill_store(root: Path, *numbers: int) -> Path:
    """Make a closed store with these rows; return the folder of their generation."""
    with open_store(root, "a") as store:
        made = store.generation(STAGE, make_key(1000), SPECS, {"a": 1}, shard_mib=TEN_ROWS_MIB)
        made.append(make_rows(*numbers))
        return made.path


def reading(root: Path) -> Any:
    return open_store(root).generation(STAGE, make_key(1000))


# ---- what lies on disk


def test_layout_on_disk(root: Path) -> None:
    folder = fill_store(root, *range(12))
    assert folder == root / STAGE / make_key(1000)[:12]
    assert json.loads((root / "symbio.json").read_text()) == {"format_version": 1, "format": "zarr"}
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == [
        *("boxes_xyxy_px/c.0.0.0", "boxes_xyxy_px/c.1.0.0", "boxes_xyxy_px/zarr.json"),
        *("count/c.0", "count/c.1", "count/zarr.json"),
        *("features/c.0.0.0", "features/c.1.0.0", "features/zarr.json"),
        "index.bin",
        *("mask/c.0.0", "mask/c.1.0", "mask/zarr.json"),
        *("rows.csv", "stage.json", "zarr.json"),
    ]
    stage = json.loads((folder / "stage.json").read_text())
    assert stage["provenance"] == {"a": 1}
    assert (stage["stage"], stage["key"], stage["rows_per_shard"]) == (STAGE, make_key(1000), 10)
    assert sorted(path.name for path in root.iterdir()) == [
        *(".lock", "manifest.sqlite", STAGE, "symbio.json", "zarr.json")
    ]


def test_zarr_python_reads_every_row_by_walking_from_the_root(root: Path) -> None:
    fill_store(root, *range(12))
    with warnings.catch_warnings():
        # Zarr remarks on the files that are not its own.
        warnings.filterwarnings("ignore", "Object at .* is not recognized", UserWarning)
        members = dict(zarr.open_group(root, mode="r").members(max_depth=None))
    folder = f"{STAGE}/{make_key(1000)[:12]}"
    assert sorted(members) == sorted([STAGE, folder, *(f"{folder}/{name}" for name in SPECS)])
    group: Any = members[folder]
    assert group.attrs["provenance"] == {"a": 1}
    arrays: dict[str, Any] = {name: members[f"{folder}/{name}"] for name in SPECS}
    for name, array in arrays.items():
        expected = np.stack([make_arrays(number)[name] for number in range(12)])
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array[:], expected)
        assert array.metadata.dimension_names == ("row", *SPECS[name].dims)
    assert dict(arrays["features"].attrs) == {
        "units": "1",
        "description": "pooled",
        "stage": STAGE,
        "key": make_key(1000),
        "layer": "fc7",
    }


def read_with_tensorstore(folder: Path) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    return tensorstore.open(spec, open=True).result()


def test_tensorstore_reads_every_row(root: Path) -> None:
    folder = fill_store(root, *range(12))
    for name in SPECS:
        array = read_with_tensorstore(folder / name)
        assert array.domain.labels == ("row", *SPECS[name].dims)
        expected = np.stack([make_arrays(number)[name] for number in range(12)])
        np.testing.assert_array_equal(array.read().result(), expected)


def test_foreign_readers_read_compressed_rows(root: Path) -> None:
    with open_store(root, "a") as store:
        made = store.generation(STAGE, make_key(1), SPECS, None, TEN_ROWS_MIB, "zstd")
        made.append(make_rows(*range(12)))
    for name in SPECS:
        expected = np.stack([make_arrays(number)[name] for number in range(12)])
        np.testing.assert_array_equal(zarr.open_array(made.path / name, mode="r")[:], expected)
        array = read_with_tensorstore(made.path / name).read().result()
        np.testing.assert_array_equal(array, expected)


def test_foreign_readers_read_the_bits_of_bfloat16(root: Path) -> None:
    values = np.array([-2.5, 3e38], ml_dtypes.bfloat16)
    with open_store(root, "a") as store:
        made = store.generation("verb", make_key(1), {"x": ArraySpec(("axis",), (2,), "bfloat16")})
        made.append([Row(make_key(2), {"x": values}, RowInfo("clip"))])
        assert made.read([make_key(2)])["x"].dtype == ml_dtypes.bfloat16
    array = zarr.open_array(made.path / "x", mode="r")
    assert array.attrs["bfloat16"] is True
    bits: Any = array[0]
    np.testing.assert_array_equal(bits.view(ml_dtypes.bfloat16), values)
    bits = read_with_tensorstore(made.path / "x")[0].read().result()
    np.testing.assert_array_equal(bits.view(ml_dtypes.bfloat16), values)


@pytest.mark.parametrize(
    "dtype",
    [
        *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    ],
)
def test_foreign_readers_know_every_dtype(root: Path, dtype: str) -> None:
    value = np.array([-3 if dtype[0] != "u" else 3, 100], dtype)
    with open_store(root, "a") as store:
        made = store.generation("verb", make_key(1), {"x": ArraySpec(("axis",), (2,), dtype)})
        made.append([Row(make_key(2), {"x": value}, RowInfo("clip"))])
        array = zarr.open_array(made.path / "x", mode="r")
        np.testing.assert_array_equal(array[:], value[None])
        assert array.dtype == dtype


def test_slots_without_a_row_read_as_the_fill_value(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.documents.monotonic", lambda: LATE_SECONDS)
    made.append(make_rows(0, 1))  # rows 0 and 1 of a shard of ten
    first = made.reserve_shards(2)  # the first of these two stays unused
    made.commit([made.write_shard(first + 1, make_rows(2))])
    features = zarr.open_array(made.path / "features", mode="r")
    assert features.shape == (21, 3, 4)
    np.testing.assert_array_equal(features[20], make_arrays(2)["features"])
    assert np.isnan(features[2:20]).all()
    count = zarr.open_array(made.path / "count", mode="r")
    np.testing.assert_array_equal(count[:], [0, 1, *[0] * 18, 2])


def test_array_shape_grows_now_and_then(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    times: list[list[float]] = [[0, 1], [9], [10.9], [11, 11], [11, 11]]
    for number, seconds in enumerate(times):
        clock = iter([*(LATE_SECONDS + second for second in seconds), *[0.0] * 9])
        monkeypatch.setattr("stores.documents.monotonic", partial(next, clock))
        made.append(make_rows(number))
        assert made.verify() == []
        shapes.append(zarr.open_array(made.path / "count", mode="r").shape)
    assert shapes == [(1,), (1,), (1,), (31,), (41,)]  # it took a second, and ten were waited


def test_array_shape_is_right_in_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, -1)  # nothing is ever due
    monkeypatch.setattr("stores.documents.monotonic", partial(next, clock))
    folder = fill_store(root, 1)
    assert zarr.open_array(folder / "count", mode="r").shape == (1,)


def test_rows_csv_names_every_row_and_failure(root: Path) -> None:
    with open_store(root, "a") as store:
        made = store.generation(STAGE, make_key(1000), SPECS, shard_mib=TEN_ROWS_MIB)
        info = RowInfo('a,"b\u00e9', "P01", "s", 2, 0.1, 4.1, "clamped")
        made.append([Row(make_key(0), make_arrays(0), info)])
        made.append(make_rows(1))
        made.commit([], [make_failure(5)])
    with (made.path / "rows.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines == [
        [
            *("row", "row_key", "clip_id", "video_id", "segment_id", "view"),
            *("first_seconds", "last_seconds", "flags", "status"),
        ],
        ["0", make_key(0), 'a,"b\u00e9', "P01", "s", "2", "0.1", "4.1", "clamped", "ok"],
        ["10", make_key(1), "P01_1", "P01", "seg", "1", "0.5", "4.5", "clamped", "ok"],
        ["", make_key(5), "P01_5", "P01", "", "", "", "", "", "failed: DecodeError: no\nframe"],
    ]


def test_rows_csv_is_brought_up_to_date_now_and_then(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.append(make_rows(1))
    assert not (made.path / "rows.csv").exists()
    monkeypatch.setattr("stores.documents.monotonic", lambda: LATE_SECONDS)
    made.append(make_rows(2))
    assert "P01_2" in (made.path / "rows.csv").read_text()


def test_files_obey_the_umask(root: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = fill_store(root, 1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o640}


# ---- whose folder it is


def test_a_folder_with_other_things_is_refused_and_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"holds thesis\.tex and no symbio\.json"):
        open_store(root, "a")
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(root: Path) -> None:
    root.write_text("x")
    for mode, error in (("a", NotADirectoryError), ("r", FileNotFoundError)):
        with pytest.raises(error, match="store"):
            open_store(root, mode)


def test_reading_needs_a_store(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got no store"):
        open_store(root)
    root.mkdir()
    with pytest.raises(FileNotFoundError, match="got no store"):
        open_store(root)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("{", "no marker of a store"),
        ("[]", "no marker of a store"),
        ('{"format_version": 2, "format": "zarr"}', "version 2 in .*update symbio"),
        ('{"format_version": 1, "format": "tape"}', "got store format 'tape', expected one of"),
    ],
)
@pytest.mark.parametrize("mode", ["r", "a"])
def test_strange_markers_are_refused(root: Path, marker: str, message: str, mode: str) -> None:
    root.mkdir()
    (root / "symbio.json").write_text(marker)
    with pytest.raises(ValueError, match=message):
        open_store(root, mode)


def test_a_folder_of_another_key_is_refused(root: Path) -> None:
    folder = fill_store(root, 1)
    clash = make_key(1000)[:12] + "0" * 52
    message = f"folder {folder} belongs to key {make_key(1000)}"
    with open_store(root, "a") as store, pytest.raises(ValueError, match=message):
        store.generation(STAGE, clash, SPECS)


def test_a_generation_folder_under_another_name_is_refused(root: Path) -> None:
    folder = fill_store(root, 1)
    stranger = folder.with_name(make_key(1)[:12])
    shutil.copytree(folder, stranger)
    with open_store(root, "a") as store:
        assert [info.key for info in store.generations()] == [make_key(1000)]
        with pytest.raises(ValueError, match="it belongs in"):
            store.generation(STAGE, make_key(1), SPECS)


def test_shards_without_a_description_are_not_written_over(root: Path) -> None:
    folder = fill_store(root, 1)
    (folder / "stage.json").unlink()
    (root / "manifest.sqlite").unlink()  # which has a copy
    with open_store(root, "a") as store:
        assert store.generations() == []
        with pytest.raises(FileExistsError, match=r"got shards in .* and no stage\.json"):
            store.generation(STAGE, make_key(1000), SPECS)


def test_a_removed_generation_starts_anew(root: Path) -> None:
    shutil.rmtree(fill_store(root, 1, 2))
    with open_store(root, "a") as store:
        assert store.generations() == []
        made = store.generation(STAGE, make_key(1000), SPECS)
        assert made.missing([make_key(1)]) == [make_key(1)]
        made.append(make_rows(2))
        assert_rows(made, [2])


@pytest.mark.parametrize("place", [STAGE, f"{STAGE}/{make_key(1000)[:12]}"])
def test_folders_behind_links_are_not_written_to(root: Path, place: str) -> None:
    fill_store(root, 1)
    (root / place).rename(root.with_name("elsewhere"))
    (root / place).symlink_to(root.with_name("elsewhere"))
    assert_rows(reading(root), [1])
    with open_store(root, "a") as store, pytest.raises(NotADirectoryError, match="symbolic link"):
        store.generation(STAGE, make_key(1000))


def test_output_folders_behind_links_are_not_written_to(made: Any, root: Path) -> None:
    target = root.with_name("target")
    (made.path / "mask").rename(target)
    (made.path / "mask").symlink_to(target)
    with pytest.raises(NotADirectoryError, match="symbolic link"):
        made.append(make_rows(1))
    assert [path.name for path in target.iterdir()] == ["zarr.json"]
    assert sorted((made.path / "features").iterdir()) == [made.path / "features" / "zarr.json"]


# ---- one writer, many readers


def test_a_second_writer_is_refused_by_name(root: Path) -> None:
    message = f"held by process {os.getpid()} on "
    with open_store(root, "a"), pytest.raises(StoreLockedError, match=message):
        open_store(root, "a")
    with open_store(root, "a"):
        pass


def test_a_child_does_not_keep_the_lock_of_its_dead_parent(root: Path) -> None:
    """The writer forks a worker and dies; the worker lives on for a while."""
    running, stop = os.pipe(), os.pipe()
    writer = os.fork()
    if writer == 0:
        open_store(root, "a")
        if os.fork() == 0:
            os.close(stop[1])
            os.write(running[1], b"x")
            os.read(stop[0], 1)
        else:
            os.read(running[0], 1)
        os._exit(0)
    assert os.waitpid(writer, 0)[1] == 0
    with open_store(root, "a"):
        pass
    for descriptor in (*running, *stop):
        os.close(descriptor)


def test_only_the_process_that_opened_the_store_commits(made: Any) -> None:
    receipt = made.write_shard(made.reserve_shards(1), make_rows(1))
    child = os.fork()
    if child == 0:
        try:
            made.commit([receipt])
        except RuntimeError as error:
            os._exit(7 if "send receipts there" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    made.commit([receipt])
    assert_rows(made, [1])


def test_readers_cannot_write(root: Path) -> None:
    fill_store(root, 1)
    with open_store(root) as store:
        made = store.generation(STAGE, make_key(1000))
        for write in (
            lambda: made.append(make_rows(2)),
            lambda: made.write_shard(0, make_rows(2)),
            lambda: made.commit([]),
            lambda: made.clear_failures([]),
            lambda: made.forget([]),
            lambda: store.generation("verb", make_key(1), SPECS),
        ):
            with pytest.raises(OSError, match="open for reading; open the store with mode 'a'"):
                write()


def test_a_reader_sees_what_was_committed_when_it_first_looked(made: Any, root: Path) -> None:
    made.append(make_rows(1))
    early = reading(root)
    assert_rows(early, [1])
    made.append(make_rows(2))
    assert early.missing([make_key(2)]) == [make_key(2)]
    late = reading(root)
    assert_rows(late, [2, 1])
    assert late.verify() == []


def as_nobody(task: Any) -> int:
    """Run `task` in a child that is not root; return 0 where it raises nothing."""
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            task()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def open_root() -> Iterator[Path]:
    """Yield a folder that every user may enter."""
    with fast_folder() as folder:
        folder.chmod(0o755)
        yield folder / "store"


def set_modes(root: Path, folder_mode: int, file_mode: int) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(folder_mode if path.is_dir() else file_mode)


def test_a_read_only_folder_is_readable(open_root: Path) -> None:
    fill_store(open_root, 1, 2)
    set_modes(open_root, 0o555, 0o444)
    assert as_nobody(lambda: assert_rows(reading(open_root), [2, 1])) == 0
    assert not (open_root / "manifest.sqlite-wal").exists()
    set_modes(open_root, 0o755, 0o644)


def test_a_read_only_folder_is_readable_while_its_owner_writes(open_root: Path) -> None:
    with open_store(open_root, "a") as store:
        made = store.generation(STAGE, make_key(1000), SPECS)
        made.append(make_rows(1, 2))
        set_modes(open_root, 0o555, 0o444)
        assert as_nobody(lambda: assert_rows(reading(open_root), [2, 1])) == 0
        set_modes(open_root, 0o755, 0o644)


def test_commits_that_a_read_only_folder_hides_are_not_ignored(open_root: Path) -> None:
    source = open_root.with_name("source")
    with open_store(source, "a") as store:
        store.generation(STAGE, make_key(1000), SPECS).append(make_rows(1))
        shutil.copytree(source, open_root)  # as a crash would leave it
    (open_root / "manifest.sqlite-shm").unlink()
    assert (open_root / "manifest.sqlite-wal").stat().st_size
    set_modes(open_root, 0o555, 0o444)

    def read() -> None:
        with pytest.raises(RuntimeError, match="open the store for writing once"):
            reading(open_root).keys()

    assert as_nobody(read) == 0
    set_modes(open_root, 0o755, 0o644)


# ---- workers


def read_in_worker(made: Any) -> list[int]:
    values: list[int] = made.read([make_key(number) for number in (3, 11, 0)])["count"].tolist()
    return values


def write_in_worker(writer: Any, shard: int) -> dict[str, Any]:
    document: dict[str, Any] = writer.write_shard(shard, make_rows(shard)).to_json()
    return document


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_and_write_shards(made: Any, method: str) -> None:
    made.append(make_rows(*range(12)))
    assert read_in_worker(made) == [3, 11, 0]  # files are open before the workers start
    first = made.reserve_shards(2)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_in_worker, [made] * 4) == [[3, 11, 0]] * 4
        writer = made.shard_writer()
        documents = pool.starmap(write_in_worker, [(writer, first), (writer, first + 1)])
    made.commit([Receipt.from_json(document) for document in documents])
    assert made.keys()[12:] == []  # rows 2 and 3 were there already
    assert_rows(made, [3, 11, 0])


def test_forked_children_read_through_files_of_their_own(made: Any) -> None:
    made.append(make_rows(*range(12)))
    assert_rows(made, [0, 11])
    child = os.fork()
    if child == 0:
        try:
            assert_rows(made, [11, 3, 0])
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_rows(made, [11, 3, 0])


def test_a_pickled_generation_is_a_reader(made: Any) -> None:
    made.append(make_rows(1))
    again = pickle.loads(pickle.dumps(made))
    assert_rows(again, [1])
    with pytest.raises(OSError, match="open for reading"):
        again.append(make_rows(2))


def test_few_files_are_open_at_a_time(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.shard_files.MAX_OPEN_FILES", 3)
    for number in range(6):
        made.append(make_rows(number))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert_rows(made, [5, 1, 4, 0, 3, 2])
    assert len(os.listdir("/proc/self/fd")) - before == 3


def test_threads_share_few_files(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.shard_files.MAX_OPEN_FILES", 2)
    for number in range(6):
        made.append(make_rows(number))
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(30):
                assert_rows(made, [5, 1, 4, 0, 3, 2])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_verify_every_read_notices_damage_after_the_first_touch(root: Path) -> None:
    folder = fill_store(root, 1, 2)
    once = reading(root)
    always = open_store(root, verify_every_read=True).generation(STAGE, make_key(1000))
    for reader in (once, always):
        assert_rows(reader, [1, 2])
    with (folder / "count/c.0").open("r+b") as file:
        file.write(b"\x07")
    assert once.read([make_key(1)])["count"].tolist() == [7]  # what the switch is for
    with pytest.raises(OSError, match="P01_1"):
        always.read([make_key(1)])


def test_a_large_generation_answers_for_all_its_keys(made: Any) -> None:
    numbers = range(0, 400, 2)
    made.append([make_row(number) for number in numbers])
    asked = [make_key(number) for number in range(400)]
    assert made.missing(asked) == asked[1::2]
    assert_rows(made, [398, 0, 200])
