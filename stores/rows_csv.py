"""rows.csv: what each row of the arrays is, for people without this program.

Rewritten whole when the store is closed, now and then while rows are committed, and when the
store is opened for writing and finds it behind or changed.
"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from crc32c import crc32c

from stores.durable import replace_by_blocks
from stores.layout import GenerationLayout
from stores.manifest import Manifest
from stores.manifest_writer import ManifestWriter
from stores.records import RowInfo
from stores.untrusted import NoPlainFileError, open_plain_file

ROWS_FILE = "rows.csv"
_BLOCK_NBYTES = 2**20
_LINES_PER_BLOCK = 2**13
HEADER = (
    "row",
    "row_key",
    *(field.name for field in dataclasses.fields(RowInfo)),
    "status",
)


def has_rows_csv(layout: GenerationLayout, manifest: Manifest) -> bool:
    """Return whether rows.csv is there, up to date, and as it was written."""
    expected = manifest.csv_crc(layout.stage, layout.key)
    return expected is not None and _crc_of(layout) == expected


def is_rows_csv_changed(layout: GenerationLayout, manifest: Manifest) -> bool:
    """Return whether rows.csv is not as it was written; it may well be behind."""
    expected = manifest.csv_crc(layout.stage, layout.key)
    if expected is None or _crc_of(layout) == expected:
        return False
    # Unless somebody wrote it anew in between.
    return manifest.csv_crc(layout.stage, layout.key) == expected


def _crc_of(layout: GenerationLayout) -> int | None:
    try:
        descriptor = open_plain_file(layout.path / ROWS_FILE)
    except (FileNotFoundError, NoPlainFileError):
        return None
    crc = 0
    with open(descriptor, "rb") as file:
        while block := file.read(_BLOCK_NBYTES):
            crc = crc32c(block, crc)
    return crc


def write_rows_csv(layout: GenerationLayout, manifest: ManifestWriter) -> None:
    """Write one line per row in the order of the arrays, then one per failure.

    `row` is the index along the arrays' first axis, empty for failures; `status` is "ok" or
    the failure's error class and message.
    """
    crc, all_lines = 0, _lines(layout, manifest)

    def blocks() -> Iterator[bytes]:
        nonlocal crc
        for lines in iter(lambda: list(itertools.islice(all_lines, _LINES_PER_BLOCK)), []):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(lines)
            block = text.getvalue().encode()
            crc = crc32c(block, crc)
            yield block

    replace_by_blocks(layout.path / ROWS_FILE, blocks())
    manifest.set_csv_crc(layout.stage, layout.key, crc)


def _lines(layout: GenerationLayout, manifest: ManifestWriter) -> Iterator[Sequence[Any]]:
    yield HEADER
    for row_key, shard, slot, *info in manifest.records(layout.stage, layout.key):
        yield (shard * layout.rows_per_shard + slot, row_key.hex(), *info, "ok")
    blank = [""] * (len(HEADER) - 5)
    for failure in manifest.failures(layout.stage, layout.key):
        status = f"failed: {failure.error_class}: {failure.message}"
        yield ("", failure.row_key, failure.clip_id, failure.video_id, *blank, status)
