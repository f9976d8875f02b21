"""`symbio plan`: bytes as they turn out to be, hours, and all that would stop a run at once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from cli_fixtures import ALL_ROWS, by_stage, planned, symbio, write_experiment
from docs_pages import section, table_rows
from safetensors.torch import save_file

from pipeline import checks
from pipeline.config_file import load_config
from pipeline.console import format_nbytes
from pipeline.journal import Journal


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it."""

    total: int
    used: int
    free: int


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def problems(config: Path, *overrides: str) -> dict[str, list[str]]:
    """The problems of a plan that would not start, by name; a run says each of them, too."""
    options = [word for override in overrides for word in ("--set", override)]
    before = sorted(config.parent.rglob("*"))
    found: dict[str, list[str]] = {}
    for problem in planned(config, *options, code=2)["problems"]:
        found.setdefault(problem["name"], []).append(problem["text"])
    assert sorted(config.parent.rglob("*")) == before
    planned_in_words = symbio("plan", config, *options)
    done = symbio("run", config, *options)
    assert done.code == planned_in_words.code == 2
    assert done.err == planned_in_words.err
    assert done.err.startswith("Error: ")
    for texts in found.values():
        for text in texts:
            assert text in done.err
    assert not list(config.parent.glob("store/*/*"))
    return found


@pytest.mark.parametrize("override", ["store.format=zarr", "store.format=hdf5"])
def test_bytes_are_those_that_a_run_then_writes(config: Path, override: str) -> None:
    options = ("--set", override, "--set", "store.stages.verb.compression=zstd")
    before = planned(config, *options)
    assert by_stage(before, "missing") == ALL_ROWS
    assert by_stage(before, "at_most") == {
        "verb": True,
        "noun": False,
        "objects": False,
        "aligned": False,
    }
    report = config.parent / "report.json"
    assert symbio("run", config, *options, "--quiet", "--report", report).code == 0
    written = {s["stage"]: s["written_bytes"] for s in json.loads(report.read_text())["stages"]}
    foretold = by_stage(before, "nbytes")
    assert foretold.pop("verb") >= written.pop("verb")
    assert foretold["noun"] == written["noun"]
    # Which rows are flagged as clamped shows only when a video is read: seven bytes each.
    assert foretold == pytest.approx(written, rel=1e-4)
    after = planned(config, *options)
    assert by_stage(after, "missing") == dict.fromkeys(ALL_ROWS, 0)
    assert (after["nbytes"], after["seconds"]) == (0, 0)


def log_run(store: Path, device: str, *stages: dict[str, Any]) -> None:
    journal = Journal(store)
    journal.event("run_finished", device=device, stages=list(stages))
    journal.close()


def test_hours_are_from_the_logs_of_past_runs(config: Path) -> None:
    assert symbio("run", config, "--stage", "verb", "--quiet").code == 0
    store = config.parent / "store"
    shutil.rmtree(store / "logs")
    document = planned(config)
    assert by_stage(document, "rate") == dict.fromkeys(ALL_ROWS)
    assert by_stage(document, "seconds")["noun"] is None
    assert document["seconds"] is None
    assert "hours of noun, objects, aligned unknown: --measure" in symbio("plan", config).out
    keys = by_stage(document, "key")
    noun = {"stage": "noun", "key": keys["noun"], "rows": 100, "own_seconds": 50.0}
    log_run(store, "cpu", noun, {"stage": "objects", "key": "old", "rows": 4, "own_seconds": 1.0})
    # Another key, another device, and nothing made: none of them tells more than the run above.
    other = {"stage": "noun", "key": "old", "rows": 999, "own_seconds": 1.0}
    log_run(store, "cpu", other, {**noun, "rows": 0}, {**noun, "rows": 99, "own_seconds": 1.0})
    log_run(store, "cuda", {**noun, "rows": 9999})
    document = planned(config)
    rates = by_stage(document, "rate")
    assert (rates["noun"]["rows_per_second"], rates["noun"]["origin"]) == (2.0, "past run")
    assert (rates["objects"]["rows_per_second"], rates["objects"]["origin"]) == (
        4.0,
        "past run with other settings",
    )
    words = "without aligned, as a past run tells and as a past run with other settings tells"
    assert f"takes about 6 s {words}" in " ".join(symbio("plan", config).out.split())
    assert by_stage(document, "seconds") == {
        "verb": 0.0,
        "noun": 3.0,
        "objects": 2.5,
        "aligned": None,
    }
    assert "hours of aligned unknown" in symbio("plan", config).out


