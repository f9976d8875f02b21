"""The files of a store that only other programs read, and that can be made again at any time."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

from stores.durable import replace_file
from stores.formats import shard_format
from stores.layout import GenerationLayout

_TIMES_AS_LONG = 10.0


class NowAndThen:
    """Something that is written again and again, but takes a tenth of the time at most."""

    def __init__(self, min_seconds: float) -> None:
        self._min_seconds = min_seconds
        self._due_seconds = monotonic() + min_seconds

    def write_if_due(self, write: Callable[[], None]) -> None:
        """Call `write`, unless that was done a short while ago."""
        began = monotonic()
        if began >= self._due_seconds:
            write()
            ended = monotonic()
            self._due_seconds = ended + max(self._min_seconds, _TIMES_AS_LONG * (ended - began))


def write_documents(layout: GenerationLayout, rows: int) -> None:
    """Bring what describes a generation up to `rows` rows; leave files that are right.

    Not synced: a document that a power cut spoils is written again when the store is next
    opened for writing, since it no longer equals what it should be.
    """
    for path, document in shard_format(layout.format).documents(layout, rows).items():
        _bring_up_to_date(path, document)


def wrong_documents(layout: GenerationLayout, rows: int) -> list[Path]:
    """Return the files that are missing or describe something else."""
    documents = shard_format(layout.format).documents(layout, rows)
    return [path for path, document in documents.items() if not holds(path, document)]


def _bring_up_to_date(path: Path, document: bytes) -> None:
    if not holds(path, document):
        replace_file(path, document, durable=False)


def holds(path: Path, document: bytes) -> bool:
    """Return whether a file is there and is exactly `document`."""
    # The size first: a file from elsewhere may be of any size.
    try:
        return path.stat().st_size == len(document) and path.read_bytes() == document
    except FileNotFoundError:
        return False
