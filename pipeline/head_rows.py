"""Which stored rows heads train from and are scored on: segments → samples → tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from heads.table import FeatureTable, Sample
from pipeline.errors import RowsMissing
from pipeline.experiment import Experiment
from pipeline.generations import open_generation
from pipeline.maps_reader import MapsReader
from pipeline.segments import Segment
from pipeline.stages import Stage
from stores.base import ArraySpec, FeatureReader, Store
from stores.registry import open_store
from stores.row_keys import key_texts

__all__ = ["HeadData", "load_data", "open_rows"]


@dataclass(frozen=True)
class HeadData:
    """Segments of one or more splits with their features.

    ``specs``: of everything the rows hold. ``tables``: by split. ``skipped``: by split, segments
    without features that were left out.
    """

    specs: Mapping[str, ArraySpec]
    tables: Mapping[str, FeatureTable]
    skipped: Mapping[str, int]


@contextmanager
def open_rows(experiment: Experiment) -> Iterator[FeatureReader]:
    """What heads of the experiment read, opened: ``aligned`` rows, stored or made of whole maps.

    Raises:
        RowsMissing: there is no store, or none of the rows in it.
    """
    path = experiment.config.store.path
    if not path.is_dir():
        raise RowsMissing(f"{path}: there is no store yet; run {_how(experiment)} first")
    aligned = experiment.aligned
    with open_store(path, mode="r") as store:
        if experiment.config.train.features == "aligned":
            yield _stored_rows(experiment, store, aligned)
            return
        readers = {stage.name: _stored_rows(experiment, store, stage) for stage in aligned.upstream}
        reader = MapsReader(aligned, experiment.table, readers)
        with closing(reader):
            yield reader


def _stored_rows(experiment: Experiment, store: Store, stage: Stage) -> FeatureReader:
    generation = open_generation(store, stage)
    if generation is None:
        raise RowsMissing(
            f"{store.path}: no {stage.name} rows under key {stage.key[:12]}, which these settings "
            f"have; run {_how(experiment)} first, or `symbio plan` to see what differs"
        )
    return generation


def _how(experiment: Experiment) -> str:
    """The command that makes the rows that heads read."""
    if experiment.config.train.features == "aligned":
        return "`symbio run`"
    return "`symbio run " + " ".join(f"--stage {name}" for name in experiment.video_stages) + "`"


def load_data(
    experiment: Experiment,
    reader: FeatureReader,
    *,
    splits: Collection[str],
    outputs: Collection[str],
    skip_missing: bool,
) -> HeadData:
    """Tables of some splits, in memory where ``train.resident_mib`` allows.

    Args:
        reader: from `open_rows`; open for as long as the tables are used.
        outputs: names of the stored outputs to read.
        skip_missing: leave out segments that have no features, instead of refusing.

    Raises:
        RowsMissing: rows are not there, or a split has no segments.
    """
    tables, skipped = {}, {}
    for split in splits:
        samples, skipped[split] = _samples(experiment, reader, split, skip_missing=skip_missing)
        tables[split] = FeatureTable(
            reader,
            samples,
            outputs=tuple(outputs),
            resident_mib=experiment.config.train.resident_mib,
        )
    return HeadData(reader.specs, tables, skipped)


def _samples(
    experiment: Experiment, reader: FeatureReader, split: str, *, skip_missing: bool
) -> tuple[list[Sample], int]:
    """Samples of the segments that have features, and how many have none."""
    wanted = experiment.dataset.split(split)
    if not wanted:
        raise RowsMissing(
            f"got split {split!r}, expected one with segments: "
            f"{', '.join(experiment.dataset.splits)}; check data and its labels"
        )
    keys = _row_keys(experiment, split)
    missing = set(reader.missing([key for views in keys.values() for key in views]))
    samples = [
        _sample(segment, keys[segment.segment_id])
        for segment in wanted
        if keys[segment.segment_id] and missing.isdisjoint(keys[segment.segment_id])
    ]
    skipped = len(wanted) - len(samples)
    if skipped and (not skip_missing or not samples):
        raise RowsMissing(
            f"{skipped:,} of {len(wanted):,} segments of split {split!r} have no stored features; "
            f"run {_how(experiment)}, see `symbio status` for what failed, or add --skip-missing "
            "to go on without them"
        )
    return samples, skipped


def _row_keys(experiment: Experiment, split: str) -> dict[str, list[str]]:
    """Segment id → the row of each of its views; nothing for segments without a video."""
    naming = experiment.aligned.naming(experiment.table)
    of_rows = key_texts(naming.keys)
    keys: dict[str, list[str]] = defaultdict(list)
    for clip, row in zip(experiment.clips, naming.numbers[:, 0].tolist(), strict=True):
        if clip.segment.split == split and row >= 0:
            keys[clip.segment.segment_id].append(of_rows[row])
    return keys


def _sample(segment: Segment, row_keys: list[str]) -> Sample:
    return Sample(segment.segment_id, tuple(row_keys), segment.verb_class, segment.noun_class)
