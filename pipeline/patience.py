"""Waiting for storage that is gone for a while: a network folder, a disk that comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import in_words
from stores.base import StorageUnavailableError

__all__ = ["Patience"]

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0

Result = TypeVar("Result")


def _say_nothing(text: str) -> None:
    """For workers, whose coordinator says it."""


@dataclass(frozen=True)
class Patience:
    """Does things again while the store's folder cannot be reached.

    Attributes:
        seconds: to wait at most; then the error is raised.
        tell: is told once when the waiting begins, and once when it is over.
    """

    seconds: float
    tell: Callable[[str], None] = _say_nothing

    def __call__(self, action: Callable[[], Result]) -> Result:
        """Do something; what fails for want of storage must be repeatable.

        Raises:
            StorageUnavailableError: the storage stayed away.
        """
        began = time.monotonic()
        pause_seconds = FIRST_PAUSE_SECONDS
        waited = False
        while True:
            try:
                result = action()
            except StorageUnavailableError as error:
                if time.monotonic() - began + pause_seconds > self.seconds:
                    raise
                if not waited:
                    gone = in_words(error)
                    self.tell(f"{gone}; waiting up to {self.seconds:g} s for it to come back")
                waited = True
            else:
                if waited:
                    self.tell("the storage is back")
                return result
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
