"""What may be a name, a key or an id in a store.

Names (stages, outputs, dims) become folders and are kept to `[a-z][a-z0-9_]*`. Ids come from
annotation files, may hold any printable text, and are only ever values, never parts of a path.
"""

import re
import unicodedata

__all__ = ["check_id", "check_key", "check_name"]

MAX_ID_BYTES = 255

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEY = re.compile(r"[0-9a-f]{64}")


def check_name(what: str, name: str) -> str:
    """Return `name`; raise ValueError unless it is a lower-case word that is safe as a folder."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"got {what} name {name!r}, expected [a-z][a-z0-9_]* of at most 64 characters"
        )
    return name


def check_key(what: str, key: str) -> str:
    """Return `key`; raise ValueError unless it is a sha256 written as 64 lower-case hex digits."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"got {what} {key!r}, expected 64 lower-case hex digits (a sha256)")
    return key


def check_id(what: str, value: str) -> str:
    """Return `value`; raise ValueError for control characters, broken Unicode or over 255 bytes."""
    if not isinstance(value, str):
        raise TypeError(f"got {what} {value!r} of type {type(value).__name__}, expected str")
    # The first test is fast and settles nearly all ids.
    if not value.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise ValueError(f"got {what} {value!r}, expected no control or surrogate characters")
    if len(value.encode()) > MAX_ID_BYTES:
        raise ValueError(f"got {what} {value[:40]!r}…, expected at most {MAX_ID_BYTES} bytes")
    return value
