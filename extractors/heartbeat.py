"""Signs of life from reading that may take long, for whoever watches over this process.

Numbering a video reads all of it, and a frame in the middle of a file that cannot be sought needs
all frames before it: minutes without a result are no reason to think that a reader hangs. Readers
say so after every packet, frame or member.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["beat", "listen"]

_listener: Callable[[], None] | None = None


def beat() -> None:
    """Say that something has been read; costs next to nothing where nobody listens."""
    if _listener is not None:
        _listener()


def listen(listener: Callable[[], None] | None) -> None:
    """Call `listener` at every sign of life in this process from now on; None ends that."""
    global _listener
    _listener = listener
