"""Whole states of earlier epochs in a run folder, and the way back to one of them.

`epochs/epoch_005.safetensors` is `last.safetensors` as it was after epoch 5, and
`epochs/epoch_005_best.safetensors` is `head.safetensors` as it was then: the best until then, whose
own epoch may not have been kept.
"""

from __future__ import annotations

from pathlib import Path

from heads.atomic import write_atomically

FOLDER = "epochs"
_STATE = "epoch_{:03d}.safetensors"
_BEST = "epoch_{:03d}_best.safetensors"


def keep_best(run_folder: Path, epoch: int, *, head_file: str) -> Path:
    """Keep the best head as of an epoch that just ended; return where its state should go."""
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    _copy(run_folder / head_file, folder / _BEST.format(epoch))
    return folder / _STATE.format(epoch)


def kept_state(run_folder: Path, epoch: int) -> Path:
    """The state of an epoch.

    Raises:
        FileNotFoundError: it was not kept; the message says which were.
    """
    folder = run_folder / FOLDER
    path = folder / _STATE.format(epoch)
    if not path.is_file():
        stems = [file.stem.removeprefix("epoch_") for file in folder.glob("epoch_*.safetensors")]
        kept = sorted(int(stem) for stem in stems if stem.isdigit())
        found = ", ".join(map(str, kept)) or "none"
        raise FileNotFoundError(
            f"{run_folder}: got no state of epoch {epoch}, expected one of those kept: {found}; "
            "train.keep_every keeps them"
        )
    return path


def go_back(run_folder: Path, epoch: int, *, head_file: str, last_file: str) -> None:
    """Make a kept epoch the last one of the run folder again; other kept epochs stay.

    Raises:
        FileNotFoundError: it was not kept.
    """
    state = kept_state(run_folder, epoch)
    _copy(run_folder / FOLDER / _BEST.format(epoch), run_folder / head_file)
    _copy(state, run_folder / last_file)


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, source.read_bytes())
