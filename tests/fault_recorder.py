"""Notes every change to a folder while it happens, for `fault_disk`, which forgets some of them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_calls import Call

from stores.manifest_db import MANIFEST_FILE


@dataclass(eq=False)
class Node:
    """A file, or a folder with its names as the running system sees them."""

    names: dict[str, "Node"] | None = None


@dataclass
class Named:
    """Names that changed in one step: (folder, name, what it now is, None for nothing)."""

    changes: list[tuple[Node, str, Node | None]]


@dataclass
class Written:
    file: Node
    offset: int
    data: bytes


@dataclass
class Truncated:
    file: Node
    size: int


@dataclass
class Synced:
    node: Node


@dataclass
class Manifests:
    """Content of all manifests and their logs; not `safe`: SQLite is at work on one of them."""

    files: dict[Path, bytes]
    safe: bool = True


@dataclass
class Acknowledged:
    done: int


Event = Named | Written | Truncated | Synced | Manifests | Acknowledged


def content(changes: Iterable[Written | Truncated]) -> bytes:
    """Return what a file holds after its changes."""
    data = bytearray()
    for change in changes:
        end = change.size if isinstance(change, Truncated) else change.offset + len(change.data)
        data.extend(bytes(max(0, end - len(data))))
        if isinstance(change, Written):
            data[change.offset : end] = change.data
        else:
            del data[end:]
    return bytes(data)


@dataclass
class Recorder:
    """A hook for `intercepted` that notes what happens below `root`, which must exist."""

    root: Path
    top: Node = field(default_factory=lambda: Node({}))
    events: list[Event] = field(default_factory=list)
    _open: dict[int, tuple[Node, list[int]]] = field(default_factory=dict)

    def acknowledge(self, done: int) -> None:
        self.events.append(Acknowledged(done))

    def forget_descriptors(self) -> None:
        """Go on in another process than the one that opened them."""
        self._open.clear()

    def __call__(self, name: str, call: Call) -> Any:
        if name in ("BEGIN", "COMMIT", "PRAGMA", "sqlite close"):
            self.events.append(Manifests({}, safe=False))
            result = call()
            self._note_manifests()
            return result
        result = call()
        note = getattr(self, f"_note_{name}")
        note(result, *call.args, **call.keywords)
        return result

    def _find(self, path: Any, dir_fd: int | None = None) -> tuple[Node, str] | None:
        """Return folder and name of what a call names, None where it is not below `root`."""
        path = Path(path)
        if dir_fd is not None:
            return self._open[dir_fd][0], str(path)
        if not path.is_relative_to(self.root):
            return None
        node, *parts = self.top, *path.relative_to(self.root).parts
        for part in parts[:-1]:
            assert node.names is not None
            node = node.names[part]
        return node, parts[-1] if parts else "."

    def _name(self, *changes: tuple[Node, str, Node | None]) -> None:
        for folder, name, node in changes:
            assert folder.names is not None
            if node is None:
                del folder.names[name]
            else:
                folder.names[name] = node
        self.events.append(Named(list(changes)))

    def _note_manifests(self) -> None:
        # Closing these files drops SQLite's locks on them; here nobody else wants them.
        files = self.root.rglob(f"{MANIFEST_FILE}*")
        found = {path: path.read_bytes() for path in files if path.suffix != ".sqlite-shm"}
        self.events.append(
            Manifests({path.relative_to(self.root): data for path, data in found.items()})
        )

    def _note_open(
        self, result: int, path: Any, flags: int, mode: int = 0, dir_fd: int | None = None
    ) -> None:
        place = self._find(path, dir_fd)
        if place is None:
            return
        folder, name = place
        assert folder.names is not None
        if name == ".":
            node = folder
        elif name in folder.names:
            node = folder.names[name]
            assert not flags & os.O_TRUNC
        else:
            assert flags & os.O_CREAT, name
            node = Node()
            self._name((folder, name, node))
        self._open[result] = node, [0]

    def _note_close(self, _: None, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def _note_write(self, count: int, descriptor: int, data: Any) -> None:
        node, position = self._open[descriptor]
        self.events.append(Written(node, position[0], bytes(data)[:count]))
        position[0] += count

    def _note_writev(self, count: int, descriptor: int, blocks: Any) -> None:
        self._note_write(count, descriptor, b"".join(blocks))

    def _note_pwrite(self, count: int, descriptor: int, data: bytes, offset: int) -> None:
        self.events.append(Written(self._open[descriptor][0], offset, data[:count]))

    def _note_ftruncate(self, _: None, descriptor: int, size: int) -> None:
        self.events.append(Truncated(self._open[descriptor][0], size))

    def _note_fsync(self, _: None, descriptor: int) -> None:
        self.events.append(Synced(self._open[descriptor][0]))

    def _note_mkdir(self, _: None, path: Any, mode: int = 0o777) -> None:
        place = self._find(path)
        if place is not None:
            self._name((*place, Node({})))

    def _note_link(
        self,
        _: None,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        there, here = self._find(source, src_dir_fd), self._find(target, dst_dir_fd)
        assert there
        assert here
        assert there[0].names is not None
        self._name((*here, there[0].names[there[1]]))

    def _note_rename(
        self,
        _: None,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        if Path(source).name.startswith(MANIFEST_FILE):
            self._note_manifests()
            return
        there, here = self._find(source, src_dir_fd), self._find(target, dst_dir_fd)
        assert there
        assert here
        assert there[0].names is not None
        self._name((*here, there[0].names[there[1]]), (*there, None))

    _note_replace = _note_rename

    def _note_unlink(self, _: None, path: Any, *, dir_fd: int | None = None) -> None:
        place = self._find(path, dir_fd)
        if place is not None:
            self._name((*place, None))

    _note_remove = _note_rmdir = _note_unlink

    def acknowledged(self, cut: int) -> int:
        """Return the last number acknowledged before a cut."""
        words = [event.done for event in self.events[:cut] if isinstance(event, Acknowledged)]
        return words[-1] if words else 0

    def files(self) -> dict[Path, bytes]:
        """Return what was recorded of files below `root`, to be compared with what is there."""
        changes: dict[Node, list[Written | Truncated]] = {}
        for event in self.events:
            if isinstance(event, Written | Truncated):
                changes.setdefault(event.file, []).append(event)
        return {
            path: content(changes.get(node, []))
            for path, node in _walk(self.root, self.top)
            if node.names is None
        }


def _walk(path: Path, node: Node) -> Iterator[tuple[Path, Node]]:
    yield path, node
    for name, child in (node.names or {}).items():
        yield from _walk(path / name, child)
