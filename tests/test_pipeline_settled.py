"""Commands that find nothing to do: without torch, and without writing to the store."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_fixtures import ALL_ROWS, symbio, table_rows, write_experiment
from experiment_fixtures import Silent

from pipeline.config_file import load_config
from pipeline.experiment import resolve, stage_keys
from pipeline.journal import LIVE_FILE, utc_now
from pipeline.known import KNOWN_NAME
from pipeline.run import run_experiment
from pipeline.run_report import RunReport
from pipeline.settled import settled_report
from pipeline.stages import STAGE_NAMES
from stores.base import Failure, FeatureStore
from stores.registry import open_store

HEAVY = ("torch", "torchvision", "av")
# A command as the shell runs it; its last line says what it loaded.
COMMAND = """
import sys
from cli import main
code = 0
try:
    main(sys.argv[1:], prog_name="symbio")
except SystemExit as end:
    code = end.code
print(code, *(name for name in {heavy} if name in sys.modules))
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment, all of whose rows were made by a command; returns its file."""
    file = write_experiment(tmp_path_factory.mktemp("experiment"))
    _, loaded = command("run", file)
    assert loaded[:2] == ["0", "torch"]
    assert (file.parent / "store" / KNOWN_NAME).exists()
    return file


def command(*arguments: str | Path) -> tuple[str, list[str]]:
    """What a command printed, and its exit code with the libraries that it loaded."""
    line = [sys.executable, "-c", COMMAND.format(heavy=HEAVY), *map(str, arguments)]
    ended = subprocess.run(line, capture_output=True, text=True, check=True)
    text, _, last = ended.stdout.rstrip("\n").rpartition("\n")
    return text.rstrip("\n"), last.split()


def generation(store: object, file: Path, stage: str) -> FeatureStore:
    """A stage's generation in the experiment's store."""
    opened: FeatureStore = store.generation(stage, stage_keys(load_config(file, ()))[stage])  # type: ignore[attr-defined]
    return opened


def without_free(text: str) -> str:
    """What is shown, without the room on a disk that others use, too."""
    return re.sub(r" of \S+ \S+ free", "", text)


@pytest.mark.parametrize("name", ["plan", "status", "run"])
def test_what_is_known_needs_no_torch(experiment: Path, name: str) -> None:
    text, loaded = command(name, experiment)
    assert loaded == ["0"]
    assert without_free(text) == without_free(symbio(name, experiment).out.rstrip("\n"))


def test_a_run_with_nothing_to_do_reports_as_ever(experiment: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ran = symbio("run", experiment, "--report", report)
    rows = table_rows(ran.out, ("stage", "present", "made"))
    assert {name: row["present"] for name, row in rows.items()} == {
        name: str(count) for name, count in ALL_ROWS.items()
    }
    assert {row["made"] for row in rows.values()} == {"0"}
    document = json.loads(report.read_text())
    assert document["complete"]
    assert [stage["present"] for stage in document["stages"]] == list(ALL_ROWS.values())


def test_a_run_with_nothing_to_do_waits_for_no_writer(experiment: Path) -> None:
    with open_store(experiment.parent / "store", mode="a"):
        assert symbio("run", experiment).code == 0


def test_a_run_tidies_up_after_one_that_was_killed(experiment: Path) -> None:
    store = experiment.parent / "store"
    state = {"host": socket.gethostname(), "pid": 2**22 + 1, "updated": utc_now()}
    (store / LIVE_FILE).write_text(json.dumps(state))
    resolved = resolve(load_config(experiment, ()))
    assert settled_report(resolved, STAGE_NAMES, retry_failed=False) is None
    table = next(store.glob("verb/*/rows.csv"))
    rows = table.read_text()
    table.write_text(rows.partition("\n")[0])
    assert symbio("run", experiment).code == 0
    assert table.read_text() == rows
    assert not (store / LIVE_FILE).exists()
    assert settled_report(resolved, STAGE_NAMES, retry_failed=False) is not None


def test_settings_that_are_new_are_remembered_by_a_plan(experiment: Path) -> None:
    change = ("--set", "stages.noun.weights_seed=77")
    first, loaded = command("plan", experiment, *change)
    assert "torch" in loaded
    again, loaded = command("plan", experiment, *change)
    assert loaded == ["0"]
    assert without_free(again) == without_free(first)
    assert "\nnoun, aligned: first run with these settings\n" in again


def test_a_plan_leaves_an_empty_folder_empty(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.known.torch_is_loaded", lambda: False)
    (tmp_path / "new").mkdir()
    assert symbio("plan", experiment, "--set", f"store.path={tmp_path / 'new'}").code == 0
    assert list((tmp_path / "new").iterdir()) == []


def test_something_to_do_is_left_to_a_run(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    config = load_config(file, ())
    assert settled_report(resolve(config), STAGE_NAMES, retry_failed=False) is None
    assert symbio("run", file, "--stage", "verb").code == 0
    experiment = resolve(config)
    done = settled_report(experiment, ["verb"], retry_failed=False)
    assert done is not None
    assert [(s.stage, s.present, s.made) for s in done.stages] == [("verb", ALL_ROWS["verb"], 0)]
    assert done.complete
    for stages in (["verb", "noun"], ["aligned"], ["verb", "aligned"]):
        assert settled_report(experiment, stages, retry_failed=False) is None
    with open_store(config.store.path, mode="a") as store:
        verb = generation(store, file, "verb")
        (lost, *_) = verb.keys()
        verb.forget([lost])
        failure = Failure(lost, "clip", "video", "Broken", "a test")
        assert settled_report(experiment, ["verb"], retry_failed=False) is None
        verb.commit([], [failure])
    failed = settled_report(experiment, ["verb"], retry_failed=False)
    assert failed is not None
    assert (failed.stages[0].failed_before, failed.complete) == (1, False)
    assert settled_report(experiment, ["verb"], retry_failed=True) is None
    assert symbio("run", file, "--stage", "verb").code == 1
    (config.store.path / "manifest.sqlite").write_bytes(b"damaged")
    assert settled_report(experiment, ["verb"], retry_failed=False) is None


def fail(file: Path, stage: str, count: int) -> None:
    """Have rows of a stage fail that were stored."""
    with open_store(load_config(file, ()).store.path, mode="a") as store:
        rows = generation(store, file, stage)
        lost = rows.keys()[:count]
        rows.forget(lost)
        rows.commit([], [Failure(key, "frame", "video", "Broken", "a test") for key in lost])


def as_a_run_says(file: Path, *stages: str) -> RunReport:
    """What is reported without a run, which is what a run reports."""
    experiment = resolve(load_config(file, ()))
    found = settled_report(experiment, stages, retry_failed=False)
    assert found is not None
    ran = run_experiment(
        experiment,
        stages=stages,
        retry_failed=False,
        reporter=Silent(),
        stop=threading.Event(),
    )
    assert found == ran
    return found


def test_rows_whose_upstream_failed_are_nothing_to_do(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    assert symbio("run", file, "--stage", "verb", "--stage", "noun", "--stage", "objects").code == 0
    fail(file, "objects", ALL_ROWS["objects"])
    for stages in (STAGE_NAMES, ("aligned",)):
        # Not even a generation is made for rows none of which can be.
        aligned = as_a_run_says(file, *stages).stages[-1]
        assert (aligned.present, aligned.skipped) == (0, ALL_ROWS["aligned"])
    command("run", file)  # what this process found out is not remembered
    text, loaded = command("run", file)
    assert loaded == ["1"]
    assert table_rows(text, ("stage", "skipped"))["aligned"]["skipped"] == str(ALL_ROWS["aligned"])
    experiment = resolve(load_config(file, ()))
    assert settled_report(experiment, STAGE_NAMES, retry_failed=True) is None


def test_rows_whose_upstream_is_there_are_to_do(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    assert symbio("run", file).code == 0
    fail(file, "verb", 1)
    assert as_a_run_says(file, *STAGE_NAMES).stages[-1].skipped == 0  # they are stored
    with open_store(tmp_path / "store", mode="a") as store:
        aligned = generation(store, file, "aligned")
        aligned.forget(aligned.keys())
    experiment = resolve(load_config(file, ()))
    assert settled_report(experiment, STAGE_NAMES, retry_failed=False) is None
    assert symbio("run", file).code == 1
    report = as_a_run_says(file, *STAGE_NAMES)
    assert [stage.failed_before for stage in report.stages] == [1, 0, 0, 0]
    done = report.stages[-1]
    assert (done.present, done.skipped) == (ALL_ROWS["aligned"] - 1, 1)
