"""Comparing a whole generation with what the manifest says."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from stores.documents import wrong_documents
from stores.formats import shard_format
from stores.index_file import DamagedIndexError, read_index
from stores.layout import GenerationLayout
from stores.manifest import Manifest, StoredRow
from stores.manifest_db import DamagedManifestError
from stores.records import Problem, RowInfo, name_some
from stores.rows_csv import ROWS_FILE, is_rows_csv_changed
from stores.shard_footer import decode_rows, read_footer
from stores.shard_format import DamagedShardError
from stores.shard_rows import damaged_slots
from stores.shard_set import open_shard_file

OnRead = Callable[[int], None]


def verify_generation(
    layout: GenerationLayout,
    manifest: Manifest,
    *,
    deep: bool = True,
    on_read: OnRead | None = None,
) -> list[Problem]:
    """Check every file that holds rows: index, footer, identity, and each row's checksum.

    Args:
        deep: read the rows too; without, damage to single rows is not found.
        on_read: called after each file with the bytes that were read of it.
    """
    try:
        stage, key, per_shard = layout.stage, layout.key, layout.rows_per_shard
        index, checks, _ = manifest.load(stage, key, per_shard, from_file=False)
        stored = manifest.rows(layout.stage, layout.key, lenient=True)
    except (DamagedManifestError, FileNotFoundError) as error:
        return [Problem(str(error))]
    by_shard: dict[int, list[StoredRow]] = defaultdict(list)
    for row in stored:
        by_shard[row.shard].append(row)
    problems: list[Problem] = []
    for shard, rows in by_shard.items():
        known = checks.get(shard)
        if known is None:
            problems.append(_problem(f"shard {shard} is not in the manifest", rows))
            continue
        for part in shard_format(layout.format).parts(layout):
            problems += _check_file(layout, part, rows, known.get(part), deep, on_read or _ignore)
    wrong = wrong_documents(layout, index.end)
    if wrong:  # a run may have added rows meanwhile, or be about to write them
        index = manifest.load(stage, key, per_shard).rows
        is_behind = manifest.csv_crc(stage, key) is None
        wrong = [] if is_behind else wrong_documents(layout, index.end)
    for path in wrong:
        problems.append(Problem(f"{path} does not describe the store; open it for writing once"))
    try:
        read_index(layout.path, len(stored))
    except DamagedIndexError as error:
        problems.append(Problem(f"{error}; open the store for writing once"))
    if is_rows_csv_changed(layout, manifest):
        path = layout.path / ROWS_FILE
        problems.append(
            Problem(f"{path} is not as it was written; open the store for writing once")
        )
    return problems


def _check_file(
    layout: GenerationLayout,
    part: str,
    rows: list[StoredRow],
    check: int | None,
    deep: bool,
    on_read: OnRead,
) -> list[Problem]:
    """Check the file of one part of a shard, which `rows` live in."""
    form, shard = shard_format(layout.format), rows[0].shard
    path = form.path(layout, part, shard)
    bad: set[int] = set()
    try:
        with open_shard_file(path) as descriptor:
            tail = form.read_tail(layout, part, path, descriptor)
            if tail.footer_crc != check:
                raise DamagedShardError(path, "it is not the file that was committed")
            footer = read_footer(layout, part, shard, path, descriptor, tail)
            rest_is_intact = form.is_rest_intact(descriptor, tail)
            if deep:
                bad = damaged_slots(layout, descriptor, tail)
            nbytes = os.fstat(descriptor).st_size
            on_read(nbytes if deep else nbytes - tail.footer_start)
    except DamagedShardError as error:
        return [_problem(f"{error.path}: {error.reason}", rows, shard)]
    problems = []
    if not rest_is_intact:
        message = f"{path}: what it says to other programs is damaged, the rows are not"
        problems.append(Problem(message, (), shard))
    damaged = [row for row in rows if row.slot in bad]
    if damaged:
        problems.append(_problem(f"{path}: the checksum does not match", damaged))
    if "rows" in footer:
        listed = dict(enumerate(decode_rows(footer)))
        strange = [
            _as_listed(row, listed)
            for row in rows
            if listed.get(row.slot) != (row.row_key, row.info)
        ]
        if strange:
            problems.append(_problem(f"{path}: it lists other rows than the manifest", strange))
    return problems


def _as_listed(row: StoredRow, listed: Mapping[int, tuple[str, RowInfo]]) -> StoredRow:
    """Return a row under the name by which its shard knows it."""
    key, info = listed.get(row.slot, ("", row.info))
    return replace(row, info=info) if key == row.row_key else row


def _problem(message: str, rows: Iterable[StoredRow], shard: int | None = None) -> Problem:
    rows = list(rows)
    clips = name_some(list(dict.fromkeys(row.info.clip_id for row in rows)))
    return Problem(f"{message}; clips {clips}", tuple(row.row_key for row in rows), shard)


def _ignore(nbytes: int) -> None:
    pass
