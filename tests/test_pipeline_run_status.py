"""How far a training is: read from its folder while it goes on and when it is done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import symbio, write_experiment
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, make_data
from test_pipeline_config_file import SMALL

from heads.registry import create_head
from heads.settings import TrainSettings
from heads.table import FeatureTable
from heads.training import TrainResult, train_head
from heads.training_log import EpochReport
from pipeline.config_file import parse_config
from pipeline.console import format_seconds
from pipeline.errors import RunFolderError
from pipeline.run_status import RunStatus, read_run_status
from pipeline.runs import start_run_folder


def train(folder: Path, epochs: int, on_epoch: Any = None) -> TrainResult:
    """A run of the small experiment, with a few epochs on made-up rows."""
    config = parse_config(SMALL, [f"train.epochs={epochs}"], source="small.yaml")
    start_run_folder(folder, config, resume=False)
    head = create_head("pooled", specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    tables = [FeatureTable(*make_data(20, seed=seed), outputs=head.inputs) for seed in (0, 1)]
    settings = TrainSettings(epochs=epochs, learning_rate=0.05)
    return train_head(
        folder,
        head,
        tables[0],
        validation_table=tables[1],
        settings=settings,
        on_epoch=on_epoch,
    )


def test_a_training_is_looked_at_while_it_goes_on(tmp_path: Path) -> None:
    seen: list[RunStatus] = []
    shown: list[str] = []

    def look(report: EpochReport) -> None:
        seen.append(read_run_status(tmp_path))
        shown.append(symbio("status", tmp_path).out)

    result = train(tmp_path, 3, look)
    assert [len(status.history) for status in seen] == [1, 2, 3]
    assert [status.finished for status in seen] == [False, False, True]
    for number, status in enumerate(seen, start=1):
        assert status.history == result.history[:number]
        best = max(report.epoch for report in status.history if report.kept)
        assert status.best is not None
        assert (status.best.epoch, status.head_epoch) == (best, best)
        spent = sum(report.seconds for report in status.history)
        assert status.seconds_per_epoch == pytest.approx(spent / number)
        assert status.seconds_left == pytest.approx(spent / number * (3 - number))
        assert status.evaluated == {}
    first = shown[0].splitlines()
    assert ": head saoa of experiment small, seed 0: 1 of 3 epochs, not finished" in first[0]
    assert first[1].startswith("last  epoch   1/3  loss ")
    assert first[2].startswith("kept  epoch   1/3  loss ")
    assert " s per epoch, the last one 0 s ago, 0 s left" in first[3]
    assert first[4] == "evaluated on: nothing yet"
    assert "3 of 3 epochs, finished" in shown[2]
    assert "left" not in shown[2]


def test_before_the_first_epoch_there_is_the_config(tmp_path: Path) -> None:
    start_run_folder(tmp_path, parse_config(SMALL, source="small.yaml"), resume=False)
    status = read_run_status(tmp_path)
    assert (status.history, status.best, status.seconds_left) == ((), None, None)
    assert not status.finished
    assert symbio("status", tmp_path).out.splitlines()[1:] == ["no epoch is done yet"]


def test_evaluations_are_named_with_the_head_they_were_made_with(tmp_path: Path) -> None:
    result = train(tmp_path, 2)
    for split, folder, epoch in (("val", "", result.epoch), ("test", "test", 99)):
        (tmp_path / folder).mkdir(exist_ok=True)
        details = {"split": split, "checkpoint": {"epoch": epoch}}
        (tmp_path / folder / "metrics.json").write_text(json.dumps({"details": details}))
    (tmp_path / "tensorboard" / "metrics.json").write_text("[]")
    assert read_run_status(tmp_path).evaluated == {"val": result.epoch, "test": 99}
    done = symbio("status", tmp_path)
    assert "evaluated on: val, test (with the head of epoch 99)" in done.out


def test_the_time_left_is_that_of_the_epochs_before(tmp_path: Path) -> None:
    status = read_run_status(tmp_path) if train(tmp_path, 2) else None
    assert status is not None
    config = parse_config(SMALL, ["train.epochs=10"], source="small.yaml")
    slow = tuple(replace(report, seconds=30.0 + report.epoch) for report in status.history)
    later = replace(status, config=config, history=slow)
    assert (later.seconds_per_epoch, later.seconds_left) == (31.5, 31.5 * 8)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (252, "4 min 12 s"), (3660, "1 h 01 min")],
)
def test_times_are_said_in_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_fusion_is_no_training(tmp_path: Path) -> None:
    start_run_folder(tmp_path, parse_config(SMALL, source="small.yaml"), resume=False)
    (tmp_path / "scores.npz").touch()
    with pytest.raises(RunFolderError, match=r"a fusion or an evaluation; .*symbio report"):
        read_run_status(tmp_path)


def test_the_folder_of_a_sweep_says_what_is_in_it(tmp_path: Path) -> None:
    for name in ("saoa-seed0", "sap-seed0"):
        start_run_folder(tmp_path / name, parse_config(SMALL, source="s.yaml"), resume=False)
    with pytest.raises(RunFolderError, match="run folders in it: saoa-seed0, sap-seed0"):
        read_run_status(tmp_path)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    done = symbio("status", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path}: got no config.yaml, expected the folder of a `symbio train`" in done.err
    train(tmp_path, 1)
    (tmp_path / "last.safetensors").write_bytes(b"12345678")
    with pytest.raises(RunFolderError, match=r"tells of no head's training"):
        read_run_status(tmp_path)
    done = symbio("status", tmp_path, "--set", "train.seed=1")
    assert (done.code, "--set and --watch go with a config" in done.err) == (2, True)


def test_the_folder_of_a_finetune_is_none_of_a_head(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    assert symbio("finetune", config, "--net", "verb", "--set", "finetune.verb.epochs=1").code == 0
    done = symbio("status", tmp_path / "runs" / "small-finetune-verb")
    assert done.code == 2
    assert "that of a `symbio finetune` has its numbers in log.csv" in done.err
