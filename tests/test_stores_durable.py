"""The order in which files get to disk."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_calls import WRITES, Call, intercepted
from fault_harness import Kind, check_values, every_kind, rows_of
from store_damage import files_of
from store_suite import fast_folder

from stores.durable import create_file, replace_file, sweep_temps


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


class Calls(list[tuple[str, str]]):
    """A hook for `intercepted` that keeps (call, file) of each call that changes the disk."""

    def __call__(self, name: str, call: Call) -> Any:
        if name in ("BEGIN", "COMMIT"):
            self.append((name, "manifest"))
        elif name == "open" and call.args[1] & os.O_CREAT and self._name(call.args[0]) != ".lock":
            assert call.args[1] & os.O_EXCL
            assert call.args[1] & os.O_NOFOLLOW
            self.append(("create", self._name(call.args[0])))
        elif name in (*WRITES, "fsync", "link", "unlink", "rename"):
            entry = name, self._name(call.args[0])
            if self[-1:] != [entry]:  # a file may be written in parts
                self.append(entry)
        return call()

    def _name(self, target: Any) -> str:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        name = path.rsplit("/", 1)[-1]
        return "temp of " + name[1:].rsplit(".", 3)[0] if name.endswith(".tmp") else name


@every_kind
def test_a_shard_is_on_disk_before_the_manifest_names_it(kind: Kind, folder: Path) -> None:
    calls = Calls()
    with intercepted(calls), kind.open(folder / "store") as store:
        made: Any = kind.generation(store, "objects")
        calls.clear()
        made.append(rows_of("objects", [1]))
        expected = [("BEGIN", "manifest"), ("COMMIT", "manifest")]
        for path in files_of(made, 0):
            name = f"temp of {path.name}"
            expected += [("create", name), ("writev", name), ("fsync", name)]
            expected += [("link", name), ("unlink", name), ("fsync", path.parent.name)]
        expected += [("BEGIN", "manifest"), ("COMMIT", "manifest")]
        assert calls[: len(expected)] == expected
        # The documents follow, which are not synced.
        assert {name for name, _ in calls[len(expected) :]} <= {"create", "writev", "rename"}


@every_kind
def test_the_manifest_waits_for_the_disk(kind: Kind, folder: Path) -> None:
    with kind.open(folder / "store") as store:
        manifest: Any = store
        connection = manifest._writer._connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@every_kind
def test_a_generation_is_described_last_and_then_registered(kind: Kind, folder: Path) -> None:
    calls = Calls()
    with intercepted(calls), kind.open(folder / "store") as store:
        made = kind.generation(store, "objects")
    name = "temp of stage.json"
    at = calls.index(("create", name))
    assert calls[at : at + 7] == [
        *[("create", name), ("writev", name), ("fsync", name), ("rename", name)],
        *[("fsync", made.path.name), ("BEGIN", "manifest"), ("COMMIT", "manifest")],
    ]
    for parent in (folder, folder / "store", made.path.parent):
        assert ("fsync", parent.name) in calls[:at]


@every_kind
def test_short_writes_are_continued(
    kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_some(target: int, blocks: list[Any]) -> int:
        return os.write(target, b"".join(blocks)[:7])

    monkeypatch.setattr(os, "writev", write_some)
    with kind.open(folder / "store") as store:
        made = kind.generation(store, "objects")
        made.append(rows_of("objects", [1, 2, 3]))
        check_values(made, [3, 1, 2])
        assert made.verify() == []


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
