"""The command line: help that starts at once, what the commands show, and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from cli_fixtures import ALL_ROWS, symbio, table_rows, write_experiment

from cli import main

ROOT = Path(__file__).parent.parent


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """All commands and groups, by what one types."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


LIGHT = {"click", *sys.stdlib_module_names}
COMMANDS = dict(commands(main, ("symbio",)))


def test_all_commands_are_there() -> None:
    names = {
        "demo",
        "plan",
        "run",
        "status",
        "explain",
        "failures",
        "merge",
        "finetune",
        "train",
        "evaluate",
        "sweep",
        "report",
        "fuse",
        "submit",
        "check-submission",
        "store",
        "completion",
    }
    of_stores = {"info", "verify", "repair", "gc", "convert", "export"}
    expected = {"symbio"} | {f"symbio {name}" for name in names}
    assert set(COMMANDS) == expected | {f"symbio store {name}" for name in of_stores}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    # The command itself, typed out.
    assert f"{name} " in (COMMANDS[name].help or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_answers_to_both_options(name: str) -> None:
    arguments = name.split()[1:]
    assert symbio(*arguments, "-h").code == 0
    assert symbio(*arguments, "-h") == symbio(*arguments, "--help")


def test_version() -> None:
    assert symbio("--version").out == f"symbio, version {version('symbio')}\n"


@pytest.mark.parametrize("name", ["symbio", "symbio run", "symbio store info"])
def test_help_loads_nothing_but_click(name: str) -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from cli import main\n"
        "try:\n    main(sys.argv[1:], prog_name='symbio')\n"
        "except SystemExit:\n    pass\n"
        "print(sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, *name.split()[1:], "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: {name} ")
    loaded = {name for name in eval(done.stderr) if name.split(".")[0] not in LIGHT}
    parts = ("cli_support", "head_cli", "run_cli", "store_cli")
    assert loaded == {"cli", "pipeline", *(f"pipeline.{part}" for part in parts)}


def test_the_script_does_the_same_as_the_command() -> None:
    scripts = [[str(Path(sys.executable).parent / "symbio")], [sys.executable, "cli.py"]]
    one, other = (
        subprocess.run([*script, "--help"], cwd=ROOT, capture_output=True, check=True).stdout
        for script in scripts
    )
    assert one == other
    assert one.startswith(b"Usage: symbio [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete")]
)
def test_completion_of_shells(shell: str, word: str) -> None:
    done = symbio("completion", shell)
    assert done.code == 0
    assert word in done.out
    assert "_SYMBIO_COMPLETE" in done.out


def test_completion_completes() -> None:
    environment = {
        **os.environ,
        "_SYMBIO_COMPLETE": "bash_complete",
        "COMP_WORDS": "symbio fine",
        "COMP_CWORD": "1",
    }
    script = Path(sys.executable).parent / "symbio"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["plain,finetune"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with everything stored; tests only read it."""
    config = write_experiment(tmp_path_factory.mktemp("finished"))
    assert symbio("run", config).code == 0
    return config


def test_a_plan_counts_rows_and_bytes_and_touches_nothing(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = symbio("plan", config)
    assert (done.code, done.err) == (0, "")
    rows = table_rows(done.out, ["to do", "takes"])
    assert {stage: int(row["to do"]) for stage, row in rows.items()} == ALL_ROWS
    # Six maps of 1×1×1 of 8 · 4 channels in float16, and an index of 4,096 entries.
    assert rows["verb"]["to write"] == "65.5 KiB"
    assert "\nverb, noun, objects, aligned: first run with these settings\n" in done.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_says_why_rows_are_missing(finished: Path) -> None:
    done = symbio("plan", finished, "--set", "views.train=3")
    rows = table_rows(done.out, ["to do", "present"])
    assert (rows["verb"]["present"], rows["verb"]["to do"]) == ("6", "2")
    assert "2 rows of 1 video missing" in done.out
    done = symbio("plan", finished, "--set", "stages.verb.clip.stride=1")
    rows = table_rows(done.out, ["to do", "present"])
    assert {stage: row["to do"] for stage, row in rows.items()} == {
        "verb": "6",
        "noun": "0",
        "objects": "0",
        "aligned": "6",
    }


def test_a_run_shows_progress_and_a_summary(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    done = symbio("run", config, "--stage", "objects", "--stage", "verb")
    assert done.code == 0
    assert "10/10" in done.out
    rows = table_rows(done.out, ["made", "failed", "skipped"])
    assert {stage: int(row["made"]) for stage, row in rows.items()} == {"verb": 6, "objects": 10}
    done = symbio("run", config, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    rows = table_rows(symbio("run", config).out, ["made", "failed", "skipped"])
    assert {stage: int(row["made"]) for stage, row in rows.items()} == dict.fromkeys(ALL_ROWS, 0)


def test_status_counts_what_is_stored(finished: Path, tmp_path: Path) -> None:
    rows = table_rows(symbio("status", finished).out, ["wanted", "missing", "failed"])
    assert {stage: int(row["present"]) for stage, row in rows.items()} == ALL_ROWS
    assert {row["missing"] + row["failed"] for row in rows.values()} == {"00"}
    nowhere = f"store.path={tmp_path / 'nowhere'}"
    done = symbio("status", finished, "--set", nowhere)
    rows = table_rows(done.out, ["wanted", "missing", "failed"])
    assert {stage: int(row["missing"]) for stage, row in rows.items()} == ALL_ROWS
    assert done.code == 0
    assert not (tmp_path / "nowhere").exists()


def test_store_info_counts_rows_and_describes_outputs(finished: Path) -> None:
    done = symbio("store", "info", finished.parent / "store")
    assert done.code == 0
    rows = table_rows(done.out.split("Outputs")[0], ["stage", "rows", "size"])
    assert {stage: int(row["rows"]) for stage, row in rows.items()} == ALL_ROWS
    assert "time 1 × y 1 × x 1 × channel 32" in done.out
    assert "object 3 × xyxy 4" in done.out


def test_set_reaches_deep_and_the_last_one_wins(finished: Path) -> None:
    overrides = ("--set", "views.train=9", "--set", "views.train=1")
    rows = table_rows(symbio("status", finished, *overrides).out, ["wanted"])
    assert rows["verb"]["wanted"] == "4"


def test_training_and_evaluation(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = symbio("train", finished, "--run", folder)
    assert done.code == 0
    assert [line.split()[1] for line in done.out.splitlines() if line.startswith("epoch")] == [
        "1/2",
        "2/2",
    ]
    assert f"run folder: {folder}" in done.out
    metrics = (folder / "metrics.json").read_text()
    assert symbio("evaluate", folder).code == 0
    assert (folder / "metrics.json").read_text() == metrics
    done = symbio("evaluate", folder, "--split", "train")
    assert "train, 2 segments" in done.out
    quiet = symbio(
        "train", finished, "--quiet", "--set", "train.seed=5", "--set", "head.name=pooled"
    )
    assert quiet.code == 0
    assert "epoch" not in quiet.out
    assert (finished.parent / "runs" / "small-pooled-seed5" / "head.safetensors").exists()
