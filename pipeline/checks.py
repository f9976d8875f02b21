"""What would stop a run, found out before it begins: all of it, not the first only."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from pipeline.config import ExperimentConfig
from pipeline.config_executor import works_here
from pipeline.console import format_nbytes
from pipeline.errors import ConfigError, in_words
from stores.formats import DEFAULT_FORMAT
from stores.lock import writer_of
from stores.marker import check_free_or_ours, read_format

__all__ = [
    "Problem",
    "ProblemName",
    "check_config",
    "check_holder",
    "check_space",
    "has_gpus",
    "refuse",
]

# What a store keeps beside its shards: manifest, rows.csv, logs; and what others write meanwhile.
MARGIN_SHARE, MARGIN_NBYTES = 0.02, 64 * 2**20
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each, by the driver
# Package → how to get it. They are asked for by a word in the config.
INSTALL = {
    "decord": "pip install decord2",
    "cv2": "pip install 'symbio[flow]'",
    "ray": "pip install 'symbio[ray]'",
    "submitit": "pip install 'symbio[slurm]'",
}

ProblemName = Literal[
    "weights",
    "device",
    "package",
    "executor",
    "permission",
    "store",
    "store_held",
    "disk",
    "config",
]


@dataclass(frozen=True)
class Problem:
    """Something that would stop a run. ``text`` says what to do about it."""

    name: ProblemName
    text: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_config(config: ExperimentConfig) -> list[Problem]:
    """What can be seen from a config alone; no video, label or network is looked at."""
    return [
        *_weights(config),
        *_packages(config),
        *_device(config),
        *_folders(config),
    ]


def check_space(folder: Path, needed_nbytes: int) -> list[Problem]:
    """Whether a file system has room.

    Args:
        folder: of the store, which need not be there yet.
        needed_nbytes: of shards that are not there yet.
    """
    margin_nbytes = round(needed_nbytes * MARGIN_SHARE) + MARGIN_NBYTES
    wanted = needed_nbytes + margin_nbytes
    usage = shutil.disk_usage(_nearest(folder))
    free, is_known = usage.free, usage.total > 0
    if not needed_nbytes or not is_known or free >= wanted:
        return []
    text = (
        f"{folder}: got {format_nbytes(free)} of free space, expected {format_nbytes(wanted)}, for "
        f"{format_nbytes(needed_nbytes)} of rows and {format_nbytes(margin_nbytes)} beside them; "
        "make room, move the store (store.path), or store less (stages.*.outputs, "
        "store.compression: zstd, data.only)"
    )
    return [Problem("disk", text)]


def check_holder(store: Path) -> list[Problem]:
    """Whether somebody writes to a store now, whatever a writer that died left there."""
    holder = writer_of(store)
    if holder is None:
        return []
    text = f"{store}: held by {holder}, which writes to it; wait for it or stop it"
    return [Problem("store_held", f"{text} (symbio status shows how far it is)")]


def refuse(problems: Sequence[Problem]) -> None:
    """Stop where there are problems.

    Raises:
        ConfigError: all of them.
    """
    if len(problems) == 1:
        raise ConfigError(problems[0].text)
    if problems:
        lines = "\n".join(f"  {problem.text}" for problem in problems)
        raise ConfigError(f"{len(problems)} things are in the way:\n{lines}")


def _weights(config: ExperimentConfig) -> Iterator[Problem]:
    stages = config.stages
    sections: list[tuple[str, Path | None]] = [
        (f"stages.{name}.weights", getattr(stages, name).checkpoint)
        for name in ("verb", "noun", "objects")
    ]
    for name in ("verb", "noun"):
        flow = getattr(stages, name).flow
        if flow is not None:
            sections.append((f"stages.{name}.flow.weights", flow.checkpoint))
    for key, path in sections:
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as error:
            advice = "give a checkpoint file, or the word random with weights_seed"
            yield Problem("weights", f"{key}: {path}: {error.strerror or error}; {advice}")


def _packages(config: ExperimentConfig) -> Iterator[Problem]:
    asked: list[tuple[str, str]] = []
    videos = getattr(config.data, "videos", None)
    if getattr(videos, "reader", None) == "decord":
        asked.append(("data.videos.reader: decord", "decord"))
    if config.stages.objects.detector.name == "detectron2":
        asked.append(("stages.objects.detector.name: detectron2", "detectron2"))
    for name in ("verb", "noun"):
        flow = getattr(config.stages, name).flow
        if flow is not None and flow.method == "tvl1":
            asked.append((f"stages.{name}.flow.method: tvl1", "cv2"))
    executor = config.executor.name
    if executor in ("ray", "slurm"):
        asked.append((f"executor.name: {executor}", {"ray": "ray", "slurm": "submitit"}[executor]))
    for words, package in asked:
        if not _is_installed(package):
            yield Problem("package", f"{words}: {package} is not installed; {_advice(package)}")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # loaded already, by other ways than most
        return True


def _advice(package: str) -> str:
    if package != "detectron2":
        return INSTALL[package]
    from extractors.detectron2_config import INSTALL as advice

    return advice


def _device(config: ExperimentConfig) -> Iterator[Problem]:
    if config.device == "cpu" or not works_here(config.executor):
        return
    # Ray chooses the GPU of a worker.
    device = "cuda" if config.executor.name == "ray" else config.device
    if "torch" not in sys.modules and _driver_shows(device):
        return
    import torch

    from extractors.inference import resolve_device

    try:
        index = resolve_device(device).index or 0
    except (ValueError, RuntimeError) as error:
        yield Problem("device", f"device: {error}")
        return
    if index >= (count := torch.cuda.device_count()):
        text = f"got {device}, expected one of {count} devices, which count from 0"
        yield Problem("device", f"device: {text}")


def has_gpus(count: int) -> bool:
    """Whether this machine has so many GPUs; torch is loaded only where that does not show."""
    if count == 0 or ("torch" not in sys.modules and _driver_shows(f"cuda:{count - 1}")):
        return True
    import torch

    return torch.cuda.device_count() >= count


def _driver_shows(device: str) -> bool:
    """Whether there is such a GPU, as far as can be seen without torch, which is slow to load.

    Where it cannot be seen, torch says what is wrong.
    """
    number = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbered = len(list(NVIDIA_GPUS.glob("*")))
    if visible is not None:
        numbered = min(numbered, len([name for name in visible.split(",") if name.isdecimal()]))
    return number < numbered and not version("torch").endswith("+cpu")


def _folders(config: ExperimentConfig) -> Iterator[Problem]:
    store = config.store.path
    try:
        check_free_or_ours(store, config.store.format or read_format(store) or DEFAULT_FORMAT)
    except (OSError, ValueError) as error:
        yield Problem("store", f"store.path: {in_words(error)}")
    for key, folder in (("store.path", store), ("runs", config.runs)):
        nearest = _nearest(folder)
        if not nearest.is_dir():
            continue  # which is said already, or when something is written there
        if reason := _refuses(nearest):
            yield Problem("permission", f"{key}: {nearest}: {reason}")


def _refuses(folder: Path) -> str:
    """Why nothing can be written to a folder; "" where it can."""
    system = os.statvfs(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EROFS if system.f_flag & os.ST_RDONLY else errno.EACCES)
        return f"{reason}: got no access to write, expected it; get it, or name another folder"
    if system.f_blocks == 0:  # of /proc and /sys, which let root pass; some real ones do not know
        try:
            TemporaryFile(dir=folder).close()
        except OSError:
            return "got a file system that keeps no files, expected one that does; name another"
    return ""


def _nearest(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    absolute = Path(os.path.abspath(folder))
    return next(path for path in (absolute, *absolute.parents) if path.exists())
