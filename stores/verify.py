"""Reading a whole generation back and comparing it with what the manifest says."""

from collections import defaultdict
from collections.abc import Iterable

from stores.documents import wrong_documents
from stores.formats import shard_format
from stores.layout import GenerationLayout
from stores.manifest import Manifest, StoredRow
from stores.records import Problem, name_some
from stores.shard_footer import decode_rows, read_footer
from stores.shard_format import DamagedShardError
from stores.shard_rows import damaged_slots
from stores.shard_set import open_shard_file


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
        for part in shard_format(layout.format).parts(layout):
            problems += _check_file(layout, part, shard, rows, known[part])
    for path in wrong_documents(layout, index.end):
        problems.append(Problem(f"{path} does not describe the store; open it for writing once"))
    return problems


def _check_file(
    layout: GenerationLayout, part: str, shard: int, rows: list[StoredRow], check: int
) -> list[Problem]:
    """Check the file of one part of a shard."""
    form = shard_format(layout.format)
    path = form.path(layout, part, shard)
    try:
        with open_shard_file(path) as descriptor:
            tail = form.read_tail(layout, part, path, descriptor)
            if tail.footer_crc != check:
                raise DamagedShardError(path, "it is not the file that was committed")
            footer = read_footer(layout, part, shard, path, descriptor, tail)
            bad = set(damaged_slots(layout, descriptor, tail))
            rest_is_intact = form.is_rest_intact(descriptor, tail)
    except DamagedShardError as error:
        return [_problem(f"{error.path}: {error.reason}", rows)]
    problems = []
    if not rest_is_intact:
        problems.append(
            Problem(f"{path}: what it says to other programs is damaged, the rows are not")
        )
    damaged = [row for row in rows if row.slot in bad]
    if damaged:
        problems.append(_problem(f"{path}: the checksum does not match", damaged))
    if "rows" in footer:
        listed = dict(enumerate(decode_rows(footer)))
        strange = [row for row in rows if listed.get(row.slot) != (row.row_key, row.info)]
        if strange:
            problems.append(_problem(f"{path}: it lists other rows than the manifest", strange))
    return problems


def _problem(message: str, rows: Iterable[StoredRow]) -> Problem:
    rows = list(rows)
    clips = name_some(list(dict.fromkeys(row.info.clip_id for row in rows)))
    return Problem(f"{message}; clips {clips}", tuple(row.row_key for row in rows))