def test_hours_can_be_measured_without_writing(config: Path) -> None:
    before = sorted(config.parent.rglob("*"))
    document = planned(config, "--measure", "4")
    rates = by_stage(document, "rate")
    assert {rates[name]["origin"] for name in ("verb", "noun", "objects")} == {"measured"}
    assert {name: rates[name]["rows"] for name in ("verb", "objects")} == {"verb": 4, "objects": 4}
    assert "as measured of 1 worker" in symbio("plan", config, "--measure", "1").out
    seconds = by_stage(document, "seconds")
    assert seconds["verb"] == pytest.approx(6 / rates["verb"]["rows_per_second"])
    assert sorted(config.parent.rglob("*")) == before


def test_all_that_would_stop_a_run_is_said_at_once(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_spec = importlib.util.find_spec

    def find_spec(name: str) -> object:
        return None if name == "decord" else found_spec(name)

    monkeypatch.setattr(checks, "find_spec", find_spec)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (config.parent / "folder").mkdir()
    found = problems(
        config,
        "device=cuda",
        "data.videos.reader=decord",
        "stages.verb.weights=nowhere.pt",
        "stages.verb.weights_seed=null",
        f"stages.noun.weights={config.parent / 'folder'}",
        "stages.noun.weights_seed=null",
    )
    assert set(found) == {"device", "package", "weights"}
    assert len(found["weights"]) == 2
    assert "stages.verb.weights: nowhere.pt: No such file" in found["weights"][0]
    assert "no CUDA device is available" in found["device"][0]
    assert "pip install decord2" in found["package"][0]


def test_labels_boxes_and_videos_are_looked_at_where_weights_are_missing(config: Path) -> None:
    weights = ("stages.verb.weights=nowhere.pt", "stages.verb.weights_seed=null")
    options = [word for override in weights for word in ("--set", override)]
    (config.parent / "videos" / "kitchen_b.mp4").unlink()
    (missing,) = planned(config, *options, code=2)["missing_videos"]
    assert (missing["video_id"], missing["clips"]) == ("kitchen_b", 2)
    assert "kitchen_b.mp4: no such file" in " ".join(symbio("plan", config, *options).out.split())
    assert set(problems(config, *weights)) == {"weights"}
    boxes, labels = config.parent / "boxes.csv", config.parent / "labels.csv"
    rows = boxes.read_text().splitlines(keepends=True)
    boxes.write_text("".join(row for row in rows if not row.startswith("kitchen_b")))
    (text,) = problems(config, *weights)["config"]
    assert f"{boxes}: got no line for 1 labelled videos (kitchen_b)" in text
    boxes.unlink()
    labels.unlink()
    found = problems(config, *weights)
    assert len(found["weights"]) == 1
    assert [str(boxes) in found["config"][0], str(labels) in found["config"][1]] == [True, True]


@pytest.mark.parametrize(("nbytes", "name"), [(10, "weights"), (200, "weights"), (None, "config")])
def test_weights_that_are_cut_off_or_do_not_fit_are_named_for_every_stage(
    config: Path, nbytes: int | None, name: str
) -> None:
    bad = config.parent / "weights.safetensors"
    save_file({"some.weight": torch.zeros(100)}, bad)
    bad.write_bytes(bad.read_bytes()[:nbytes])
    (config.parent / "videos" / "kitchen_b.mp4").unlink()
    (text,) = problems(
        config,
        *(f"stages.{stage}.weights={bad}" for stage in ("verb", "noun")),
        *(f"stages.{stage}.weights_seed=null" for stage in ("verb", "noun")),
    )[name]
    assert "stages.verb: " in text
    assert "stages.noun: " in text
    weights = (f"stages.verb.weights={bad}", "stages.verb.weights_seed=null")
    options = [word for override in weights for word in ("--set", override)]
    (missing,) = planned(config, *options, code=2)["missing_videos"]
    assert missing["video_id"] == "kitchen_b"


def test_a_disk_that_is_too_small(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = planned(config)["nbytes"]
    free = round(needed * (1 + checks.MARGIN_SHARE)) + checks.MARGIN_NBYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, free))
    planned(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, free - 1))
    (problem,) = planned(config, code=2)["problems"]
    assert problem["name"] == "disk"
    assert "MiB of free space, expected " in problem["text"]
    rows = format_nbytes(needed)
    assert f", for {rows} of rows and 64.0 MiB beside them; make room" in problem["text"]
    assert f"to write: {rows} of " in symbio("plan", config).out
    done = symbio("run", config)
    assert done.code == 2
    assert "of free space, expected" in done.err
    assert not list((config.parent / "store").glob("verb/*"))
    # Compressed rows may well fit.
    planned(config, "--set", "store.compression=zstd")


