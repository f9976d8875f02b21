"""The command that shows one failure again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ConfigSource"]


@dataclass(frozen=True)
class ConfigSource:
    """What somebody typed to name an experiment: its file, and the values of ``--set``."""

    path: Path
    overrides: Sequence[str] = ()

    def command(self, name: str, *options: str) -> str:
        """A command line on the same experiment, quoted for a shell."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(["symbio", name, str(self.path), *sets, *options])

    def reproduce(self, stage: str, clip_id: str) -> str:
        """The command that makes one row again, writes nothing, and shows what went wrong."""
        return self.command("explain", "--stage", stage, "--clip", clip_id, "--try")
