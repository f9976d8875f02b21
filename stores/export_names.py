"""Names for exported rows that are readable, different, and safe whatever the ids are.

A row is named by its clip id. Where several rows share one (a replaced video, other random
views, a time that is rounded in the id) the number of the view, the time of the first frame or
the row key comes behind it: "a/b/0#1", "a/b/0@12.5", "a/b/0~0123456789ab".

In file names everything but [A-Za-z0-9._-] is percent-encoded, in HDF5 links only what HDF5
takes for a path; `urllib.parse.unquote` gives the name back, unless it was too long.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from stores.records import RowInfo

MAX_FILE_NAME_BYTES = 200

_HASH_DIGITS = 12
# Devices on Windows, whatever ending they have.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.I | re.A)

KeyedRow = tuple[str, RowInfo]


def file_names(rows: Sequence[KeyedRow]) -> list[str]:
    """Return a file name without ending per row, different also where case does not count."""
    return _different_names(rows, encode_file_name, str.lower)


def link_names(rows: Sequence[KeyedRow]) -> list[str]:
    """Return the name of an HDF5 link per row."""
    return _different_names(rows, encode_link_name, str)


def encode_file_name(label: str) -> str:
    """Return `label` as a name of at most 200 ASCII bytes that starts with no dot."""
    name = quote(label, safe="").replace("~", "%7E")
    if name.startswith(".") or _RESERVED.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) <= MAX_FILE_NAME_BYTES:
        return name
    digest = hashlib.sha256(label.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: MAX_FILE_NAME_BYTES - _HASH_DIGITS - 1]}-{digest}"


def encode_link_name(label: str) -> str:
    """Return `label` as the name of one link, which neither nests nor leads elsewhere."""
    name = label.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return name.replace(".", "%2E") if name in (".", "..") else name


def _different_names(
    rows: Sequence[KeyedRow], encode: Callable[[str], str], fold: Callable[[str], str]
) -> list[str]:
    """Return for each row the first of its labels that it shares with no other row."""
    choices = [[encode(label) for label in _labels(*row)] for row in rows]
    chosen = [0] * len(rows)
    while True:
        names = [labels[place] for labels, place in zip(choices, chosen, strict=True)]
        counts = Counter(map(fold, names))
        shared = [row for row, name in enumerate(names) if counts[fold(name)] > 1]
        if not shared:
            return names
        for row in shared:  # the last label is the row key, which no other row falls back on
            chosen[row] = min(chosen[row] + 1, len(choices[row]) - 1)


def _labels(row_key: str, info: RowInfo) -> Iterator[str]:
    seconds = f"{info.first_seconds:.6f}".rstrip("0").rstrip(".")
    yield info.clip_id
    yield f"{info.clip_id}#{info.view}"
    yield f"{info.clip_id}@{seconds}"
    yield f"{info.clip_id}~{row_key[:_HASH_DIGITS]}"
    yield row_key
