"""What a process may not do: for children, since there is no way back."""

import ctypes
import os
from pathlib import Path

import pytest

_NEW_MOUNTS, _NEW_USERS = 0x0002_0000, 0x1000_0000  # CLONE_NEWNS, CLONE_NEWUSER
_PRIVATE, _REMOUNT, _READ_ONLY = 0x4_4000, 0x20, 0x1  # MS_REC | MS_PRIVATE, MS_…
NOBODY = 65534


def become_nobody() -> None:
    """Go on as a user who owns nothing; as the same one where that is not root."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def mount_small_disk(folder: Path, nbytes: int) -> None:
    """Mount a disk in memory that only this process sees; skip where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user = os.getuid()
    if libc.unshare(_NEW_MOUNTS):
        if libc.unshare(_NEW_MOUNTS | _NEW_USERS):
            pytest.skip(f"no mounts of our own: unshare: {os.strerror(ctypes.get_errno())}")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    made = libc.mount(None, b"/", None, _PRIVATE, None) or libc.mount(
        b"none", bytes(folder), b"tmpfs", 0, f"size={nbytes}".encode()
    )
    if made:
        pytest.skip(f"no disk to fill: mount: {os.strerror(ctypes.get_errno())}")


def remount(folder: Path, *, nbytes: int = 0, read_only: bool = False) -> None:
    """Give a disk that `mount_small_disk` mounted another size, or forbid writing to it."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _REMOUNT | (_READ_ONLY if read_only else 0)
    options = f"size={nbytes}".encode() if nbytes else None
    if libc.mount(None, bytes(folder), None, flags, options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
