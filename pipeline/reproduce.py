"""What is said of a failure, and the command that shows it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.error_classes import class_name
from stores.base import Failure

__all__ = ["ConfigSource", "failure_fields"]


@dataclass(frozen=True)
class ConfigSource:
    """What somebody typed to name an experiment: its file, and the values of ``--set``.

    Attributes:
        folder: where it was typed, of which relative paths are meant, those in the file as well;
            None where whoever sees the commands is in it.
    """

    path: Path
    overrides: Sequence[str] = ()
    folder: Path | None = None

    def from_anywhere(self) -> ConfigSource:
        """The same, typed in the folder of this process, with commands for whatever folder."""
        return replace(self, folder=Path.cwd())

    def command(self, name: str, *options: str) -> str:
        """A command line on the same experiment, quoted for a shell."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        command = shlex.join(["symbio", name, str(self.path), *sets, *options])
        return (
            command if self.folder is None else f"cd {shlex.quote(str(self.folder))} && {command}"
        )

    def reproduce(self, stage: str, clip_id: str) -> str:
        """The command that makes one row again, writes nothing, and shows what went wrong."""
        return self.command("explain", "--stage", stage, "--clip", clip_id, "--try")


def failure_fields(failure: Failure, stage: str, source: ConfigSource | None) -> dict[str, Any]:
    """A failure as JSON values; see docs/extraction.md for the fields."""
    return {
        "stage": stage,
        "row": failure.row_key,
        "clip": failure.clip_id,
        "video": failure.video_id,
        "class": class_name(failure.error_class),
        "exception": failure.error_class,
        "message": failure.message,
        "frame": failure.frame,
        "reproduce": None if source is None else source.reproduce(stage, failure.clip_id),
    }
