"""What a process that decodes videos may take: time and memory for each of them."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DecodeLimits", "DecoderMemory", "DecoderTimeout", "limit_memory"]

_STATUS = Path("/proc/self/status")


class DecoderTimeout(Exception):
    """The process that decoded a video took too long over it and was ended."""


class DecoderMemory(Exception):
    """The process that decoded a video was refused the memory that it asked for."""


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of each decode process.

    Attributes:
        stall_seconds: one that says nothing for so long is ended.
        video_seconds: one that is busy with a video for so long is ended; it is not busy while it
            waits for networks to take what it has decoded.
        memory_mib: what it may take beyond what it has at its start; None is no limit.
    """

    stall_seconds: float
    video_seconds: float
    memory_mib: int | None


def limit_memory(mib: int) -> None:
    """Let this process have so much more memory of its own than it has now, on Linux.

    Beyond that, allocations fail; memory that it shares with others does not count.
    """
    if not _STATUS.exists():
        return
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = int(line.split()[1]) * 1024 + mib * 2**20
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
