"""Runs of the small experiment, in this process or as a command, and what is left of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from experiment_fixtures import Silent, make_experiment, settings, write_boxes, write_labels
from video_files import write_video

from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from pipeline.stages import STAGE_NAMES
from stores.registry import open_store

PROGRAM = "from cli import main; main()"
WAIT_SECONDS = 240.0
ONE_THREAD = "engine.cpu_threads=1"
TWO_WORKERS = "executor.workers=2"
Contents = dict[str, dict[str, dict[str, bytes]]]


class Acting(Silent):
    """Does something at the first row that gets done."""

    def __init__(self, act: Any) -> None:
        self._act = act

    def advance(self, stage: str, rows: int) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


def make_five_videos(folder: Path) -> None:
    """Where `run` finds them: enough units for a worker to have the next one beside its own."""
    make_experiment(folder)
    names = [f"kitchen_{letter}" for letter in "abcde"]
    for number, name in enumerate(names):
        write_video(folder / "videos" / f"{name}.mp4", num_frames=60 + 6 * number, rate_fps=30)
    segments = [
        (f"{name}{k}", name, k + 0.2, k + 0.8, k, 1, "val") for name in names for k in (0, 1)
    ]
    write_labels(folder / "labels.csv", segments)
    write_boxes(folder / "boxes.csv", names)


def run(folder: Path, *overrides: str, act: Any = None, **options: Any) -> RunReport:
    return run_experiment(
        resolve(make_experiment(folder, [ONE_THREAD, *overrides])),
        stages=STAGE_NAMES,
        retry_failed=False,
        **{"reporter": Acting(act), "stop": threading.Event()} | options,
    )


def contents(folder: Path) -> Contents:
    """The bytes of a store: stage → row key → output."""
    found: Contents = {}
    with open_store(folder / "store") as store:
        for info in store.generations():
            generation = store.generation(info.stage, info.key)
            found[info.stage] = {
                key: {name: array.tobytes() for name, array in generation.read([key]).items()}
                for key in generation.keys()  # noqa: SIM118
            }
    return found


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """Of all runs so far, by their logs."""
    lines = [
        json.loads(line)
        for log in sorted((folder / "store" / "logs").glob("*.jsonl"))
        for line in log.read_text().splitlines()
    ]
    return [line for line in lines if line["event"] == name]


def wait_for(what: Callable[[], Any]) -> Any:
    """Until it returns something."""
    last = time.monotonic() + WAIT_SECONDS
    while not (found := what()):
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@contextmanager
def command(folder: Path, *overrides: str) -> Iterator[subprocess.Popen[str]]:
    """`symbio run`, as a shell starts it."""
    make_experiment(folder)
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(settings(folder)))
    words = [word for setting in (ONE_THREAD, *overrides) for word in ("--set", setting)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", str(config), *words],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
