"""`open_store`, which is how everybody gets a store."""

import os
from pathlib import Path

from stores.base import Store
from stores.formats import DEFAULT_FORMAT, FORMATS, check_format
from stores.marker import read_format

__all__ = ["FORMATS", "open_store"]

MODES = ("r", "a")


def open_store(
    path: str | os.PathLike[str],
    mode: str = "r",
    format: str | None = None,
    *,
    verify_every_read: bool = False,
    recheck: bool = False,
) -> Store:
    """Open the store in a folder, or create one.

    Args:
        mode: "r" to read; "a" to read and write, which creates the store where the folder is
            missing or empty, and which one process at a time may do.
        format: one of `FORMATS`; by default what the folder holds, or "zarr" for a new store.
        verify_every_read: compare checksums at each read, not only the first time a row is read.
        recheck: with mode "a", look at the record of every row in the manifest, and rebuild it
            where one is not as it was written; else those that index.bin vouches for are not read.

    Raises:
        ValueError: unknown mode or format, or the folder holds a store of another format.
        FileNotFoundError: mode "r", and there is no store.
        FileExistsError: the folder holds things and is not a store.
        StoreLockedError: mode "a", and somebody else is writing.
    """
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}, expected one of {', '.join(MODES)}")
    root = Path(path)
    name = check_format(format or read_format(root) or DEFAULT_FORMAT)
    from stores.folder_store import FolderStore  # with SQLite, which not everybody needs

    return FolderStore(root, mode, name, verify_every_read=verify_every_read, recheck=recheck)
