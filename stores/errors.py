"""What a store answers where it cannot do what it is asked."""

import io
from collections.abc import Sequence
from pathlib import Path

from stores.records import name_some


class MissingRowsError(KeyError):
    """Rows were asked for that the generation does not hold."""

    def __init__(self, stage: str, keys: Sequence[str]) -> None:
        super().__init__(stage, list(keys))
        self.stage = stage
        self.row_keys = list(keys)

    def __str__(self) -> str:
        return (
            f"got {len(self.row_keys):,} row keys that stage {self.stage!r} does not hold "
            f"({name_some(self.row_keys)}), expected stored rows; extract them first"
        )


class MissingGenerationError(LookupError):
    """A generation was asked for that the store does not hold."""


class CorruptRowError(OSError):
    """Stored bytes are not what was written."""

    def __init__(self, message: str, row_keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.row_keys = list(row_keys)


class StoreLockedError(OSError):
    """Somebody else has the store open for writing."""


class GenerationInUseError(OSError):
    """A generation cannot be removed while somebody reads it."""


class StorageUnavailableError(OSError):
    """The folder of the store cannot be reached now; what failed can be done again once it can.

    `errno` says what the system answered, `filename` is the folder.
    """


def read_only_error(path: Path) -> io.UnsupportedOperation:
    """Return the error for a write to what is open for reading."""
    return io.UnsupportedOperation(
        f"got a write to {path}, which is open for reading; open the store with mode 'a'"
    )


class RefusedRowError(ValueError):
    """A row holds values that are never stored; the other rows of its shard are fine."""

    def __init__(self, message: str, row_key: str) -> None:
        super().__init__(message, row_key)
        self.row_key = row_key

    def __str__(self) -> str:
        return str(self.args[0])