def test_no_permission(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = config.parent / "closed"
    closed.mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and may(path, mode))
    found = problems(config, f"store.path={closed}", f"runs={closed / 'runs' / 'mine'}")
    assert [text.split(": ")[0] for text in found["permission"]] == ["store.path", "runs"]
    assert str(closed) in found["permission"][1]


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may write there")
@pytest.mark.parametrize("folder", ["/proc", "/sys"])
def test_a_file_system_that_keeps_no_files(config: Path, folder: str) -> None:
    found = problems(config, f"store.path={folder}/mine/store")
    (text,) = found.pop("permission")
    assert text.startswith(f"store.path: {folder}: got ")
    assert not found


def test_a_file_system_that_does_not_know_its_size(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = os.statvfs(config.parent)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*known[:2], *[0] * 9)))
    assert planned(config)["problems"] == []
    assert list(config.parent.glob("tmp*")) == []


def test_a_folder_that_is_no_store(config: Path) -> None:
    (config.parent / "store").mkdir()
    (config.parent / "store" / "letters").touch()
    assert "which holds letters and no symbio.json" in problems(config)["store"][0]


def test_frames_without_boxes_are_counted_once(config: Path) -> None:
    boxes = config.parent / "boxes.csv"
    lines = boxes.read_text().splitlines(keepends=True)
    boxes.write_text("".join(line for line in lines if not line.startswith("kitchen_b,1.0")))
    line = f"1 of 10 object frames have no boxes in {boxes}"
    assert symbio("plan", config).out.count(line) == 1
    assert symbio("run", config).out.count(line) == 1


def test_packages_of_executors_are_asked_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    found = checks.check_config(load_config(config, ("executor.name=slurm",)))
    assert [problem.name for problem in found] == ["package"]
    assert "executor.name: slurm: submitit is not installed; pip install" in found[0].text


@pytest.mark.parametrize(
    ("device", "visible", "torch_version", "shown"),
    [
        *[("cuda", None, "2.9.0+cu128", True), ("cuda:1", None, "2.9.0", True)],
        *[("cuda:2", None, "2.9.0", False), ("cuda", None, "2.9.0+cpu", False)],
        *[("cuda", "1", "2.9.0", True), ("cuda:1", "1", "2.9.0", False)],
        *[("cuda:1", "0,1,2,3", "2.9.0", True), ("cuda:2", "0,1,2,3", "2.9.0", False)],
        *[("cuda", "", "2.9.0", False), ("cuda", "-1", "2.9.0", False)],
    ],
)
def test_gpus_that_the_driver_shows_are_believed_without_torch(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    visible: str | None,
    torch_version: str,
    shown: bool,
) -> None:
    gpus = config.parent / "gpus"
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (gpus / name).mkdir(parents=True)
    monkeypatch.setattr(checks, "NVIDIA_GPUS", gpus)
    monkeypatch.setattr(checks, "version", lambda name: torch_version)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert checks._driver_shows(device) is shown
    if shown:
        monkeypatch.delitem(sys.modules, "torch")
        assert checks.check_config(load_config(config, (f"device={device}",))) == []
        assert "torch" not in sys.modules


def test_the_documentation_lists_the_problems() -> None:
    rows = table_rows(section("docs/extraction.md", "Before a run"))
    assert [row[0].strip("`") for row in rows] == list(get_args(checks.ProblemName))
