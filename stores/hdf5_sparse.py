"""A file in memory in which only the pages that were written take room."""

import io

from stores.durable import Block

PAGE_NBYTES = 4096


class SparseFile(io.RawIOBase):
    """What h5py needs to make a file of large datasets whose values are written elsewhere."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._nbytes = 0
        self._position = 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to `offset` bytes from the start, from here or from the end; return the place."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._nbytes}
        self._position = bases[whence] + offset
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        """Set where the file ends; h5py only ever makes it longer this way."""
        self._nbytes = self._position if size is None else size
        return self._nbytes

    def write(self, data: Block, /) -> int:  # type: ignore[override]
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            page, start = divmod(self._position, PAGE_NBYTES)
            part = view[done : done + PAGE_NBYTES - start]
            kept = self._pages.setdefault(page, bytearray(PAGE_NBYTES))
            kept[start : start + len(part)] = part
            done += len(part)
            self._position += len(part)
        self._nbytes = max(self._nbytes, self._position)
        return done

    def readinto(self, target: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill `target` as far as the file goes; what was never written is zeros."""
        view = memoryview(target).cast("B")
        size = max(0, min(len(view), self._nbytes - self._position))
        done = 0
        while done < size:
            page, start = divmod(self._position, PAGE_NBYTES)
            count = min(size - done, PAGE_NBYTES - start)
            kept = self._pages.get(page)
            view[done : done + count] = kept[start : start + count] if kept else bytes(count)
            done += count
            self._position += count
        return size

    def bytes_between(self, start: int, end: int) -> bytes:
        """Return what lies between two places."""
        data = bytearray(end - start)
        self.seek(start)
        self.readinto(data)
        return bytes(data)
