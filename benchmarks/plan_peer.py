"""The usual way to know what is done: one output file for each clip and stage, looked for.

python benchmarks/plan_peer.py FOLDER LABELS LABELS…
"""

import csv
import os
import sys
from pathlib import Path

STAGES = ("verb", "noun", "objects", "aligned")


def make_outputs(folder: Path, label_files: list[Path]) -> None:
    """Make the files that the peer looks for; they hold a byte that no disk keeps."""
    for stage in STAGES:
        for file in label_files:
            for path in _outputs(folder, stage, file):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as output:
                    output.truncate(1)


def _outputs(folder: Path, stage: str, labels: Path) -> list[Path]:
    return [Path(path) for path in _names(str(folder), stage, str(labels))]


def _names(folder: str, stage: str, labels: str) -> list[str]:
    with open(labels, newline="") as file:
        return [
            os.path.join(folder, stage, row["video_id"], f"{row['narration_id']}.npy")
            for row in csv.DictReader(file)
        ]


def _main(folder: str, *label_files: str) -> None:
    missing = 0
    for stage in STAGES:
        for labels in label_files:
            for name in _names(folder, stage, labels):
                missing += not (os.path.exists(name) and os.path.getsize(name) > 0)
    if missing:
        raise SystemExit(f"got {missing} clips without an output, expected none")


if __name__ == "__main__":
    _main(*sys.argv[1:])
