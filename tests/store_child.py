"""Visiting a store that may hold anything, in a child process of little memory and time."""

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from store_suite import fast_folder as fast_folder
from store_suite import make_key

from stores import ArraySpec, Row, RowInfo, open_store

STAGE, KEY = "objects", make_key(1000)
SPECS = {"count": ArraySpec((), (), "int32"), "map": ArraySpec(("t",), (2**15,), "float16")}
NUMBERS = range(3)
KEYS = [make_key(number) for number in NUMBERS]
CLEAR = {
    *("ValueError", "LookupError", "MissingRowsError", "MissingGenerationError"),
    *("OSError", "FileNotFoundError", "FileExistsError", "NotADirectoryError", "IsADirectoryError"),
    *("NoPlainFileError", "CorruptRowError", "ManifestError", "DamagedManifestError"),
}
HEADROOM_NBYTES = 2**30
PEAK_NBYTES = 2**29
SECONDS = 30


def make_row(number: int) -> Row:
    arrays = {"count": np.int32(number), "map": np.full(2**15, number, np.float16)}
    return Row(KEYS[number], arrays, RowInfo(f"clip{number}"))


def fill_store(root: Path, format: str, compression: str) -> Path:
    """Make a store of one shard; return the folder of its generation."""
    with open_store(root, "a", format) as store:
        mib = 3.5 * sum(spec.row_nbytes for spec in SPECS.values()) / 2**20
        made = store.generation(STAGE, KEY, SPECS, {"a": 1}, mib, compression)
        made.append([make_row(number) for number in NUMBERS])
        return made.path


class Visitor:
    """Asks questions and notes "what: ok" or "what: error: message" for each."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """Return the answer; what a question lists is noted as problems."""
        try:
            answer = question(*arguments)
        except Exception as error:
            self.answers.append(f"{what}: {type(error).__name__}: {error}")
            return None
        problems = answer if isinstance(answer, list) else []
        self.answers.append(
            "".join([f"{what}: ok", *(f"\n{what}: problem: {p}" for p in problems)])
        )
        return answer

    def visit(self, root: Path, mode: str) -> None:
        """Do with a store what can be done."""
        store = self.ask(f"{mode} open", open_store, root, mode)
        if store is None:
            return
        self.ask(f"{mode} generations", lambda: tuple(store.generations()))
        self.ask(f"{mode} check", store.check)
        self.ask(f"{mode} leftovers", lambda: tuple(store.leftovers()))
        made = self.ask(f"{mode} generation", store.generation, STAGE, KEY)
        if made is not None:
            for number in NUMBERS:
                self.ask(f"{mode} read {number}", check_row, made, number)
            self.ask(f"{mode} infos", lambda: tuple(made.infos(KEYS)))
            self.ask(f"{mode} failures", made.failures)
            self.ask(f"{mode} verify", made.verify)
            if mode == "a":
                self.ask(f"{mode} repair", made.repair)
        self.ask(f"{mode} close", store.close)


def visit(root: Path) -> list[str]:
    """Look at a store as a reader, then as a writer; return what came of it."""
    visitor = Visitor()
    for mode in ("r", "a"):
        visitor.visit(root, mode)
    return visitor.answers


def check_row(made: Any, number: int) -> None:
    arrays = made.read([KEYS[number]])
    expected = make_row(number).arrays
    for name, array in arrays.items():
        if not np.array_equal(array[0], expected[name]):
            raise AssertionError(f"wrong values in {name!r}")


def visit_confined(root: Path) -> list[str]:
    """As `visit`, in a child; fail where it crashes, hangs, or takes much memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(SECONDS)
            page = resource.getpagesize()
            space, resident = (
                int(n) * page for n in Path("/proc/self/statm").read_text().split()[:2]
            )
            resource.setrlimit(resource.RLIMIT_AS, (space + HEADROOM_NBYTES,) * 2)
            answers = visit(root)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
            with open(writing, "w") as pipe:
                json.dump([answers, peak], pipe)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"the child ended with {code}"
    answers, peak = json.loads(text)
    assert peak < PEAK_NBYTES, f"{peak:,} bytes of memory"
    for answer in answers:
        for line in answer.split("\n"):
            kind = line.split(": ")[1]
            assert kind in {"ok", "problem", *CLEAR}, answer
    return answers
