"""What took the networks' libraries to find out, remembered: planning does without them.

Importing torch takes longer, and more memory, than naming half a million rows. The few things that
planning needs of it (the keys of stages, the sizes of rows that are not there yet, whether a head
can be trained) follow from settings, from digests of weights, and from code. So they are kept
under a digest of all of that: our sources, byte by byte, Python, and every installed distribution
with its version. Whatever of it differs, the answer is found out anew.

A process that has torch loaded already neither asks nor adds to what is remembered: finding out
costs it nothing, and it may hold code that no file says, such as an extractor registered by hand.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from pipeline.keys import canonical_json
from stores.durable import replace_file

__all__ = ["KNOWN_NAME", "Known"]

KNOWN_NAME = "known.json"
SOURCES = ("extractors", "heads", "pipeline", "stores")
ROOT = Path(__file__).parent.parent
# Installed, perhaps, by other means than a package manager.
LIBRARIES = ("torch", "torchvision", "av", "decord", "cv2", "detectron2", "PIL")

Found = TypeVar("Found")


class Known:
    """Answers by what they follow from, kept in one small JSON file.

    Args:
        store: the folder of the file; absent or unreadable, nothing is remembered yet.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / KNOWN_NAME
        self._in_use = not torch_is_loaded()
        self._changed = False

    def recall(self, what: str, about: Mapping[str, Any], find: Callable[[], Found]) -> Found:
        """What ``find`` gives, or gave before.

        Args:
            what: names the question.
            about: plain JSON; everything besides code that the answer depends on.
            find: gives plain JSON; what it raises is not remembered.
        """
        if not self._in_use:
            return find()
        name = blake3(canonical_json([what, about]).encode()).hexdigest()
        if name not in self._answers:
            self._answers[name] = find()
            self._changed = True
        answer: Found = self._answers[name]
        return answer

    def save(self) -> None:
        """Write what was learnt, atomically; nothing to do if nothing was.

        Raises:
            OSError: the folder is not there, or cannot be written.
        """
        if self._changed:
            document = {"code": self._code, "seal": _seal(self._answers), "answers": self._answers}
            replace_file(self._path, json.dumps(document).encode(), durable=False)
            self._changed = False

    def save_if_possible(self) -> None:
        """`save` for those who must not fail on a folder they only look at."""
        with suppress(OSError):
            self.save()

    @cached_property
    def _answers(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            document = json.loads(self._path.read_text(encoding="utf-8"))
            same = isinstance(document, dict) and document.get("code") == self._code
            if same and document.get("seal") == _seal(document.get("answers")):
                answers: dict[str, Any] = document["answers"]
                return answers
        return {}

    @cached_property
    def _code(self) -> str:
        return code_digest()


def torch_is_loaded() -> bool:
    """Whether this process has paid for it."""
    return "torch" in sys.modules


def code_digest() -> str:
    """Digest of our sources, of Python, and of what is installed: hex."""
    total = blake3(sys.version.encode())
    for package in SOURCES:
        for path in sorted((ROOT / package).rglob("*.py")):
            content = path.read_bytes()
            total.update(f"\0{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    total.update(json.dumps([_distributions(), [_place(name) for name in LIBRARIES]]).encode())
    return total.hexdigest()


def _distributions() -> list[str]:
    """Names and versions, as the folders that describe them are called."""
    found = []
    for folder in sys.path:
        with suppress(OSError):
            found += [name for name in os.listdir(folder or ".") if name.endswith("-info")]
    return sorted(found)


def _place(library: str) -> str | None:
    """Where a library would be imported from."""
    spec = find_spec(library)
    return None if spec is None else spec.origin


def _seal(answers: Any) -> str:
    return blake3(canonical_json(answers).encode()).hexdigest()
