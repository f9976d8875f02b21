"""Reading a whole generation back and comparing it with what the manifest says."""

from collections import defaultdict
from collections.abc import Iterable

from stores.layout import GenerationLayout
from stores.manifest import Manifest, StoredRow
from stores.records import Problem, name_some
from stores.shard_set import open_shard_file
from stores.zarr_metadata import ZARR_FILE, array_document
from stores.zarr_shard import (
    DamagedShardError,
    damaged_slots,
    decode_rows,
    read_footer,
    read_tail,
)


def verify_generation(layout: GenerationLayout, manifest: Manifest) -> list[Problem]:
    """Check every file that holds rows: index, footer, identity, and each row's checksum.

    Raises:
        DamagedManifestError: the manifest itself is damaged.
    """
    index, checks = manifest.load(layout.stage, layout.key, layout.rows_per_shard)
    by_shard: dict[int, list[StoredRow]] = defaultdict(list)
    for row in manifest.rows(layout.stage, layout.key):
        by_shard[row.shard].append(row)
    problems: list[Problem] = []
    for shard, rows in by_shard.items():
        known = checks.get(shard)
        if known is None:
            problems.append(_problem(f"shard {shard} is not in the manifest", rows))
            continue
        for output in layout.specs:
            problems += _check_file(layout, output, shard, rows, known[output])
    for output in layout.specs:
        path = layout.path / output / ZARR_FILE
        if not path.exists() or path.read_bytes() != array_document(layout, output, index.end):
            problems.append(
                Problem(f"{path} does not describe the array; open the store for writing once")
            )
    return problems


def _check_file(
    layout: GenerationLayout, output: str, shard: int, rows: list[StoredRow], check: int
) -> list[Problem]:
    """Check the file of one output of a shard."""
    path = layout.shard_path(output, shard)
    try:
        with open_shard_file(path) as descriptor:
            tail = read_tail(layout, output, path, descriptor)
            if tail.footer_crc != check:
                raise DamagedShardError(path, "it is not the file that was committed")
            footer = read_footer(layout, output, shard, path, descriptor, tail)
            bad = set(damaged_slots(layout, output, descriptor, tail))
    except DamagedShardError as error:
        return [_problem(f"{error.path}: {error.reason}", rows)]
    problems = []
    damaged = [row for row in rows if row.slot in bad]
    if damaged:
        problems.append(_problem(f"{path}: the checksum does not match", damaged))
    if output == layout.listing_output:
        listed = dict(enumerate(decode_rows(footer)))
        strange = [row for row in rows if listed.get(row.slot) != (row.row_key, row.info)]
        if strange:
            problems.append(_problem(f"{path}: it lists other rows than the manifest", strange))
    return problems


def _problem(message: str, rows: Iterable[StoredRow]) -> Problem:
    rows = list(rows)
    clips = name_some(list(dict.fromkeys(row.info.clip_id for row in rows)))
    return Problem(f"{message}; clips {clips}", tuple(row.row_key for row in rows))
