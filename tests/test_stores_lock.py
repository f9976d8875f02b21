"""Who holds a store is said to whoever is refused."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import pytest

from stores import StoreLockedError
from stores.lock import LOCK_FILE, WriterLock


def test_who_is_refused_learns_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["symbio", "run", "a\nb", "\U0001f600" * 500])
    lock = WriterLock(tmp_path)
    with pytest.raises(StoreLockedError) as caught:
        WriterLock(tmp_path)
    lock.release()
    text = str(caught.value)
    assert f"held by process {os.getpid()} on '{socket.gethostname()}' since '20" in text
    assert "'symbio run a\\nb \\U0001f600" in text
    assert text.isprintable()
    WriterLock(tmp_path).release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "\x1b[2J"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path, text: str) -> None:
    lock = WriterLock(tmp_path)
    (tmp_path / LOCK_FILE).write_text(text)
    with pytest.raises(StoreLockedError, match=re.escape("a process that is just starting")):
        WriterLock(tmp_path)
    lock.release()
