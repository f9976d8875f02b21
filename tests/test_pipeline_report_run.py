"""Reports of runs that were really trained, from the command line; what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_fixtures import symbio, write_experiment
from report_fixtures import Page

from pipeline.report_run import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with a trained and evaluated run in ``run``."""
    folder = tmp_path_factory.mktemp("reported")
    config = write_experiment(folder)
    assert symbio("run", config, "-q").code == 0
    assert symbio("train", config, "-q", "--run", folder / "run").code == 0
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy of the run folder, to break."""
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def test_a_run_is_read_whole(folder: Path) -> None:
    run = read_run(folder / "run")
    assert (run.name, run.split, run.segment_ids) == ("run", "val", ("b0", "b1"))
    assert (run.verb.names, run.noun.names) == (("take", "put"), ("cup", "knife", "pan"))
    assert run.verb.labels.tolist() == [1, 0]
    assert [row["epoch"] for row in run.epochs] == [1, 2]
    assert run.num_segments == {"train": 2, "val": 2}
    assert run.experiment is not None
    assert run.notes == []


def test_the_command_writes_into_the_run_folder(run: Path) -> None:
    done = symbio("report", run)
    assert done.code == 0
    assert done.out.startswith(f"report: {run}/report.html (")
    text = Page((run / "report.html").read_text()).text
    assert "Experiment small, head saoa, split val." in text
    # Down to the stage keys, with what stands behind them.
    keys = read_run(run).checkpoint.provenance["stages"]
    assert all(f"{name} {key[:12]}" in text for name, key in keys.items())
    assert "weights random, seed 1" in text
    assert "clip 4 frames, every second of 30 a second" in text
    assert "objects at most 3 a frame" in text
    assert "windows 2 s of objects, 1 s of them aligned locally, 2 frames a second" in text


def test_out_says_where(run: Path, tmp_path: Path) -> None:
    assert symbio("report", run, "--out", tmp_path / "new" / "page.html").code == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert not (run / "report.html").exists()


def test_another_split_is_reported_by_itself(run: Path) -> None:
    missing = symbio("report", run, "--split", "train")
    assert missing.code == 2
    assert f"run `symbio evaluate {run} --split train` first" in missing.err
    assert symbio("evaluate", run, "--split", "train").code == 0
    assert symbio("report", run, "--split", "train").code == 0
    assert "split train" in Page((run / "train" / "report.html").read_text()).text
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["scores.npz", "metrics.json"])
def test_a_run_that_was_not_evaluated(name: str, run: Path) -> None:
    (run / name).unlink()
    done = symbio("report", run)
    assert (done.code, done.out) == (2, "")
    assert f"got no {name} of split val" in done.err
    assert f"run `symbio evaluate {run}` first" in done.err


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    done = symbio("report", tmp_path)
    assert done.code == 2
    assert "got no config.yaml, expected the folder of a finished `symbio train`" in done.err


@pytest.mark.parametrize(
    ("name", "content"), [("scores.npz", b"PK nothing"), ("metrics.json", b"{"), ("log.csv", b"")]
)
def test_files_that_are_broken(name: str, content: bytes, run: Path) -> None:
    (run / name).write_bytes(content)
    done = symbio("report", run)
    if name == "log.csv":
        assert done.code == 0
        assert "#training" not in Page((run / "report.html").read_text()).values("href")
    else:
        assert done.code == 2
        assert str(run / name) in done.err


def test_labels_that_are_gone(folder: Path, run: Path, tmp_path: Path) -> None:
    # Another config than the one the run was trained with: its label file is not there.
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("labels.csv", "gone.csv"))
    assert symbio("report", run).code == 0
    page = Page((run / "report.html").read_text()).text
    assert "Classes go by their numbers" in page
    assert "gone.csv: no such label file" in page
    assert "verb 1" in page


def test_weights_that_are_gone_leave_the_names(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "weights: random\n    weights_seed: 3" in text
    changed = text.replace("weights: random\n    weights_seed: 3", "weights: /nowhere/w.pth")
    (run / "config.yaml").write_text(changed)
    assert symbio("report", run).code == 0
    page = Page((run / "report.html").read_text()).text
    assert "Frames and attention are left out: stages.objects.weights: /nowhere/w.pth" in page
    assert "knife" in page


def test_a_store_that_is_gone(run: Path, folder: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"{folder}/store", f"{folder}/nowhere"))
    assert symbio("report", run).code == 0
    assert "The store cannot be read any more" in Page((run / "report.html").read_text()).text
