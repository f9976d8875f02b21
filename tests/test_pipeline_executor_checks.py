"""What keeps workers from working, as a plan and a run tell before anything is started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_fixtures import planned, symbio, write_experiment

from pipeline.checks import check_config
from pipeline.config_file import load_config
from pipeline.executor_checks import check_executor
from stores.registry import open_store

HERE = f"this machine, {socket.gethostname()}"
RAY, SLURM = "executor.name=ray", "executor.name=slurm"
NOWHERE = ("executor.name=ray", "executor.address=127.0.0.1:1")
SLEEP = shutil.which("sleep")
LIBRARIES = {"ray", "submitit", "torch"}
LOOK = """
import sys
from pathlib import Path
from pipeline.config_file import load_config
from pipeline.executor_checks import check_executor
for override in sys.argv[2:]:
    check_executor(load_config(Path(sys.argv[1]), override.split(",")))
print(*(name for name in {libraries} if name in sys.modules))
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which jobs are submitted; the folder of its programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def found(config: Path, *overrides: str) -> list[tuple[str, str]]:
    return [(p.name, p.text) for p in check_executor(load_config(config, overrides))]


def test_a_plan_and_a_run_say_it_alike_and_at_once(config: Path) -> None:
    options = [word for override in NOWHERE for word in ("--set", override)]
    (problem,) = planned(config, *options, code=2)["problems"]
    assert problem["name"] == "executor"
    assert problem["text"].startswith(
        f"executor.address: 127.0.0.1:1: nobody answers there from {HERE} (["
    )
    run = symbio("run", config, *options)
    assert (run.code, run.err) == (2, f"Error: {problem['text']}\n")
    assert symbio("plan", config, *options).err == run.err
    assert not (config.parent / "store").exists()
    both = (*options, "--set", "stages.verb.weights=nowhere.pt")
    both = (*both, "--set", "stages.verb.weights_seed=null")
    run = symbio("run", config, *both)
    assert (run.code, run.err) == (2, symbio("plan", config, *both).err)
    assert "2 things are in the way" in run.err
    assert problem["text"] in run.err


def test_where_nothing_is_to_do_no_worker_is_needed(config: Path) -> None:
    options = [word for override in NOWHERE for word in ("--set", override)]
    assert symbio("run", config, "--quiet").code == 0
    assert symbio("run", config, *options).code == 0
    assert planned(config, *options)["problems"] == []
    with open_store(config.parent / "store", mode="a") as store:
        (info,) = (info for info in store.generations() if info.stage == "objects")
        objects = store.generation("objects", info.key)
        objects.forget(objects.keys()[:1])
    assert symbio("run", config, *options).code == 2
    assert planned(config, *options, code=2)["problems"]


def test_nothing_heavy_is_loaded_to_look(config: Path) -> None:
    looks = (
        *[",".join(NOWHERE), f"{RAY},executor.address=auto"],
        *[f"{RAY},executor.cpus_per_worker=100000,executor.memory_gb=1000000"],
        *[SLURM, f"{SLURM},executor.cluster=local,device=cuda:7"],
    )
    line = [sys.executable, "-c", LOOK.format(libraries=LIBRARIES), str(config), *looks]
    ended = subprocess.run(line, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_workers_of_this_machine_are_not_asked_about(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(config.parent))
    assert found(config, "executor.workers=3") == []
    assert found(config, SLURM, "executor.cluster=local") == []
    assert found(config, RAY) == []


@pytest.mark.parametrize(
    ("key", "most", "more", "words"),
    [
        *[("cpus_per_worker", 6, 7, "got 7, expected no more than the 6 cores of")],
        *[("gpus_per_worker", 2, 3, "got 3, expected no more than the GPUs of")],
        *[("memory_gb", 4.0, 4.1, "got 4.1, expected no more than the 4 GiB of")],
    ],
)
def test_a_cluster_of_this_machine_has_no_more_than_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, key: str, most: float, more: float, words: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}.__getitem__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert found(config, RAY, f"executor.{key}={most}") == []
    ((name, text),) = found(config, RAY, f"executor.{key}={more}")
    assert name == "executor"
    assert text.startswith(f"executor.{key}: ")
    assert f"{words} {HERE}, on which" in text
    with socket.create_server(("127.0.0.1", 0)) as server:  # another cluster may have more
        address = f"executor.address=127.0.0.1:{server.getsockname()[1]}"
        assert found(config, RAY, address, f"executor.{key}={more}") == []


