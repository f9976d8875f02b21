"""Training and evaluating heads on what an experiment has stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.inference import resolve_device
from heads.base import Head
from heads.checkpoint import load_head, read_checkpoint
from heads.evaluation import score_table, write_evaluation
from heads.metrics import Metrics, action_prior
from heads.registry import create_head, head_class
from heads.settings import TrainSettings
from heads.table import FeatureTable, Sample
from heads.training import TrainResult, train_head
from heads.training_log import EpochReport
from pipeline.errors import ConfigError, RowsMissing, RunFolderError
from pipeline.experiment import Experiment
from pipeline.generations import open_generation
from pipeline.runs import start_run_folder
from pipeline.segments import Segment
from stores.base import FeatureStore
from stores.registry import open_store

__all__ = ["Evaluated", "evaluate_run", "train_run"]


@dataclass(frozen=True)
class Evaluated:
    """Metrics of one split; ``skipped``: segments without features that were left out."""

    split: str
    metrics: Metrics
    skipped: int


def train_run(
    experiment: Experiment,
    run_folder: Path,
    *,
    resume: bool,
    skip_missing: bool,
    on_epoch: Callable[[EpochReport], None],
) -> TrainResult:
    """Train the experiment's head from its ``aligned`` rows into a run folder.

    Args:
        skip_missing: train on the segments that have features, instead of refusing.

    Raises:
        RowsMissing: rows are not there yet.
        ConfigError: the head does not take its options.
        RunFolderError: the folder is taken.
    """
    config = experiment.config
    resolve_device(config.device)
    inputs = head_class(config.head.name).inputs
    with _aligned_rows(experiment) as reader:
        tables = {}
        for split in ("train", "val"):
            segments = experiment.dataset.split(split)
            if not segments and split == "val":
                continue
            samples, _ = _samples(experiment, reader, segments, split, skip_missing=skip_missing)
            tables[split] = FeatureTable(
                reader, samples, outputs=inputs, resident_mib=config.train.resident_mib
            )
        head, settings = _head_and_settings(experiment, reader)
        start_run_folder(run_folder, config, resume=resume)
        return train_head(
            run_folder,
            head,
            tables["train"],
            validation_table=tables.get("val"),
            settings=settings,
            prior=config.evaluate.action_prior,
            device=config.device,
            provenance=_provenance(experiment),
            resume=resume,
            on_epoch=on_epoch,
        )


def _head_and_settings(experiment: Experiment, reader: FeatureStore) -> tuple[Head, TrainSettings]:
    """An untrained head for the reader's outputs, and how to train it."""
    config = experiment.config
    try:
        head = create_head(
            config.head.name,
            specs=reader.specs,
            num_verbs=len(experiment.dataset.verb_names),
            num_nouns=len(experiment.dataset.noun_names),
            seed=config.train.seed,
            **config.head.options,
        )
        settings = TrainSettings(**config.train.model_dump(exclude={"resident_mib"}))
    except ValueError as error:
        raise ConfigError(f"head, train: {error}") from error
    return head, settings


def evaluate_run(
    experiment: Experiment, run_folder: Path, *, split: str, skip_missing: bool
) -> Evaluated:
    """Score one split with a run's head; writes ``scores.npz`` and ``metrics.json``.

    Raises:
        RowsMissing: rows are not there, or the split has no segments.
        RunFolderError: the head was trained on other features.
        ValueError: the head does not fit the store or the classes.
    """
    config, dataset = experiment.config, experiment.dataset
    resolve_device(config.device)
    _check_same_features(experiment, run_folder)
    with _aligned_rows(experiment) as reader:
        samples, skipped = _samples(
            experiment, reader, dataset.split(split), split, skip_missing=skip_missing
        )
        head = load_head(
            run_folder / "head.safetensors",
            name=config.head.name,
            specs=reader.specs,
            num_verbs=len(dataset.verb_names),
            num_nouns=len(dataset.noun_names),
            device=config.device,
        )
        table = FeatureTable(
            reader, samples, outputs=head.inputs, resident_mib=config.train.resident_mib
        )
        scores = score_table(head, table, device=config.device)
    train = dataset.split("train")
    prior = action_prior(
        config.evaluate.action_prior,
        np.array([segment.verb_class for segment in train], dtype=np.int64),
        np.array([segment.noun_class for segment in train], dtype=np.int64),
        len(dataset.verb_names),
        len(dataset.noun_names),
    )
    metrics = scores.metrics(prior)
    details = {
        "split": split,
        "action_prior": config.evaluate.action_prior,
        "checkpoint": dict(read_checkpoint(run_folder / "head.safetensors").training),
        "skipped_segments": skipped,
        **_provenance(experiment),
    }
    # The config's split has the plain names; a look at another one leaves them as they are.
    folder = run_folder if split == config.evaluate.split else run_folder / split
    write_evaluation(folder, scores, metrics, details=details)
    return Evaluated(split, metrics, skipped)


def _check_same_features(experiment: Experiment, run_folder: Path) -> None:
    """Refuse features other than those the head was trained on."""
    trained = read_checkpoint(run_folder / "head.safetensors").provenance.get("stages", {})
    now = {name: stage.key for name, stage in experiment.stages.items()}
    differ = [name for name in now if trained.get(name) != now[name]]
    if differ:
        raise RunFolderError(
            f"{run_folder}: this head was trained on other features: stage {', '.join(differ)} has "
            "another key now, so its weights, boxes or versions have changed since; train it again"
        )


@contextmanager
def _aligned_rows(experiment: Experiment) -> Iterator[FeatureStore]:
    """The experiment's ``aligned`` generation, opened for reading."""
    path = experiment.config.store.path
    if not path.is_dir():
        raise RowsMissing(f"{path}: there is no store yet; run `symbio run` first")
    with open_store(path, mode="r") as store:
        generation = open_generation(store, experiment.aligned)
        if generation is None:
            raise RowsMissing(
                f"{path}: no aligned rows under key {experiment.aligned.key[:12]}, which these "
                "settings have; run `symbio run` first, or `symbio plan` to see what differs"
            )
        yield generation


def _samples(
    experiment: Experiment,
    reader: FeatureStore,
    segments: Iterable[Segment],
    split: str,
    *,
    skip_missing: bool,
) -> tuple[list[Sample], int]:
    """Samples of the segments that have features, and how many have none."""
    wanted = list(segments)
    if not wanted:
        raise RowsMissing(f"split {split!r} has no segments; check data and its labels")
    keys: dict[str, list[str]] = defaultdict(list)
    for clip in experiment.clips:
        has_sources = experiment.aligned.has(clip, experiment.identities)
        if clip.segment.split == split and has_sources:
            key = experiment.aligned.row_key(clip, experiment.identities)
            keys[clip.segment.segment_id].append(key)
    missing = set(reader.missing([key for views in keys.values() for key in views]))
    samples = [
        Sample(segment.segment_id, tuple(views), segment.verb_class, segment.noun_class)
        for segment in wanted
        if (views := [key for key in keys[segment.segment_id] if key not in missing])
        and len(views) == len(keys[segment.segment_id])
    ]
    skipped = len(wanted) - len(samples)
    if skipped and (not skip_missing or not samples):
        raise RowsMissing(
            f"{skipped:,} of {len(wanted):,} segments of split {split!r} have no stored features; "
            "run `symbio run`, see `symbio status` for what failed, or add --skip-missing to go "
            "on without them"
        )
    return samples, skipped


def _provenance(experiment: Experiment) -> dict[str, object]:
    return {
        "experiment": experiment.config.name,
        "stages": {name: stage.key for name, stage in experiment.stages.items()},
    }
