"""Making exactly the rows missing that are hurt, and putting aside what they lay in."""

from collections.abc import Iterable
from dataclasses import replace

from stores.base import FeatureStore
from stores.layout import GenerationLayout
from stores.manifest_writer import ManifestWriter
from stores.quarantine import quarantine_shard
from stores.records import Problem, Row
from stores.shard_format import DamagedShardError
from stores.shard_set import intact_part
from stores.verify import OnRead, verify_generation


def repair_generation(
    layout: GenerationLayout, manifest: ManifestWriter, on_read: OnRead | None = None
) -> list[Problem]:
    """Make hurt rows missing and move shards that are broken as a whole to the quarantine.

    Where it is the manifest that is wrong, it learns again from the shard, and no row is lost.

    Returns:
        What was wrong, as `verify_generation` found it.
    """
    stage, key = layout.stage, layout.key
    problems = verify_generation(layout, manifest, on_read=on_read)
    hurt = {row_key for problem in problems for row_key in problem.row_keys}
    touched = {row.shard for row in manifest.rows(stage, key, lenient=True) if row.row_key in hurt}
    # After a crash from here on, the next writer finds shards that it never heard of.
    broken = {p.shard for p in problems if p.shard is not None and p.row_keys}
    manifest.drop(stage, key, hurt, broken)
    for shard in sorted(touched):
        try:
            receipt = intact_part(layout, shard)
        except DamagedShardError:
            quarantine_shard(layout, shard)
        else:
            slots = {slot: row for slot, row in receipt.slots.items() if row[0] in hurt}
            manifest.commit(stage, key, [replace(receipt, slots=slots)], [])
    return problems


def rewrite_shards(
    generation: FeatureStore,
    layout: GenerationLayout,
    manifest: ManifestWriter,
    problems: Iterable[Problem],
) -> None:
    """Write the rows of shards to new ones where a file is damaged and no row is."""
    shards = {p.shard for p in problems if p.shard is not None and not p.row_keys}
    stored = manifest.rows(layout.stage, layout.key)
    for shard in sorted(shards & {row.shard for row in stored}):
        held = [row for row in stored if row.shard == shard]
        keys = [row.row_key for row in held]
        arrays = generation.read(keys)
        rows = [
            Row(row.row_key, {output: array[place] for output, array in arrays.items()}, row.info)
            for place, row in enumerate(held)
        ]
        receipt = generation.write_shard(generation.reserve_shards(1), rows)
        manifest.move(layout.stage, layout.key, receipt)
        quarantine_shard(layout, shard)
        # Last: a shard that the manifest does not know would be taken in, forgotten rows and all.
        manifest.drop(layout.stage, layout.key, [], [shard])