@pytest.mark.parametrize("lacking", ["sbatch", "srun"])
def test_jobs_are_submitted_where_slurm_is(config: Path, programs: Path, lacking: str) -> None:
    assert found(config, SLURM) == []
    (programs / lacking).unlink()
    ((name, text),) = found(config, SLURM)
    assert name == "executor"
    assert text.startswith(f"executor.cluster: slurm: {lacking} not found on the PATH of {HERE};")
    assert found(config, SLURM, "executor.cluster=local") == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo squeue: fatal: no configuration >&2; exit 1", "squeue: fatal: no configuration"),
        ("exit 3", "exit code 3"),
        ("exec {sleep} 60", "nothing was said in 0.5 seconds"),
        ("exit 0", ""),
    ],
)
def test_slurm_has_to_answer(
    config: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr("pipeline.executor_checks.ANSWER_SECONDS", 0.5 if "sleep" in script else 15)
    squeue = programs / "squeue"
    squeue.write_text("#!/bin/sh\n" + script.format(sleep=SLEEP))
    squeue.chmod(0o755)
    assert found(config, SLURM, "executor.cluster=local") == []
    problems = found(config, SLURM)
    assert [name for name, _ in problems] == ["executor"] * bool(words)
    if not words:
        return
    start = f"executor.cluster: slurm: squeue gets no answer from Slurm on {HERE}: {words}; try"
    assert problems[0][1].startswith(start)
    options = ("--set", "executor.name=slurm")
    assert planned(config, *options, code=2)["problems"][0]["name"] == "executor"
    run = symbio("run", config, *options)
    assert (run.code, run.err) == (2, f"Error: {problems[0][1]}\n")
    assert not (config.parent / "store").exists()


@pytest.mark.parametrize("cluster", ["local", "slurm"])
@pytest.mark.usefixtures("programs")
def test_a_path_that_slurm_takes_for_a_pattern(config: Path, cluster: str) -> None:
    settings = (SLURM, f"executor.cluster={cluster}", f"store.path={config.parent}/50%/store")
    ((name, text),) = found(config, *settings)
    assert name == "executor"
    assert text.startswith(f"store.path: got a '%' in {config.parent}/50%/store, which Slurm")


@pytest.mark.parametrize(
    ("device", "cluster", "gpus", "fits"),
    [
        *[("cuda", "slurm", "null", True), ("cuda:0", "slurm", "null", True)],
        *[("cuda:1", "slurm", "null", False), ("cuda:1", "slurm", "2", True)],
        *[("cuda:3", "slurm", "0", True), ("cuda", "local", "0", False)],
        *[("cuda:1", "local", "2", True), ("cuda:2", "local", "2", False)],
        *[("cpu", "local", "0", True), ("cpu", "slurm", "1", True)],
    ],
)
@pytest.mark.usefixtures("programs")
def test_a_task_sees_the_gpus_it_asks_for(
    config: Path, device: str, cluster: str, gpus: str, fits: bool
) -> None:
    settings = (SLURM, f"device={device}", f"executor.cluster={cluster}")
    problems = found(config, *settings, f"executor.gpus_per_task={gpus}")
    assert [name for name, _ in problems] == ([] if fits else ["executor"])
    assert all(text.startswith(f"device: got {device}, expected one of") for _, text in problems)


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        *[(("device=cuda:1",), False), (("device=cuda:0", "executor.workers=4"), True)],
        # Ray chooses the GPU of a worker.
        *[((RAY, "device=cuda:1"), True), ((RAY, "executor.address=auto"), True)],
        *[((SLURM, "device=cuda:1"), True)],
        *[((SLURM, "executor.cluster=local", "device=cuda:1"), False)],
    ],
)
def test_a_gpu_is_asked_for_here_where_the_work_is_done_here(
    config: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], fits: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    problems = check_config(load_config(config, settings))
    assert [problem.name for problem in problems] == ([] if fits else ["device"])


def test_a_cluster_of_a_machine_without_gpus_has_none(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for settings in ((RAY,), (SLURM, "executor.cluster=local")):
        (problem,) = check_config(load_config(config, (*settings, "device=cuda")))
        assert "no CUDA device is available" in problem.text
        elsewhere = "executor.cluster=slurm" if settings[0] == SLURM else "executor.address=auto"
        assert check_config(load_config(config, (*settings, elsewhere, "device=cuda"))) == []


def test_no_cpu_has_tf32(config: Path) -> None:
    keys = ("stages.verb.precision", "stages.noun.precision", "stages.objects.precision")
    for key in keys:
        ((name, text),) = found(config, f"{key}=tf32")
        assert name == "device"
        assert text.startswith(f"{key}: got tf32 with device: cpu, expected a GPU")
        assert found(config, f"{key}=tf32", "device=cuda") == []
    flow = "stages.noun.flow={method: raft, weights: random, weights_seed: 0, precision: tf32}"
    assert "stages.noun.flow.precision" in found(config, flow)[0][1]
