"""Files that are there whole or not at all, also after a crash or a power cut.

Temporary files start with a dot and carry the process id, so that a sweep knows them again.
Links are never followed: a folder or file of a store that was swapped for a symbolic link is
an error, not a way out of the store.
"""

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMP = re.compile(r"\.(.+)\.\d+\.[0-9a-f]{32}\.tmp")
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

_MAX_BLOCKS = 1024  # IOV_MAX on Linux
_BATCH_NBYTES = 2**23  # few large writes, and memory for a few rows only

Block = bytes | bytearray | memoryview


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Yield a descriptor of a real folder; raise NotADirectoryError for links and files."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, "got a file or a symbolic link, expected a folder", str(folder)
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk, whichever process made them."""
    with open_folder(folder) as descriptor, _naming(folder, "while syncing names in it"):
        os.fsync(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` in an existing one; leave it where it is there already. Durable."""
    with suppress(FileExistsError):
        folder.mkdir()
    with open_folder(folder):
        pass
    sync_folder(folder.parent)


def make_root(folder: Path) -> None:
    """Create `folder` and what is missing above it. Durable."""
    if not folder.parent.exists():
        make_root(folder.parent)
    folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # one may live below a folder that one may not list
        sync_folder(folder.parent)


def create_file(folder: Path, name: str, blocks: Iterable[Block], nbytes: int) -> int:
    """Write a new file whole, on disk when this returns; never replace one.

    Returns:
        Its size in bytes.

    Args:
        nbytes: of all blocks, for the message when there is no room for them.

    Raises:
        FileExistsError: `name` is taken; it is left as it is.
        OSError: writing or syncing failed; nothing is left behind. A failed fsync is final,
            since the kernel may have dropped the data: the file has to be written anew.
    """
    with open_folder(folder) as parent, _naming(folder / name, f"while writing {nbytes:,} bytes"):
        temp = _write_temp(parent, name, blocks, durable=True)
        try:
            _publish(parent, temp, name)
        except FileExistsError:
            raise FileExistsError(
                errno.EEXIST,
                "got a shard that was written before; reserve another one",
                str(folder / name),
            ) from None
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=parent)
        try:
            os.fsync(parent)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_size


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Write `data` as the whole of `path`, replacing what was there in one step.

    Args:
        durable: wait for the disk; not needed for files that can be made again from others.
    """
    _replace(path, [data], f"while writing {len(data):,} bytes", durable=durable)


def replace_by_blocks(path: Path, blocks: Iterable[Block]) -> None:
    """Do as `replace_file` with what comes block by block, not durably."""
    _replace(path, blocks, "while writing it", durable=False)


def _replace(path: Path, blocks: Iterable[Block], action: str, *, durable: bool) -> None:
    with open_folder(path.parent) as parent, _naming(path, action):
        temp = _write_temp(parent, path.name, blocks, durable=durable)
        try:
            os.rename(temp, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(temp, dir_fd=parent)
            raise
        if durable:
            os.fsync(parent)


def sweep_temps(folder: Path, keep: Callable[[str], bool] = lambda name: False) -> int:
    """Remove temporary files that a crash left in `folder`; return how many.

    Args:
        keep: which to leave, by the name that the file was to get.
    """
    targets = {entry.path: temp_target(entry.name) for entry in os.scandir(folder)}
    temps = [path for path, target in targets.items() if target and not keep(target)]
    for temp in temps:
        os.unlink(temp)
    return len(temps)


def temp_target(name: str) -> str | None:
    """Return the name that a temporary file of ours was to get, None for any other file."""
    match = _TEMP.fullmatch(name)
    return match[1] if match else None


@contextmanager
def _naming(target: Path, action: str) -> Iterator[None]:
    """Say in errors of the disk which file or folder they are about, and what was done."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        message = f"{os.strerror(error.errno)} ({action})"
        raise OSError(error.errno, message, str(target)) from error


def _write_temp(parent: int, name: str, blocks: Iterable[Block], *, durable: bool) -> str:
    """Write `blocks` to a fresh temporary file; return its name."""
    temp = f".{name}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temp, flags, 0o666, dir_fd=parent)
    try:
        try:
            _write_all(descriptor, blocks)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        os.unlink(temp, dir_fd=parent)
        raise
    return temp


def _write_all(descriptor: int, blocks: Iterable[Block]) -> None:
    """Write blocks as they come, a batch at a time, without copying them together."""
    batch: list[memoryview] = []
    batch_nbytes = 0
    for block in blocks:
        batch.append(memoryview(block))
        batch_nbytes += batch[-1].nbytes
        if batch_nbytes >= _BATCH_NBYTES or len(batch) == _MAX_BLOCKS:
            _write_batch(descriptor, batch)
            batch, batch_nbytes = [], 0
    _write_batch(descriptor, batch)


def _write_batch(descriptor: int, views: list[memoryview]) -> None:
    """Write everything; the kernel may take it in parts."""
    while views:
        written = os.writev(descriptor, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _publish(parent: int, temp: str, name: str) -> None:
    """Give the file its final name in one step that fails where the name is taken."""
    try:
        os.link(temp, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # exFAT and some network file systems have no hard links. Shard numbers are handed out
        # once, so looking first is enough there.
        if name in os.listdir(parent):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        os.rename(temp, name, src_dir_fd=parent, dst_dir_fd=parent)
