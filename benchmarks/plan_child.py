"""One `symbio` command in a process of its own, and what it took.

Run as a program, this file is the command. It counts the videos that were opened (any file below
a folder called ``videos``) and says at its end how much memory it held at most:

    python benchmarks/plan_child.py ANSWER plan CONFIG
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def run_command(*arguments: object, may_end: Collection[int] = (0,)) -> dict[str, Any]:
    """Run a command; return ``wall_seconds``, ``cpu_seconds``, ``peak_rss_mb``, ``videos_opened``.

    Args:
        may_end: exit codes that are fine.

    Raises:
        RuntimeError: it ended with another one.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, __file__, answer.name, *map(str, arguments)]
        started = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if ended.returncode not in may_end:
            raise RuntimeError(f"{' '.join(command)}: {ended.stdout}{ended.stderr}")
        return {"wall_seconds": seconds, **json.loads(Path(answer.name).read_bytes())}


def _main(answer: str, *arguments: str) -> None:
    opened = 0

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal opened
        opened += event == "open" and "/videos/" in str(details[0])

    sys.addaudithook(count)
    sys.path.insert(0, str(ROOT))
    from cli import main

    try:
        main(list(arguments), prog_name="symbio")
    finally:
        peak_mb = _peak_rss_mb()
        found = {"cpu_seconds": time.process_time(), "peak_rss_mb": peak_mb}
        Path(answer).write_text(json.dumps({**found, "videos_opened": opened}))


def _peak_rss_mb() -> float:
    """Of this process alone; getrusage also counts its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6


if __name__ == "__main__":
    _main(*sys.argv[1:])
