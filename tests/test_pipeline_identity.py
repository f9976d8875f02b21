from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from blake3 import blake3

from pipeline import identity
from pipeline.identity import IdentityMemo


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders whose content was read, in order."""
    names: list[str] = []

    def counting(real: Callable[[Path], str]) -> Callable[[Path], str]:
        def digest_of(path: Path) -> str:
            names.append(path.name)
            return real(path)

        return digest_of

    monkeypatch.setattr(identity, "_blake3_of", counting(identity._blake3_of))
    monkeypatch.setattr(identity, "_sha256_of", counting(identity._sha256_of))
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that an hour has passed since the files of the test were written."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 3_600 * 10**9)
    monkeypatch.setattr(identity, "time", clock)


def reopened(memo: IdentityMemo, path: Path, *, rehash: bool = False) -> IdentityMemo:
    memo.save()
    return IdentityMemo(path, rehash=rehash)


def make_frames(folder: Path, count: int = 9) -> Path:
    folder.mkdir()
    for number in range(1, count + 1):
        (folder / f"frame_{number:010d}.jpg").write_bytes(b"picture %d" % number)
    return folder


def test_digests_are_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"frames" * 50_000)
    memo = IdentityMemo(tmp_path / "memo.json")
    assert memo.digest(file) == blake3(b"frames" * 50_000).hexdigest()
    assert memo.sha256(file) == hashlib.sha256(b"frames" * 50_000).hexdigest()


def test_an_empty_file_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert IdentityMemo(tmp_path / "memo.json").digest(tmp_path / "empty") == blake3().hexdigest()


@pytest.mark.usefixtures("later")
def test_equal_content_is_equal_after_renaming_copying_and_touching(tmp_path: Path) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"content")
    memo = IdentityMemo(tmp_path / "memo.json")
    digest = memo.digest(file)
    os.utime(file, (1, 1))
    assert memo.digest(file) == digest
    shutil.copy(file, tmp_path / "copy.mp4")
    assert memo.digest(tmp_path / "copy.mp4") == digest
    file.rename(tmp_path / "renamed.mp4")
    assert memo.digest(tmp_path / "renamed.mp4") == digest
    (tmp_path / "copy.mp4").write_bytes(b"CONTENT")
    assert memo.digest(tmp_path / "copy.mp4") != digest


@pytest.mark.usefixtures("later")
def test_a_file_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    memo = IdentityMemo(store)
    digest = memo.digest(file)
    assert memo.digest(file) == digest
    assert reopened(memo, store).digest(file) == digest
    assert hashed == ["video.mp4"]
    # Another digest of the same file is another thing to remember.
    sha256 = memo.sha256(file)
    assert sha256 != digest
    assert reopened(memo, store).sha256(file) == sha256
    assert hashed == ["video.mp4", "video.mp4"]


@pytest.mark.usefixtures("later")
def test_the_same_file_by_another_spelling_of_its_path(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "video.mp4").write_bytes(b"content")
    memo = IdentityMemo(tmp_path / "memo.json")
    memo.digest(tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    memo.digest(Path("video.mp4"))
    memo.digest(Path("./x/../video.mp4"))
    assert hashed == ["video.mp4"]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_other_content_of_the_same_size_and_time_is_noticed(tmp_path: Path, how: str) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"before")
    os.utime(file, ns=(10**18, 10**18))
    memo = IdentityMemo(store)
    before = memo.digest(file)
    time.sleep(0.05)  # change times tick every few milliseconds
    if how == "in place":
        file.write_bytes(b"after!")
    else:
        (tmp_path / "new").write_bytes(b"after!")
        (tmp_path / "new").replace(file)
    os.utime(file, ns=(10**18, 10**18))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (6, 10**18)
    assert reopened(memo, store).digest(file) == blake3(b"after!").hexdigest() != before


@pytest.mark.parametrize("pretend_old", [False, True])
def test_a_file_just_written_is_not_remembered(
    tmp_path: Path, hashed: list[str], pretend_old: bool
) -> None:
    # It may change again within the same tick of the file system's clock. A modification time set
    # back by hand says nothing: the change time tells.
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    if pretend_old:
        os.utime(file, (1, 1))
    memo = IdentityMemo(store)
    memo.digest(file)
    memo.save()
    assert not store.exists()
    memo.digest(file)
    assert hashed == ["video.mp4", "video.mp4"]


@pytest.mark.usefixtures("later")
def test_a_file_that_is_gone_keeps_its_identity(tmp_path: Path, hashed: list[str]) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    frames = make_frames(tmp_path / "frames")
    memo = IdentityMemo(store)
    digests = memo.digest(file), memo.digest(frames)
    file.unlink()
    shutil.rmtree(frames)
    for rehash in (False, True):
        memo = reopened(memo, store, rehash=rehash)
        assert (memo.digest(file), memo.digest(frames)) == digests
    assert len(hashed) == 2


def test_a_file_that_never_was_is_an_error(tmp_path: Path) -> None:
    memo = IdentityMemo(tmp_path / "memo.json")
    with pytest.raises(FileNotFoundError):
        memo.digest(tmp_path / "absent.mp4")
    with pytest.raises(FileNotFoundError):
        memo.sha256(tmp_path / "absent.pt")


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    memo = IdentityMemo(tmp_path / "memo.json")
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        memo.digest(loop)
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        memo.sha256(tmp_path / "folder.pt")


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[1, 2]",
        b'"text"',
        b'{"PATH": 3}',
        b'{"PATH": {"digest": "x"}}',
        b'{"PATH": {"stamp": 3, "digest": "x"}}',
        b'{"PATH": {"stamp": [[1, 2, 3, 4]], "digest": 5}}',
        b'{"PATH": {"stamp": [], "digest": "x"}}',
    ],
)
def test_a_damaged_memo_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    store.write_bytes(content.replace(b"PATH", str(file).encode()))
    memo = IdentityMemo(store)
    assert memo.digest(file) == blake3(b"content").hexdigest()
    memo.save()
    assert json.loads(store.read_text())[str(file)]["digest"] == blake3(b"content").hexdigest()


@pytest.mark.usefixtures("later")
def test_saving_keeps_what_was_remembered_of_others(tmp_path: Path, hashed: list[str]) -> None:
    store = tmp_path / "memo.json"
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
        memo = IdentityMemo(store)
        memo.digest(tmp_path / name)
        memo.save()
    memo = IdentityMemo(store)
    memo.digest(tmp_path / "a")
    memo.digest(tmp_path / "b")
    assert hashed == ["a", "b"]


@pytest.mark.usefixtures("later")
def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    memo = IdentityMemo(store)
    memo.digest(file)
    memo.save()
    store.unlink()
    memo.digest(file)
    memo.save()
    assert not store.exists()


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    frames = make_frames(tmp_path / "frames", 3)
    digest = IdentityMemo(tmp_path / "memo.json").digest(frames)
    total = blake3()
    for number in (1, 2, 3):
        name = f"frame_{number:010d}.jpg"
        total.update(b"20:" + name.encode() + b":" + blake3(b"picture %d" % number).digest())
    assert digest == total.hexdigest()


@pytest.mark.usefixtures("later")
def test_a_folder_renamed_or_copied_is_the_same(tmp_path: Path) -> None:
    frames = make_frames(tmp_path / "frames")
    memo = IdentityMemo(tmp_path / "memo.json")
    digest = memo.digest(frames)
    shutil.copytree(frames, tmp_path / "copy")
    frames.rename(tmp_path / "renamed")
    assert memo.digest(tmp_path / "renamed") == digest
    assert memo.digest(tmp_path / "copy") == digest


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", ["add", "remove", "rename", "swap", "first", "middle", "last"])
def test_a_folder_that_changes_is_noticed(tmp_path: Path, change: str) -> None:
    frames = make_frames(tmp_path / "frames")
    names = sorted(path.name for path in frames.iterdir())
    memo = IdentityMemo(tmp_path / "memo.json")
    digest = memo.digest(frames)
    time.sleep(0.05)
    if change == "add":
        (frames / "frame_0000000010.jpg").write_bytes(b"picture 10")
    elif change == "remove":
        (frames / names[3]).unlink()
    elif change == "rename":
        (frames / names[8]).rename(frames / "frame_0000000011.jpg")
    elif change == "swap":
        (frames / names[1]).rename(frames / "x")
        (frames / names[2]).rename(frames / names[1])
        (frames / "x").rename(frames / names[2])
    else:
        index = {"first": 0, "middle": 4, "last": 8}[change]
        (frames / names[index]).write_bytes(b"another picture")
    assert memo.digest(frames) != digest


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("number", [1, 5, 9])
@pytest.mark.parametrize("component", ["u", "v"])
def test_folders_of_flow_are_looked_into(tmp_path: Path, component: str, number: int) -> None:
    for name in "uv":
        (tmp_path / "flow").mkdir(exist_ok=True)
        make_frames(tmp_path / "flow" / name)
    memo = IdentityMemo(tmp_path / "memo.json")
    digest = memo.digest(tmp_path / "flow")
    time.sleep(0.05)
    frame = tmp_path / "flow" / component / f"frame_{number:010d}.jpg"
    frame.write_bytes(b"another picture")
    assert memo.digest(tmp_path / "flow") != digest


def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        IdentityMemo(tmp_path / "memo.json").digest(tmp_path / "pipe.mp4")


@pytest.mark.usefixtures("later")
def test_another_frame_written_over_in_place_needs_rehash(tmp_path: Path) -> None:
    store = tmp_path / "memo.json"
    frames = make_frames(tmp_path / "frames")
    memo = IdentityMemo(store)
    digest = memo.digest(frames)
    time.sleep(0.05)
    (frames / "frame_0000000002.jpg").write_bytes(b"PICTURE 2")
    assert reopened(memo, store).digest(frames) == digest  # nothing that is looked at tells
    memo = reopened(memo, store, rehash=True)
    changed = memo.digest(frames)
    assert changed != digest
    assert reopened(memo, store).digest(frames) == changed


@pytest.mark.usefixtures("later")
def test_rehash_hashes_each_file_once(tmp_path: Path, hashed: list[str]) -> None:
    file, store = tmp_path / "video.mp4", tmp_path / "memo.json"
    file.write_bytes(b"content")
    memo = IdentityMemo(store)
    memo.digest(file)
    memo = reopened(memo, store, rehash=True)
    memo.digest(file)
    memo.digest(file)
    assert hashed == ["video.mp4"] * 2


@pytest.mark.usefixtures("later")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    frames, store = make_frames(tmp_path / "frames"), tmp_path / "memo.json"
    odd = os.fsencode(frames) + b"/\xff\xfe.jpg"
    with open(odd, "wb") as file:
        file.write(b"odd")
    memo = IdentityMemo(store)
    digest = memo.digest(frames)
    odd_path = Path(os.fsdecode(odd))
    assert memo.digest(odd_path) == blake3(b"odd").hexdigest()
    assert reopened(memo, store).digest(frames) == digest
