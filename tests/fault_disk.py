"""A disk that forgets: what a folder can look like after the power went.

`cut_power` takes what a `Recorder` noted and builds the folder as the disk may hold it when the
power goes after the first `cut` events.

The model, which asks of a disk no more than POSIX promises:
- Data of a file is safe once the file was synced. What was written later is there, or not, or up
  to some byte, or in some blocks with zeros in the others.
- A name (made, linked, renamed or removed) is safe once its folder was synced. Of later changes
  any may be there and any other may not; but a single one happens whole or not at all.
- SQLite keeps its promise for WAL and synchronous=FULL: a commit that returned is safe. A commit
  that was cut off left any part of what it appended to the log, with zeros or garbage in between.
  Closing copies pages from the log into the database, any of which may be there; the log may
  outlive its removal. The -shm file is gone, or garbage. SQLite syncs the manifest's own name.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from fault_recorder import (
    Event,
    Manifests,
    Named,
    Node,
    Recorder,
    Synced,
    Truncated,
    Written,
    content,
)

from stores.manifest_db import MANIFEST_FILE

LOG = f"{MANIFEST_FILE}-wal"
SHARED_MEMORY = f"{MANIFEST_FILE}-shm"
BLOCK_NBYTES = (32, 512, 4096)  # 32: as if these small files were large
# A disk that is late with everything, one that is early, and those between.
LIKELY = (0.0, 0.1, 0.5, 0.9, 1.0)


def cut_power(
    recorder: Recorder,
    cut: int,
    choose: random.Random,
    target: Path,
    likely: Sequence[float] = LIKELY,
) -> None:
    """Build in the empty folder `target` what may be left of the recorded folder.

    Args:
        likely: how likely a name is there that was not synced; one is chosen.
    """
    disk = _Disk(recorder.events[:cut], choose, choose.choice(likely))
    disk.build(target, recorder.top)
    for path, data in _manifests(recorder.events, cut, choose).items():
        if (target / path.parent).is_dir():
            (target / path).write_bytes(data)


class _Disk:
    """The names and data that are left after `events`."""

    def __init__(self, events: list[Event], choose: random.Random, likely: float) -> None:
        self._choose = choose
        self._synced: dict[Node, int] = {}
        self._changes: dict[Node, list[tuple[int, Written | Truncated]]] = {}
        self._names: dict[Node, dict[str, Node | None]] = {}
        for number, event in enumerate(events):
            if isinstance(event, Synced):
                self._synced[event.node] = number
            elif isinstance(event, Written | Truncated):
                self._changes.setdefault(event.file, []).append((number, event))
        for number, event in enumerate(events):
            if isinstance(event, Named):
                safe = all(self._is_safe(number, folder) for folder, _, _ in event.changes)
                if safe or choose.random() < likely:
                    for folder, name, node in event.changes:
                        self._names.setdefault(folder, {})[name] = node

    def _is_safe(self, number: int, node: Node) -> bool:
        return number < self._synced.get(node, -1)

    def build(self, path: Path, folder: Node) -> None:
        for name, node in self._names.get(folder, {}).items():
            if node is None:
                continue
            if node.names is not None:
                (path / name).mkdir()
                self.build(path / name, node)
                continue
            changes = self._changes.get(node, [])
            safe = content(change for number, change in changes if self._is_safe(number, node))
            written = content(change for _, change in changes)
            (path / name).write_bytes(_some_of(safe, written, self._choose))


def _some_of(safe: bytes, written: bytes, choose: random.Random, *, garbage: bool = False) -> bytes:
    """Return what may be there of `written`, where `safe` was there before."""
    if safe == written:
        return safe
    what = choose.choice(("nothing", "start", "blocks", "all"))
    if what in ("nothing", "all"):
        return safe if what == "nothing" else written
    if what == "start":
        size = choose.randint(0, len(written))
        return written[:size] + safe[size:]
    added = len(written) - len(safe)
    before = safe + (choose.randbytes(max(0, added)) if garbage else bytes(max(0, added)))
    block = choose.choice(BLOCK_NBYTES)
    starts = range(0, len(written), block)
    return b"".join(choose.choice((before, written))[start : start + block] for start in starts)


def _manifests(events: list[Event], cut: int, choose: random.Random) -> dict[Path, bytes]:
    """Return the files of all manifests as they may be after the cut."""
    before = [event for event in events[:cut] if isinstance(event, Manifests)]
    later = [event.files for event in events[cut:] if isinstance(event, Manifests) and event.safe]
    earlier, kept = [{}, {}, *(event.files for event in before if event.safe)][-2:]
    files = dict(kept)
    if before and not before[-1].safe:
        _be_at_work(files, later[0], choose)
    for log in earlier.keys() - kept.keys():  # of a manifest that was closed
        if log.name.endswith(LOG) and choose.random() < 0.5:
            files[log] = earlier[log]
    for manifest in [path for path in files if path.name == MANIFEST_FILE]:
        if choose.random() < 0.5:
            files[manifest.with_name(SHARED_MEMORY)] = choose.randbytes(32768)
    return files


def _be_at_work(files: dict[Path, bytes], later: dict[Path, bytes], choose: random.Random) -> None:
    """Change files to what they may be on the way to what they are later."""
    for manifest in [path for path in files if path.name == MANIFEST_FILE]:
        log = manifest.with_name(LOG)
        if log in later:  # a commit
            old = files.get(log, b"")
            assert later[log].startswith(old)
            files[log] = _some_of(old, later[log], choose, garbage=True)
        elif log in files and manifest in later:  # a close
            files[manifest] = _some_of(files[manifest], later[manifest], choose)
