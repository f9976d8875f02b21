"""Calls that reach the disk, each of which can be watched, made to fail, or made the last one."""

import errno
import functools
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_CALLS = (
    *("open", "close", "write", "writev", "pwrite", "pwritev", "fsync", "fdatasync"),
    *("truncate", "ftruncate", "rename", "replace", "link", "symlink", "unlink", "remove"),
    *("mkdir", "rmdir"),
)
REAL = {name: getattr(os, name) for name in _CALLS}
CRASHED = 9  # the exit code of a process that died on purpose
WRITES = ("write", "writev", "pwrite", "pwritev")

Call = functools.partial[Any]
Hook = Callable[[str, Call], Any]


@contextmanager
def intercepted(hook: Hook) -> Iterator[None]:
    """Hand every call that can change the disk to `hook(name, call)`, which makes it or does not.

    Names are those of functions in `os`; those of SQLite's writer are "BEGIN", "COMMIT", "PRAGMA"
    and "sqlite close", in capitals as in the statement. Calls come one at a time.
    """
    turn = threading.RLock()

    def ask(name: str, call: Call) -> Any:
        with turn:
            return hook(name, call)

    def wrap(name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: ask(name, functools.partial(REAL[name], *args, **kwargs))

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *args: Any) -> Any:
            call = functools.partial(super().execute, statement, *args)
            word = statement.partition(" ")[0]
            return ask(word, call) if word in ("BEGIN", "COMMIT", "PRAGMA") else call()

        def close(self) -> None:
            ask("sqlite close", functools.partial(super().close))

    def connect(path: Any, **kwargs: Any) -> sqlite3.Connection:
        kwargs |= {} if kwargs.get("uri") else {"factory": Connection}
        return real_connect(path, **kwargs)

    real_connect = sqlite3.connect
    try:
        for name in _CALLS:
            setattr(os, name, wrap(name))
        sqlite3.connect = connect  # type: ignore[assignment]
        yield
    finally:
        for name, function in REAL.items():
            setattr(os, name, function)
        sqlite3.connect = real_connect


# ---- children

Say = Callable[[object], None]
Task = Callable[[Say], None]


def in_child(task: Task) -> tuple[int, list[str]]:
    """Run `task(say)` in a forked process; return its exit code and what it said.

    What it raises is raised here: as AssertionError with the traceback, or as the skip it was.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            task(lambda word: REAL["write"](writing, f"{word}\n".encode()))
            os._exit(0)
        except pytest.skip.Exception as skip:
            REAL["write"](writing, f"skip {skip.msg}".encode())
        except BaseException:
            REAL["write"](writing, traceback.format_exc().encode())
            sys.stderr.flush()
        os._exit(1)
    os.close(writing)
    with open(reading) as file:
        words = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 1 and words.startswith("skip "):
        pytest.skip(words[5:])
    assert code != 1, words
    return code, words.splitlines()


def every_call(name: str, call: Call) -> bool:
    return True


def changes_something(name: str, call: Call) -> bool:
    """Return whether another process can see that the call was made.

    A crash before a call that changes nothing leaves what a crash before the next one leaves.
    """
    if name == "open":
        return bool(call.args[1] & (os.O_CREAT | os.O_TRUNC))
    return name not in ("close", "fsync", "fdatasync", "BEGIN")


def syncs(name: str, call: Call) -> bool:
    return name == "fsync"


class CrashAt:
    """A hook that ends the process, without a word, at its n-th point.

    There is one before each call that counts, one in the middle of each write, and one after each
    commit.

    Args:
        counts: tells which calls count.

    Attributes:
        hook: what the calls are handed on to.
        last_act: what is still done before the end.
    """

    def __init__(
        self,
        point: int,
        counts: Callable[[str, Call], bool] = changes_something,
    ) -> None:
        self._left = point
        self._counts = counts
        self.hook: Hook | None = None
        self.last_act: Callable[[], object] | None = None

    def __call__(self, name: str, call: Call) -> Any:
        if not self._counts(name, call):
            return self._make(name, call)
        self._point()
        if name in WRITES:
            self._point(functools.partial(self._make, name, half_of(name, call)))
        result = self._make(name, call)
        if name == "COMMIT":
            self._point()
        return result

    def _make(self, name: str, call: Call) -> Any:
        return self.hook(name, call) if self.hook else call()

    def _point(self, *unfinished: Call) -> None:
        self._left -= 1
        if not self._left:
            for act in (*unfinished, self.last_act):
                if act:
                    act()
            os._exit(CRASHED)


class FailAt:
    """A hook that lets the n-th call fail from when it is armed: a write half-way, others at once.

    Args:
        counts: tells which calls count.
        code: of the error; SQLite says of its own calls that they failed.
    """

    def __init__(self, counts: Callable[[str, Call], bool], code: int = errno.EIO) -> None:
        self._counts = counts
        self._code = code
        self._left = 0
        self.failed = False

    def arm(self, point: int) -> None:
        """Let the n-th call from now on fail; 0 for none."""
        self._left = point

    def __call__(self, name: str, call: Call) -> Any:
        if self._left and self._counts(name, call):
            self._left -= 1
            if not self._left:
                self.failed = True
                if name in WRITES:
                    half_of(name, call)()
                elif name == "close":  # closed it is, even so
                    call()
                raise self._error(name, call)
        return call()

    def _error(self, name: str, call: Call) -> Exception:
        if name in REAL:
            file = () if isinstance(call.args[0], int) else (str(call.args[0]),)
            return OSError(self._code, os.strerror(self._code), *file)
        full = self._code == errno.ENOSPC
        error = sqlite3.OperationalError("as a test wants it")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
        return error


def half_of(name: str, call: Call) -> Call:
    """Return a call that writes the first half of what another would write."""
    descriptor, data, *offset = call.args
    whole = b"".join(data) if name.endswith("v") else bytes(data)
    half = whole[: len(whole) // 2]
    return functools.partial(call.func, descriptor, [half] if name.endswith("v") else half, *offset)


def crash(task: Task, hook: CrashAt) -> tuple[bool, int]:
    """Run `task(say)` in a process that dies; return whether it did, and the last word.

    The last word is a number, 0 where nothing was said.
    """

    def run(say: Say) -> None:
        with intercepted(hook):
            task(say)

    code, words = in_child(run)
    assert code in (0, CRASHED), code
    return code == CRASHED, int(words[-1]) if words else 0
