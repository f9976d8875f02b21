from __future__ import annotations

from pathlib import Path

import pytest
from test_pipeline_config_file import SMALL

from pipeline.config import ExperimentConfig
from pipeline.config_file import dump_config, parse_config
from pipeline.errors import ConfigError, RunFolderError
from pipeline.runs import default_run_folder, open_run_folder, start_run_folder


def config_of(*overrides: str) -> ExperimentConfig:
    return parse_config(SMALL, overrides, source="small.yaml")


def test_one_folder_per_head_and_seed() -> None:
    assert default_run_folder(config_of()) == Path("runs/small-saoa-seed0")
    other = config_of("runs=elsewhere", "head={name: sap}", "train.seed=3", "name=big")
    assert default_run_folder(other) == Path("elsewhere/big-sap-seed3")


def test_a_folder_is_claimed_with_the_whole_config(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "deep" / "first"
    start_run_folder(folder, config_of(), resume=False)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert (folder / "config.yaml").read_text() == dump_config(config_of())


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_may_be_there(tmp_path: Path, resume: bool) -> None:
    start_run_folder(tmp_path, config_of(), resume=resume)
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_an_epoch_holds_no_folder(tmp_path: Path, resume: bool) -> None:
    start_run_folder(tmp_path, config_of("train.epochs=3"), resume=False)
    start_run_folder(tmp_path, config_of("train.epochs=4"), resume=resume)
    assert (tmp_path / "config.yaml").read_text() == dump_config(config_of("train.epochs=4"))


def test_a_claimed_folder_is_taken(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of(), resume=False)
    (tmp_path / "last.safetensors").touch()
    (tmp_path / "log.csv").write_text("epoch\n1\n")
    with pytest.raises(RunFolderError, match="holds a run already; add --resume"):
        start_run_folder(tmp_path, config_of(), resume=False)
    assert (tmp_path / "log.csv").read_text() == "epoch\n1\n"


def test_a_run_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of("train.epochs=3"), resume=True)
    (tmp_path / "last.safetensors").touch()
    before = (tmp_path / "config.yaml").read_text()
    start_run_folder(tmp_path, config_of("train.epochs=3"), resume=True)
    for overrides, named in {
        ("train.epochs=2",): r"train\.epochs \(3 then, 2 now\)",
        ("train.epochs=4", "views.train=9"): r"views\.train \(\d then, 9 now\), train\.epochs \(3",
        ("train.epochs=3", "train.seed=7", "head={name: sap, size: 2}"): (
            r"head\.name \('saoa' then, 'sap' now\), head\.gating \(False then, absent now\), "
            r"train\.seed \(0 then, 7 now\), head\.size \(absent then, 2 now\);"
        ),
    }.items():
        with pytest.raises(RunFolderError, match=f"a run with other settings: {named}"):
            start_run_folder(tmp_path, config_of(*overrides), resume=True)
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_goes_on_with_other_settings_that_decide_no_number(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of(), resume=True)
    (tmp_path / "last.safetensors").touch()
    free = ("train.keep_every=2", "train.resident_mib=0", "engine.decode_processes=0")
    start_run_folder(tmp_path, config_of(*free), resume=True)
    assert (tmp_path / "config.yaml").read_text() == dump_config(config_of(*free))


def test_a_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of("train.epochs=3"), resume=True)
    (tmp_path / "last.safetensors").touch()
    start_run_folder(tmp_path, config_of("train.epochs=5"), resume=True)
    assert (tmp_path / "config.yaml").read_text() == dump_config(config_of("train.epochs=5"))


def test_a_cosine_goes_on_with_its_epochs_only(tmp_path: Path) -> None:
    """The rates of the epochs done would have been others."""
    cosine = "train={schedule: cosine, epochs: 3}"
    start_run_folder(tmp_path, config_of(cosine), resume=True)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(
        RunFolderError, match=r"train\.epochs \(3 then, 5 now\);.*train\.schedule is"
    ):
        start_run_folder(tmp_path, config_of(cosine, "train.epochs=5"), resume=True)


def test_many_other_settings_are_counted(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of(), resume=True)
    (tmp_path / "last.safetensors").touch()
    train = "train={epochs: 3, seed: 1, momentum: 0.5, eps: 0.1, batch_size: 3, nesterov: true}"
    with pytest.raises(RunFolderError, match=r"\) and 1 more; choose another"):
        start_run_folder(tmp_path, config_of(train), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_folders_that_are_no_runs_are_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not empty and not a run folder"):
        start_run_folder(tmp_path, config_of(), resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("text")
    with pytest.raises(RunFolderError, match="got a file, expected a folder"):
        start_run_folder(file, config_of(), resume=False)


def test_a_finished_run_is_opened_with_its_config(tmp_path: Path) -> None:
    config = config_of("head={name: sap, rate: 1e-6}", "data.nouns=7")
    start_run_folder(tmp_path, config, resume=False)
    (tmp_path / "head.safetensors").touch()
    assert open_run_folder(tmp_path) == config


def test_folders_without_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"got no config\.yaml, expected the folder of a"):
        open_run_folder(tmp_path / "absent")
    start_run_folder(tmp_path, config_of(), resume=False)
    with pytest.raises(RunFolderError, match=r"got no head\.safetensors, expected the folder of a"):
        open_run_folder(tmp_path)


def test_a_config_changed_by_hand_is_checked(tmp_path: Path) -> None:
    start_run_folder(tmp_path, config_of(), resume=False)
    (tmp_path / "head.safetensors").touch()
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("extra: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:\d+: extra: unknown key"):
        open_run_folder(tmp_path)
