"""What failures are called: a name for each class of error, which does not change with the code.

Stores keep the name of the exception. People see and type the names of this table; an exception
that is not in it is spelt like one: ``SomethingOdd`` is ``something_odd``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from pipeline.errors import ConfigError
from stores.base import Failure

__all__ = ["ERROR_CLASSES", "Retry", "class_name", "is_retried", "of_classes"]

# Name → the exceptions it stands for. docs/extraction.md says what each means and what to do.
ERROR_CLASSES = {
    "unreadable_video": ("UnreadableVideo",),
    "truncated_video": ("TruncatedVideo",),
    "decode_error": ("FrameDecodeError",),
    "video_changed": ("VideoChanged",),
    "video_vanished": ("VideoVanished",),
    "decoder_hung": ("DecoderHung",),
    "decoder_timeout": ("DecoderTimeout",),
    "decoder_memory": ("DecoderMemory",),
    "decoder_died": ("DecoderDied",),
    "worker_died": ("WorkerDied",),
    "bad_input": ("ValueError",),
    "not_finite": ("OverflowError", "RefusedRowError", "FloatingPointError"),
    "out_of_memory": ("OutOfMemoryError", "MemoryError"),
}
# Which failures are tried again: all, none, or those of the classes named.
Retry = bool | Collection[str]
_NAMES = {error: name for name, errors in ERROR_CLASSES.items() for error in errors}


def class_name(error_class: str) -> str:
    """The name of a class of errors, from that of the exception: FrameDecodeError → decode_error.

    A name stays as it is.
    """
    spelt = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", error_class).lower()
    return _NAMES.get(error_class, spelt)


def is_retried(failure: Failure, retry: Retry) -> bool:
    """Whether a row that failed is to be tried again."""
    return retry if isinstance(retry, bool) else class_name(failure.error_class) in retry


def of_classes(failures: Iterable[Failure], names: Collection[str]) -> list[Failure]:
    """Failures of the classes named; all of them where none is.

    Raises:
        ConfigError: a name that is neither in the table nor that of one of the failures.
    """
    found = list(failures)
    known = {*ERROR_CLASSES, *(class_name(failure.error_class) for failure in found)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ConfigError(
            f"--class: got {', '.join(unknown)}, expected one of {', '.join(sorted(known))}"
        )
    return [f for f in found if not names or class_name(f.error_class) in names]
