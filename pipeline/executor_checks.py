"""What keeps workers from working, as far as it shows here: nothing is started, joined or queued.

Slurm is asked for our own jobs, to see whether it answers at all.

No library of a cluster is loaded for that, nor torch, unless a GPU is asked for that does not show.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pipeline.checks import Problem, has_gpus
from pipeline.config import ExperimentConfig
from pipeline.config_ray import RayExecutorConfig
from pipeline.config_slurm import SlurmExecutorConfig
from pipeline.errors import ConfigError, in_words
from pipeline.ray_cluster import check_answers

__all__ = ["check_executor", "check_jobs"]

GIB = 2**30
# Longer than Slurm's own programs wait by default, so that it is they who say what is wrong.
ANSWER_SECONDS = 15.0
ELSEWHERE = (
    "run the command where jobs are submitted, such as a login node, or set executor.cluster: "
    "local to try it on this machine"
)


def check_executor(config: ExperimentConfig) -> list[Problem]:
    """What a run with something to do would fail of; one that has nothing to do needs no workers.

    Looks at this machine, which the texts name: on another one it may be otherwise.
    """
    problems = list(_precisions(config))
    executor = config.executor
    if executor.name == "slurm":
        problems += check_jobs(executor, config.store.path, config.device)
    elif executor.name == "ray" and executor.address is None:
        problems += _local_cluster(executor)
    elif executor.name == "ray" and executor.address is not None:
        try:
            check_answers(executor.address)
        except ConfigError as error:
            problems.append(Problem("executor", str(error)))
    return problems


def check_jobs(config: SlurmExecutorConfig, store: Path, device: str) -> list[Problem]:
    """What keeps jobs from being submitted, or their tasks from their GPU.

    Args:
        store: folder in which jobs have theirs.
        device: where the networks of a task run.
    """
    texts = []
    lacking = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if config.cluster == "slurm" and lacking:
        texts.append(
            f"executor.cluster: slurm: {' and '.join(lacking)} not found on the PATH of this "
            f"machine, {_host()}; {ELSEWHERE}"
        )
    elif config.cluster == "slurm" and (words := _squeue_fails()):
        texts.append(
            "executor.cluster: slurm: squeue gets no answer from Slurm on this machine, "
            f"{_host()}: {words}; try again when there is one, {ELSEWHERE}"
        )
    if "%" in (folder := os.path.abspath(store)):
        texts.append(
            f"store.path: got a '%' in {folder}, which Slurm takes for a pattern, expected none; "
            "name another folder"
        )
    gpus = config.gpus(device)
    is_shown_fewer = gpus > 0 or config.cluster == "local"  # of none Slurm need not hide any
    if device.startswith("cuda") and is_shown_fewer and gpus <= _number(device):
        texts.append(
            f"device: got {device}, expected one of the GPUs of a task, which count from 0; it has "
            f"{gpus} (executor.gpus_per_task); set device: cuda, or ask for more"
        )
    return [Problem("executor", text) for text in texts]


def _squeue_fails() -> str:
    """Why Slurm tells nothing, in its own words; "" where it does, or where nobody can ask it."""
    if shutil.which("squeue") is None:
        return ""
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", f"--user={os.geteuid()}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing was said in {ANSWER_SECONDS:g} seconds"
    except OSError as error:
        return in_words(error)
    if asked.returncode == 0:
        return ""
    return " ".join(asked.stderr.split()) or f"exit code {asked.returncode}"


def _local_cluster(config: RayExecutorConfig) -> Iterator[Problem]:
    """Of workers for which a cluster of this machine alone never has room."""

    def problem(key: str, got: float, has: str) -> Problem:
        text = (
            f"executor.{key}: got {got:g}, expected no more than the {has} of this machine, "
            f"{_host()}, on which executor.address: null starts a cluster; ask for less, or join a "
            "larger cluster"
        )
        return Problem("executor", text)

    cores = os.cpu_count()
    if cores is not None and config.cpus_per_worker > cores:
        yield problem("cpus_per_worker", config.cpus_per_worker, f"{cores} cores")
    gpus = config.gpus_per_worker  # null is one, of which is said under device
    if gpus is not None and not has_gpus(math.ceil(gpus)):
        yield problem("gpus_per_worker", gpus, "GPUs")
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if config.memory_gb is not None and config.memory_gb > memory_gb:
        yield problem("memory_gb", config.memory_gb, f"{memory_gb:.3g} GiB")


def _precisions(config: ExperimentConfig) -> Iterator[Problem]:
    """Of precisions that no CPU has."""
    stages = config.stages
    asked = {"stages.objects": stages.objects.precision}
    for name in ("verb", "noun"):
        stage = getattr(stages, name)
        asked[f"stages.{name}"] = stage.precision
        if stage.flow is not None:
            asked[f"stages.{name}.flow"] = stage.flow.precision
    for key, precision in asked.items():
        if precision == "tf32" and config.device == "cpu":
            text = f"{key}.precision: got tf32 with device: cpu, expected a GPU for it"
            yield Problem("device", f"{text}; use float32 or bfloat16, or set device: cuda")


def _number(device: str) -> int:
    """Of a GPU: "cuda:1" → 1, "cuda" → 0."""
    return int(device.partition(":")[2] or 0)


def _host() -> str:
    return socket.gethostname()
