"""All files of one shard together: writing them, and looking at them again afterwards."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from stores.checks import check_rows
from stores.durable import create_file
from stores.formats import shard_format
from stores.layout import GenerationLayout
from stores.records import Receipt, Row
from stores.shard_footer import RowList, decode_rows, read_footer
from stores.shard_format import DamagedShardError, open_shard
from stores.shard_rows import damaged_slots
from stores.storage import needing_storage


@dataclass(frozen=True)
class ShardSetWriter:
    """Writes shards of one generation; needs its folder, not the manifest, and can be pickled."""

    layout: GenerationLayout

    def write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        """Write one file per part, each synced before it gets its name.

        Raises:
            ValueError, TypeError: rows that do not fit; none of the files stay.
            FileExistsError: the shard was written before.
            OSError: a file could not be written; the shard is given up, none of the files stay.
            StorageUnavailableError: the store is not there now; the same shard may be written
                again once it is, or another one where that raises FileExistsError.
        """
        with needing_storage(self.layout.root):
            return self._write_shard(shard, rows)

    def _write_shard(self, shard: int, rows: Sequence[Row]) -> Receipt:
        layout = self.layout
        form = shard_format(layout.format)
        check_rows(layout.stage, layout.specs, layout.rows_per_shard, rows)
        checks: dict[str, int] = {}
        written: list[Path] = []
        nbytes = 0
        try:
            for part in form.parts(layout):
                path = form.path(layout, part, shard)
                content = form.encode(layout, part, shard, rows)
                nbytes += create_file(path.parent, path.name, content.blocks, content.nbytes)
                written.append(path)
                checks[part] = content.footer_crc
        except BaseException:
            for path in written:
                with suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
            raise
        slots = {slot: (row.key, row.info) for slot, row in enumerate(rows)}
        return Receipt(layout.stage, layout.key, shard, slots, nbytes, checks)


@contextmanager
def open_shard_file(path: Path) -> Iterator[int]:
    """Yield a descriptor for reading.

    Raises:
        DamagedShardError: there is no such file, or the disk fails to read it.
    """
    descriptor = open_shard(path)
    try:
        yield descriptor
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise DamagedShardError(path, f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def inspect_shard(layout: GenerationLayout, shard: int) -> tuple[Receipt, set[int]]:
    """Read a shard back whole.

    Returns:
        The receipt that its writer gave, and the slots that are damaged in some output.

    Raises:
        DamagedShardError: a file is missing or damaged beyond single rows, or the files are not
            of one shard.
    """
    checks: dict[str, int] = {}
    digests: set[str] = set()
    damaged: set[int] = set()
    rows: RowList = []
    nbytes = 0
    form = shard_format(layout.format)
    for part in form.parts(layout):
        path = form.path(layout, part, shard)
        with open_shard_file(path) as descriptor:
            tail = form.read_tail(layout, part, path, descriptor)
            footer = read_footer(layout, part, shard, path, descriptor, tail)
            damaged.update(damaged_slots(layout, descriptor, tail))
            nbytes += os.fstat(descriptor).st_size
        checks[part] = tail.footer_crc
        digests.add(footer["rows_sha256"])
        rows = rows or decode_rows(footer)
        if len(digests) > 1:
            raise DamagedShardError(path, "its rows are not those of the other files")
    slots = dict(enumerate(rows))
    return Receipt(layout.stage, layout.key, shard, slots, nbytes, checks), damaged


def intact_part(layout: GenerationLayout, shard: int) -> Receipt:
    """Read a shard back; return the receipt of those of its rows that are as they were written.

    Raises:
        DamagedShardError: see `inspect_shard`.
    """
    receipt, damaged = inspect_shard(layout, shard)
    slots = {slot: row for slot, row in receipt.slots.items() if slot not in damaged}
    return replace(receipt, slots=slots)
