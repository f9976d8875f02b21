"""Trainings and interruptions from the command line: checkpoints that fit, resuming to the bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_fixtures import ALL_ROWS, symbio, table_rows, write_experiment

from heads.base import Head
from pipeline.finetune_boxes import BoxTask
from pipeline.finetune_clips import ClipTask
from stores.registry import open_store

ROOT = Path(__file__).parent.parent
NETS = ("verb", "noun", "objects")
EPOCHS = ["1/3", "2/3", "3/3"]


def epochs(text: str) -> list[str]:
    """Which epochs a training printed."""
    words = [line.split("epoch")[1].split()[0] for line in text.splitlines() if "epoch" in line]
    return [word for word in words if "/" in word]


def without_times(folder: Path, *files: str) -> dict[str, Any]:
    """Files of a training, the seconds that epochs took left out."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in files}
    lines = (folder / "log.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds")
    found["log.csv"] = [
        [cell for i, cell in enumerate(line.split(",")) if i != seconds] for line in lines
    ]
    return found


def stored(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """All rows of all generations: stage → output → (rows, ...) in the order of row keys."""
    with open_store(folder / "store", mode="r") as store:
        generations = [store.generation(g.stage, g.key) for g in store.generations()]
        return {g.stage: g.read(sorted(g.keys())) for g in generations}


def assert_same(got: Any, expected: Any) -> None:
    assert set(got) == set(expected)
    for stage, arrays in expected.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(got[stage][name], values, err_msg=f"{stage} {name}")


class Interrupt:
    """A Ctrl-C in the middle of the given call of a function."""

    def __init__(self, call: Callable[..., Any], at_call: int) -> None:
        self.call, self.left = call, at_call

    def __get__(self, owner: Any, kind: Any = None) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return self.call(owner, *arguments, **options)

        return counted


@pytest.mark.parametrize("net", NETS)
def test_a_finetune_makes_a_checkpoint_that_a_run_takes(net: str, tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    assert symbio("run", config).code == 0
    random = stored(tmp_path)
    done = symbio("finetune", config, "--net", net)
    assert done.code == 0
    assert epochs(done.out) == EPOCHS
    checkpoint = tmp_path / "runs" / f"small-finetune-{net}" / "checkpoint.safetensors"
    assert f"checkpoint: {checkpoint} (give it as stages.{net}.weights)" in done.out

    weights = ("--set", f"stages.{net}.weights={checkpoint}")
    run = symbio("run", config, *weights, "--set", f"stages.{net}.weights_seed=null")
    assert run.code == 0
    rows = table_rows(run.out, ["made", "failed", "skipped"])
    made = {stage: int(row["made"]) for stage, row in rows.items() if row["made"] != "0"}
    assert made == {net: ALL_ROWS[net], "aligned": 6}
    key = rows[net]["key"]
    digest = sha256(checkpoint.read_bytes()).hexdigest()
    provenance = json.loads((tmp_path / "store" / net / key / "stage.json").read_text())
    assert provenance["provenance"]["settings"]["weights"] == {"sha256": digest}
    with open_store(tmp_path / "store", mode="r") as store:
        keys = [info.key for info in store.generations() if info.stage == net]
        assert len(keys) == 2
        trained = store.generation(net, next(k for k in keys if k.startswith(key)))
        output = "features" if net == "objects" else "map"
        after = trained.read(sorted(trained.keys()))[output]
    assert not np.array_equal(after, random[net][output])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("at_call", [1, 4, 6])
def test_an_interrupted_finetune_goes_on_to_the_bit(
    net: str, at_call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_experiment(tmp_path)
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert symbio("finetune", config, "--net", net, "--run", whole).code == 0
    task = BoxTask if net == "objects" else ClipTask
    with monkeypatch.context() as patch:
        # Several batches an epoch, training and validation: in the middle of the first, the
        # second and a later epoch.
        patch.setattr(task, "logits", Interrupt(task.logits, at_call))
        done = symbio("finetune", config, "--net", net, "--run", half)
    assert (done.code, done.err) == (130, "interrupted\n")
    done = symbio("finetune", config, "--net", net, "--run", half, "--resume")
    assert done.code == 0
    assert epochs(done.out) == EPOCHS[len(EPOCHS) - len(epochs(done.out)) :]
    files = ("checkpoint.safetensors", "config.yaml")
    assert without_times(half, *files) == without_times(whole, *files)
    # A finished training has nothing left to do.
    assert epochs(symbio("finetune", config, "--net", net, "--run", half, "--resume").out) == []


@pytest.mark.parametrize("at_call", [1, 3, 4])
def test_an_interrupted_training_goes_on_to_the_bit(
    at_call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_experiment(tmp_path)
    options = ("--set", "train.epochs=3", "--set", "train.batch_size=1")
    assert symbio("run", config).code == 0
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert symbio("train", config, "--run", whole, *options).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Head, "loss", Interrupt(Head.loss, at_call))
        done = symbio("train", config, "--run", half, *options)
    assert (done.code, done.err) == (130, "interrupted\n")
    # Two batches an epoch: the epochs before the interruption are done.
    done = symbio("train", config, "--run", half, *options, "--resume")
    assert done.code == 0
    assert epochs(done.out) == EPOCHS[(at_call - 1) // 2 :]
    files = ("head.safetensors", "config.yaml", "metrics.json")
    assert without_times(half, *files) == without_times(whole, *files)


def test_a_training_gets_more_epochs_and_goes_back(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    options = ("--set", "train.batch_size=1", "--set", "train.keep_every=2")
    assert symbio("run", config).code == 0
    whole, more = tmp_path / "whole", tmp_path / "more"
    assert symbio("train", config, "--run", whole, "--set", "train.epochs=4", *options).code == 0
    assert symbio("train", config, "--run", more, "--set", "train.epochs=2", *options).code == 0
    going_on = ("--run", more, "--set", "train.epochs=4", *options, "--resume")
    done = symbio("train", config, *going_on)
    assert (done.code, epochs(done.out)) == (0, ["3/4", "4/4"])
    files = ("head.safetensors", "config.yaml", "metrics.json")
    assert without_times(more, *files) == without_times(whole, *files)
    done = symbio("train", config, *going_on, "--from-epoch", "2")
    assert (done.code, epochs(done.out)) == (0, ["3/4", "4/4"])
    assert without_times(more, *files) == without_times(whole, *files)
    done = symbio("train", config, *going_on, "--from-epoch", "3")
    assert done.code == 2
    assert "got no state of epoch 3, expected one of those kept: 2, 4;" in done.err
    done = symbio("train", config, "--from-epoch", "2")
    assert (done.code, "--from-epoch goes with --resume" in done.err) == (2, True)


def test_settings_of_a_training_are_checked_before_anything_else(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    options = ("--set", "train={epochs: 2, decay_epochs: [2]}")
    for command in ("plan", "run", "train"):
        done = symbio(command, config, *options)
        assert done.code == 2
        assert "Error: train: got decay_epochs=(2,), expected epochs from 1 to 1" in done.err
    assert not (tmp_path / "store").exists()


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_does_the_rest(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert symbio("run", write_experiment(whole)).code == 0
    config = write_experiment(half)
    # The child says that it computes, and takes its time, so that the signal comes in the middle.
    script = (
        "import sys, time; from cli import main\n"
        "from extractors.clip_network import ClipNetwork as N\n"
        "forward = N.launch\n"
        "def slow(self, clips):\n"
        "    print('forward', file=sys.stderr, flush=True); time.sleep(0.3)\n"
        "    return forward(self, clips)\n"
        "N.launch = slow\n"
        "main(['run', sys.argv[1], '--set', 'stages.verb.batch_size=1'], prog_name='symbio')\n"
    )
    command = [sys.executable, "-c", script, str(config)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        assert child.stderr is not None
        for _ in range(3):
            assert child.stderr.readline() == "forward\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted: what was finished is stored; the same command goes on" in out
    assert "Traceback" not in err
    rows = table_rows(symbio("status", config).out, ["wanted", "present", "missing"])
    kept = {stage: int(row["present"]) for stage, row in rows.items()}
    assert kept["verb"] >= 1
    assert sum(kept.values()) < sum(ALL_ROWS.values())
    done = symbio("run", config)
    assert done.code == 0
    rows = table_rows(done.out, ["made", "failed", "skipped"])
    made = {stage: int(row["made"]) for stage, row in rows.items()}
    assert made == {stage: wanted - kept[stage] for stage, wanted in ALL_ROWS.items()}
    # Videos written twice from the same frames are the same file, so the rows have the same keys.
    assert_same(stored(half), stored(whole))


@pytest.mark.parametrize("command", ["plan", "run", "train", "evaluate"])
def test_ctrl_c_while_libraries_load(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = ("pipeline.commands", "pipeline.plan_commands", "pipeline.head_commands")

    class Interrupting:
        def find_spec(self, name: str, *rest: Any) -> None:
            if name in modules:
                raise KeyboardInterrupt

    # Seconds of a command's life, so a Ctrl-C there is likely.
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    done = symbio(command, tmp_path / "small.yaml")
    assert (done.code, done.err) == (130, "interrupted\n")
