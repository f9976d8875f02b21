"""What a process may not do: for children, since there is no way back."""

import ctypes
import os
from pathlib import Path

import pytest

_NEW_MOUNTS, _NEW_USERS = 0x0002_0000, 0x1000_0000  # CLONE_NEWNS, CLONE_NEWUSER
_PRIVATE, _REMOUNT_READ_ONLY = 0x4_4000, 0x21  # MS_REC | MS_PRIVATE, MS_REMOUNT | MS_RDONLY
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


def remount_read_only(folder: Path) -> None:
    """Forbid writing to a disk that `mount_small_disk` mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, bytes(folder), None, _REMOUNT_READ_ONLY, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
