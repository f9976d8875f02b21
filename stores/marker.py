"""symbio.json: the file by which a folder is known to be a store, and of which format."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from stores.durable import replace_file, temp_target
from stores.formats import FORMATS
from stores.layout import FORMAT_VERSION, STAGE_FILE, read_layout
from stores.lock import LOCK_FILE
from stores.untrusted import NoPlainFileError, read_document

MARKER_FILE = "symbio.json"


def read_format(root: Path) -> str | None:
    """Return the format of the store in `root`, None where there is no marker.

    Raises:
        ValueError: the marker is damaged, or of a version this program does not know.
    """
    path = root / MARKER_FILE
    try:
        document = read_document(path)
        version, name = document["format_version"], str(document["format"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (NoPlainFileError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"got {path} that is no marker of a store ({error!r})") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"got a store of version {version} in {root}, expected {FORMAT_VERSION}; update symbio"
        )
    return name


def check_marker(root: Path, expected: str) -> None:
    """Raise unless `root` is a store of format `expected`."""
    found = read_format(root)
    if found is None:
        raise FileNotFoundError(
            errno.ENOENT, f"got no store (no {MARKER_FILE}), expected one", str(root)
        )
    if found != expected:
        raise ValueError(
            f"got a store of format {found!r} in {root}, expected {expected!r}; name another "
            "folder, or make a store of that format with `symbio store convert`"
        )


def check_free_or_ours(root: Path, expected: str) -> None:
    """Raise unless `root` is missing, empty, or a store of format `expected`.

    Raises:
        NotADirectoryError: `root` is a file.
        FileExistsError: `root` holds things that no store put there.
    """
    if not root.exists():
        return
    if not root.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "got a file, expected a folder", str(root))
    if read_format(root) is not None:
        check_marker(root, expected)
        return
    names = os.listdir(root)
    foreign = sorted(name for name in names if name != LOCK_FILE and not temp_target(name))
    if foreign:
        raise FileExistsError(
            f"got {root}, which holds {', '.join(foreign[:5])} and no {MARKER_FILE}, expected a "
            "store or an empty folder; choose another folder"
        )


def restore_marker(root: Path) -> bool:
    """Write a lost or damaged marker again, in the format that the generations are of.

    Returns:
        Whether that was done: a good marker stays, and one of another version, and nothing is
        written where there are no generations or they do not agree.
    """
    try:
        if read_format(root) in FORMATS or not root.is_dir():
            return False
    except ValueError as error:
        if error.__cause__ is None:  # of another version
            return False
    formats = set()
    for path in root.glob(f"*/*/{STAGE_FILE}"):
        with suppress(ValueError):
            formats.add(read_layout(path.parent).format)
    if len(formats) != 1:
        return False
    _write(root, formats.pop())
    return True


def write_marker(root: Path, name: str) -> None:
    """Mark `root` as a store of format `name`, where it is not marked yet."""
    if read_format(root) is None:
        _write(root, name)


def _write(root: Path, name: str) -> None:
    document = {"format_version": FORMAT_VERSION, "format": name}
    text = (json.dumps(document, indent=2) + "\n").encode()
    replace_file(root / MARKER_FILE, text, durable=True)
