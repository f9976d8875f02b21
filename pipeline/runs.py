"""Run folders: one training of one head, and everything to understand and repeat it.

config.yaml  head.safetensors  last.safetensors  epochs/  log.csv  tensorboard/  metrics.json
scores.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heads.training import HEAD_FILE, LAST_FILE
from pipeline.config import ExperimentConfig
from pipeline.config_file import dump_config, load_config
from pipeline.errors import ConfigError, RunFolderError
from pipeline.yaml_file import parse_yaml
from stores.durable import replace_file

__all__ = [
    "check_same_settings",
    "default_run_folder",
    "evaluation_folder",
    "open_run_folder",
    "start_run_folder",
    "with_views",
    "write_config",
]

CONFIG_NAME = "config.yaml"
MOST_NAMED = 5
# Decide no number of a head's training, so they may change on the way.
FREE = ("engine.", "runs", "train.keep_every", "train.resident_mib")


def default_run_folder(config: ExperimentConfig) -> Path:
    """Where a training goes unless it is told otherwise: one folder per head and seed."""
    return config.runs / f"{config.name}-{config.head.name}-seed{config.train.seed}"


def evaluation_folder(folder: Path, config: ExperimentConfig, split: str) -> Path:
    """Where a run keeps what was measured on a split: the config's own lies in the run folder."""
    return folder if split == config.evaluate.split else folder / split


def with_views(config: ExperimentConfig, split: str, views: int) -> ExperimentConfig:
    """A run's config for an evaluation on another number of clips per segment.

    Raises:
        ConfigError: of the split that is trained on.
    """
    if split == "train":
        raise ConfigError(
            "got --views for split 'train', expected another: training segments have the clips of "
            "views.train"
        )
    counted = config.views.model_copy(update={"test": views})
    evaluate = config.evaluate.model_copy(update={"split": split})
    return config.model_copy(update={"views": counted, "evaluate": evaluate})


def write_config(folder: Path, config: ExperimentConfig) -> None:
    """Keep a config beside what was made with it, atomically."""
    replace_file(folder / CONFIG_NAME, dump_config(config).encode(), durable=True)


def start_run_folder(folder: Path, config: ExperimentConfig, *, resume: bool) -> None:
    """Claim a folder for a training. One that ended before its first epoch may be claimed anew.

    With ``resume``, ``train.epochs`` may be more than before; the folder's config then says so.

    Raises:
        RunFolderError: it holds another experiment, or one that is not to be resumed.
    """
    file = folder / CONFIG_NAME
    if (folder / LAST_FILE).exists():
        if not resume:
            raise RunFolderError(
                f"{folder}: holds a run already; add --resume to go on with it, or --run to "
                "choose another folder"
            )
        check_same_settings(folder, config, remedy="choose another folder with --run")
        write_config(folder, config)
        return
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: got a file, expected a folder; choose another with --run")
    if folder.exists() and not file.exists() and any(folder.iterdir()):
        raise RunFolderError(
            f"{folder}: not empty and not a run folder (no {CONFIG_NAME}); choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)


def check_same_settings(folder: Path, config: ExperimentConfig, *, remedy: str) -> None:
    """Refuse a folder with an epoch of a training that has other settings.

    Settings that decide no number may differ, and more epochs are fine where no rate depends on
    how many there are.

    Raises:
        RunFolderError: which names what differs and ends with the remedy.
    """
    if not (folder / LAST_FILE).exists():
        return
    file = folder / CONFIG_NAME
    then = _leaves(parse_yaml(file.read_text(encoding="utf-8"))[0]) if file.is_file() else {}
    now = _leaves(parse_yaml(dump_config(config))[0])
    names = [
        name
        for name in {**then, **now}
        if then.get(name) != now.get(name) and not name.startswith(FREE)
    ]
    epochs, steps = "train.epochs", config.train.schedule == "step"
    if names and not (names == [epochs] and steps and now[epochs] > then[epochs]):
        shown = [
            f"{name} ({_shown(then, name)} then, {_shown(now, name)} now)"
            for name in names[:MOST_NAMED]
        ]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise RunFolderError(
            f"{folder}: holds a run with other settings: {', '.join(shown)}{more}; {remedy}. A run "
            "goes on with the same settings, or with more train.epochs where train.schedule is step"
        )


def _shown(leaves: dict[str, Any], name: str) -> str:
    return repr(leaves[name]) if name in leaves else "absent"


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Dotted path → value, of everything in a tree that is no section."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    below = (_leaves(value, f"{path}.{key}" if path else key) for key, value in tree.items())
    return {name: value for leaves in below for name, value in leaves.items()}


def open_run_folder(folder: Path) -> ExperimentConfig:
    """The config of a run.

    Raises:
        RunFolderError: not a run folder, or one without a trained head.
    """
    for name in (CONFIG_NAME, HEAD_FILE):
        if not (folder / name).is_file():
            raise RunFolderError(
                f"{folder}: got no {name}, expected the folder of a finished `symbio train`"
            )
    return load_config(folder / CONFIG_NAME)
