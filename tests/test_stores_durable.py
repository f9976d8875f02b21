"""The order in which a shard gets to disk, and what happens when the disk refuses."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_suite import SPECS, STAGE, assert_rows, fast_folder, make_key, make_rows

from stores import open_store
from stores.durable import create_file, replace_file, sweep_temps


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def made(folder: Path) -> Iterator[Any]:
    with open_store(folder / "store", "a") as store:
        yield store.generation(STAGE, make_key(1000), {"count": SPECS["count"]})


def count_row(number: int) -> Any:
    (row,) = make_rows(number)
    return type(row)(row.key, {"count": row.arrays["count"]}, row.info)


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return a list that fills with (call, file) as files are made."""
    calls: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    real_open = os.open

    def describe(path: Any) -> str:
        name = str(path).rsplit("/", 1)[-1]
        return "temp of " + name[1:].rsplit(".", 3)[0] if name.endswith(".tmp") else name

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = real_open(path, flags, *args, **kwargs)
        names[descriptor] = describe(path)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
            calls.append(("create", describe(path)))
        return descriptor

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((name, names[target] if isinstance(target, int) else describe(target)))
            return real(target, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    monkeypatch.setattr(os, "open", open_)
    for name in ("writev", "fsync", "link", "unlink", "rename"):
        wrap(name)
    return calls


def test_a_shard_is_on_disk_before_the_manifest_names_it(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    connection = made._writer._connection

    def record(statement: str) -> None:
        verb = statement.split()[0]
        if verb != "SELECT":
            calls.append(("sql", verb))

    connection.set_trace_callback(record)
    made.append([count_row(1)])
    assert calls == [
        *[("sql", "BEGIN"), ("sql", "UPDATE"), ("sql", "COMMIT")],
        ("create", "temp of c.0"),
        ("writev", "temp of c.0"),
        ("fsync", "temp of c.0"),
        ("link", "temp of c.0"),
        ("unlink", "temp of c.0"),
        ("fsync", "count"),
        *[("sql", "BEGIN"), ("sql", "INSERT"), ("sql", "INSERT"), ("sql", "UPDATE")],
        *[("sql", "DELETE"), ("sql", "UPDATE"), ("sql", "COMMIT")],
        *[("create", "temp of zarr.json"), ("writev", "temp of zarr.json")],
        ("rename", "temp of zarr.json"),
    ]


def test_the_manifest_waits_for_the_disk(made: Any) -> None:
    connection = made._writer._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_stage_description_is_synced_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(folder / "store", "a") as store:
        calls = record_calls(monkeypatch)
        made = store.generation(STAGE, make_key(1000), SPECS)
        assert calls[-5:] == [
            *[("create", "temp of stage.json"), ("writev", "temp of stage.json")],
            *[("fsync", "temp of stage.json"), ("rename", "temp of stage.json")],
            ("fsync", made.path.name),
        ]


def test_short_writes_are_continued(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_some(target: int, blocks: list[Any]) -> int:
        return os.write(target, b"".join(blocks)[:7])

    monkeypatch.setattr(os, "writev", write_some)
    made.append([count_row(1), count_row(2)])
    assert made.read([make_key(2), make_key(1)])["count"].tolist() == [2, 1]
    assert made.verify() == []


@pytest.mark.parametrize("call", ["writev", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_shard_the_disk_refuses_is_given_up_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    with open_store(folder / "store", "a") as store:
        made = store.generation(STAGE, make_key(1000), SPECS)
        first = made.reserve_shards(2)
        real, real_open, bad = getattr(os, call), os.open, set()

        def open_(path: Any, *args: Any, **kwargs: Any) -> int:
            descriptor = real_open(path, *args, **kwargs)
            if "c.0.0" in str(path) and "mask" in os.readlink(f"/proc/self/fd/{descriptor}"):
                bad.add(descriptor)
            return descriptor

        def refuse(target: Any, *args: Any) -> Any:
            if target in bad:
                raise OSError(code, os.strerror(code))
            return real(target, *args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_)
            patch.setattr(os, call, refuse)
            message = rf"{os.strerror(code)} \(while writing [\d,]+ bytes\): '.*/mask/c\.0\.0'"
            with pytest.raises(OSError, match=message) as caught:
                made.write_shard(first, make_rows(1))
        assert caught.value.errno == code
        assert not list(made.path.rglob("*c.0*"))
        made.commit([made.write_shard(first + 1, make_rows(1))])
        assert_rows(made, [1])


def test_create_file_never_replaces(folder: Path) -> None:
    create_file(folder, "a", [b"one", b"two"], 6)
    with pytest.raises(FileExistsError, match="written before"):
        create_file(folder, "a", [b"three"], 5)
    (folder / "link").symlink_to(folder / "nowhere")
    with pytest.raises(FileExistsError):
        create_file(folder, "link", [b"three"], 5)
    assert (folder / "a").read_bytes() == b"onetwo"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "link"]


def test_create_file_where_there_are_no_hard_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    create_file(folder, "a", [b"one"], 3)
    with pytest.raises(FileExistsError, match="written before"):
        create_file(folder, "a", [b"two"], 3)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"one")]


def test_replace_file_replaces_links_instead_of_following_them(folder: Path) -> None:
    (folder / "target").write_bytes(b"mine")
    (folder / "a").symlink_to(folder / "target")
    replace_file(folder / "a", b"new", durable=True)
    assert (folder / "target").read_bytes() == b"mine"
    assert not (folder / "a").is_symlink()


def test_replace_file_leaves_nothing_behind_when_it_fails(folder: Path) -> None:
    (folder / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(folder / "a", b"new", durable=False)
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_sweep_removes_our_temporary_files_and_no_others(folder: Path) -> None:
    ours = f".c.0.0.12345.{'0f' * 16}.tmp"
    others = ["c.0.0", ".tmp", ".a.tmp", f"c.0.12345.{'0f' * 16}.tmp", f".a.12345.{'0g' * 16}.tmp"]
    for name in [ours, *others]:
        (folder / name).touch()
    assert sweep_temps(folder) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(others)
