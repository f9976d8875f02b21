"""`symbio status`: what is stored and how fast, what failed, who works on it, and keeping watch."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fixtures import ALL_ROWS, symbio, table_rows, write_experiment
from rich.console import Console

from pipeline.config_file import load_config
from pipeline.journal import LIVE_FILE, Journal
from pipeline.status_commands import watch_status

COLUMNS = ["wanted", "missing", "failed"]
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment after a run with one video that is none."""
    config = write_experiment(tmp_path_factory.mktemp("small"))
    (config.parent / "videos" / "kitchen_b.mp4").write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    return config


@pytest.fixture
def journal(config: Path) -> Journal:
    """Of a run that goes on, which has told how far it is."""
    made = Journal(config.parent / "store")
    made.event("worker_started", worker="worker 0", pid=77, host="node7")
    made.event("unit_started", worker="worker 0", unit=3, videos=["kitchen_a", "kitchen_b"])
    verb = {"rows": 1200, "stored": 2, "failed": 1, "nbytes": 100, "rows_per_second": 2.5}
    made.live(stages={"verb": verb})
    until = time.monotonic() + PATIENCE_SECONDS
    while '"rows_per_second"' not in (text_of(config) or ""):
        assert time.monotonic() < until
        time.sleep(0.01)
    return made


def text_of(config: Path) -> str | None:
    file = config.parent / "store" / LIVE_FILE
    return file.read_text() if file.exists() else None


def test_what_is_stored_and_what_failed(config: Path) -> None:
    done = symbio("status", config)
    rows = table_rows(done.out, COLUMNS)
    assert {stage: int(row["wanted"]) for stage, row in rows.items()} == ALL_ROWS
    assert {stage: int(row["present"]) for stage, row in rows.items()} == {
        "verb": 4,
        "noun": 4,
        "objects": 5,
        "aligned": 4,
    }
    assert rows["verb"]["size"].endswith("KiB")
    assert "failed rows by class: unreadable_video 9" in done.out
    assert "works on it" not in done.out


def test_the_rate_is_that_of_the_runs_table(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    run = table_rows(symbio("run", config).out, ["made", "rate"])
    status = table_rows(symbio("status", config).out, COLUMNS)
    assert set(run) == set(ALL_ROWS)
    assert {name: row["rate"] for name, row in status.items()} == {
        name: row["rate"] for name, row in run.items()
    }


def test_who_works_on_it(config: Path, journal: Journal) -> None:
    out = symbio("status", config).out
    assert f"a run on host {socket.gethostname()}, pid {os.getpid()}, works on it, for " in out
    assert "verb: 3 of 1,200 rows, 2.5 rows/s" in out
    assert "worker 0 (pid 77 on node7): kitchen_a, kitchen_b, for " in out
    assert table_rows(out, COLUMNS)["verb"]["rate"] == "2.5 rows/s"
    journal.close()
    assert "works on it" not in symbio("status", config).out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"process_started": 1}, "ended without saying so; symbio run goes on"),
        (
            {"host": "elsewhere", "updated": "2020-01-01T00:00:00Z"},
            "a run on host elsewhere, pid {pid}, has said nothing for",
        ),
    ],
)
def test_a_run_that_is_gone(
    config: Path, journal: Journal, changes: dict[str, object], words: str
) -> None:
    state = json.loads(text_of(config) or "")
    journal.close()
    live = config.parent / "store" / LIVE_FILE
    live.write_text(json.dumps(state | changes))
    try:
        out = symbio("status", config).out
    finally:
        live.unlink()
    assert words.format(pid=os.getpid()) in out
    assert "of 1,200 rows" not in out


def watched(config: Path, *steps: Callable[[], object]) -> str:
    """What is shown at the end of a watch that is interrupted after these steps."""
    pending = list(steps)

    def pause(seconds: float) -> None:
        if not pending:
            raise KeyboardInterrupt
        pending.pop(0)()

    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True, no_color=True)
    watch_status(load_config(config, ()), console, pause=pause)
    assert not pending
    last = out.getvalue().split("\x1b[?1049l")[-1]  # after the screen is given back
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last)


def test_watching_sees_rows_come(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)

    (tmp_path / "videos" / "kitchen_b.mp4").write_text("not a video")

    def run() -> None:
        assert symbio("run", config, "--stage", "verb", "--quiet").code == 1

    text = watched(config, lambda: None, run)
    assert "failed rows by class: unreadable_video 2" in text
    rows = table_rows(text, COLUMNS)
    assert {stage: int(row["present"]) for stage, row in rows.items()} == {
        "verb": 4,
        "noun": 0,
        "objects": 0,
        "aligned": 0,
    }


def test_watching_goes_on_while_storage_is_away(config: Path) -> None:
    store = config.parent / "store"
    aside = config.parent / "aside"
    text = watched(
        config,
        lambda: store.rename(aside),
        lambda: store.write_text("no folder"),
        store.unlink,
        lambda: aside.rename(store),
    )
    assert table_rows(text, COLUMNS)["verb"]["present"] == "4"


def test_where_nobody_can_watch_it_is_shown_once(config: Path) -> None:
    assert symbio("status", config, "--watch") == symbio("status", config)
