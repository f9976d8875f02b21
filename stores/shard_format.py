"""What differs between the formats a store can be kept in: the files that hold a shard.

A shard consists of parts, one file each: in Zarr one part per output, in HDF5 a single part with
all of them. Whatever the format, a file ends with a footer, which says what the file is and in the
first part lists the rows, and with an index of where each row lies.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stores.durable import Block
from stores.layout import GenerationLayout
from stores.records import Row
from stores.untrusted import NoPlainFileError, open_plain_file

CRC_NBYTES = 4
EMPTY = 2**64 - 1  # in an index: no row in this slot
MAX_FOOTER_NBYTES = 16 * 2**20  # 4,096 rows with the longest ids take 13 MiB


class DamagedShardError(Exception):
    """A shard file is missing or not what was written; callers add which clips that costs."""

    def __init__(self, path: Path, reason: str, slots: Iterable[int] | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.slots = None if slots is None else list(slots)  # None: the whole file


@dataclass(frozen=True)
class ChunkTable:
    """Where the rows of one output lie in a file, by slot; slots past the end are empty.

    Attributes:
        offsets: of the stored values, in bytes from the start of the file.
        nbytes: stored bytes of the values, after compression and without checksum.
        checks: crc32c of the stored values; None where it lies behind them as a u32.
    """

    offsets: Sequence[int]
    nbytes: Sequence[int]
    checks: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True)
class ShardTail:
    """The checked end of a shard file.

    Attributes:
        chunks: output → its rows; all of one length.
        footer_start, footer_nbytes: where the footer lies.
        footer_crc: crc32c that the footer should have.
    """

    chunks: Mapping[str, ChunkTable]
    footer_start: int
    footer_nbytes: int
    footer_crc: int


@dataclass(frozen=True)
class ShardContent:
    """The bytes of a shard file, made row by row while they are written.

    Attributes:
        blocks: to be gone through once.
        nbytes: of all blocks; before compression, if there is any.
        footer_crc: crc32c of the footer, which identifies the file.
    """

    blocks: Iterable[Block]
    nbytes: int
    footer_crc: int


class ShardFormat(ABC):
    """One way of keeping shards in files; has no state."""

    name: ClassVar[str]

    @abstractmethod
    def parts(self, layout: GenerationLayout) -> dict[str, tuple[str, ...]]:
        """Return part → outputs in its file; the first part lists the rows."""

    @abstractmethod
    def path(self, layout: GenerationLayout, part: str, shard: int) -> Path:
        """Return the file of a part of a shard."""

    @abstractmethod
    def shard_number(self, layout: GenerationLayout, part: str, file_name: str) -> int | None:
        """Return which shard a file beside those of `part` belongs to, None for other files."""

    @abstractmethod
    def folders(self, layout: GenerationLayout) -> list[Path]:
        """Return the folders that shard files lie in."""

    @abstractmethod
    def documents(self, layout: GenerationLayout, rows: int) -> dict[Path, bytes]:
        """Return path → content of what describes `rows` rows to other programs."""

    @abstractmethod
    def encode(
        self, layout: GenerationLayout, part: str, shard: int, rows: Sequence[Row]
    ) -> ShardContent:
        """Return the content of a part.

        Args:
            rows: which went through `check_rows`; row i goes to slot i.

        Going through the blocks raises ValueError where values are NaN or Inf.
        """

    @abstractmethod
    def read_tail(
        self, layout: GenerationLayout, part: str, path: Path, descriptor: int
    ) -> ShardTail:
        """Read and check the end of an open shard file; believe none of its sizes unchecked.

        Raises:
            DamagedShardError: it is not the end of a shard file of this part.
        """

    def is_rest_intact(self, descriptor: int, tail: ShardTail) -> bool:
        """Return whether what lies between the rows, for other programs, is as it was written."""
        return True


def part_of(form: ShardFormat, layout: GenerationLayout, output: str) -> str:
    """Return the part that holds an output."""
    return next(part for part, outputs in form.parts(layout).items() if output in outputs)


def shards_on_disk(form: ShardFormat, layout: GenerationLayout) -> dict[int, set[Path]]:
    """Return shard number → its files that are there."""
    found: dict[int, set[Path]] = {}
    for part in form.parts(layout):
        for path in form.path(layout, part, 0).parent.iterdir():
            shard = form.shard_number(layout, part, path.name)
            if shard is not None:
                found.setdefault(shard, set()).add(path)
    return found


def open_shard(path: Path) -> int:
    """Return a descriptor of a shard file; raise DamagedShardError where there is no file."""
    try:
        return open_plain_file(path)
    except FileNotFoundError:
        raise DamagedShardError(path, "the file is gone") from None
    except NoPlainFileError:
        raise DamagedShardError(path, "it is no file but a link, a folder or a device") from None
