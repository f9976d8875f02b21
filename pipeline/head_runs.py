"""One training of a head, and its evaluation: from stored rows into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extractors.inference import resolve_device
from heads.base import Head
from heads.checkpoint import load_head, read_checkpoint
from heads.evaluation import score_table
from heads.metrics import Metrics
from heads.registry import create_head, head_class
from heads.training import HEAD_FILE, TrainResult, train_head
from heads.training_log import EpochReport
from pipeline.errors import ConfigError, RunFolderError
from pipeline.experiment import Experiment
from pipeline.head_metrics import Measured, measure_scores, training_prior, write_measured
from pipeline.head_rows import HeadData, load_data, open_rows
from pipeline.runs import evaluation_folder, start_run_folder
from pipeline.train_settings import train_settings

__all__ = [
    "Evaluated",
    "check_same_features",
    "evaluate_on",
    "evaluate_run",
    "train_on",
    "train_run",
    "training_splits",
]


@dataclass(frozen=True)
class Evaluated:
    """Figures of one split; None where it has no labels.

    ``skipped``: segments without features that were left out.
    """

    split: str
    measured: Measured | None
    num_segments: int
    skipped: int = 0

    @property
    def metrics(self) -> Metrics | None:
        """Top-1 and top-5, which trainings look at."""
        return None if self.measured is None else self.measured.metrics


def train_run(
    experiment: Experiment,
    run_folder: Path,
    *,
    resume: bool,
    from_epoch: int | None = None,
    skip_missing: bool,
    on_epoch: Callable[[EpochReport], None],
) -> TrainResult:
    """Train the experiment's head from its rows into a run folder.

    Args:
        from_epoch: with ``resume``, go back to this epoch first, which was kept.
        skip_missing: train on the segments that have features, instead of refusing.

    Raises:
        RowsMissing: rows are not there yet.
        ConfigError: the head does not take its options.
        RunFolderError: the folder is taken.
    """
    outputs = head_class(experiment.config.head.name).inputs
    splits = training_splits(experiment)
    with open_rows(experiment) as reader:
        data = load_data(
            experiment, reader, splits=splits, outputs=outputs, skip_missing=skip_missing
        )
        return train_on(
            experiment, data, run_folder, resume=resume, from_epoch=from_epoch, on_epoch=on_epoch
        )


def training_splits(experiment: Experiment) -> list[str]:
    """The split to learn from, and the one to choose the epoch by where there is one."""
    return ["train", *(["val"] if experiment.dataset.split("val") else [])]


def train_on(
    experiment: Experiment,
    data: HeadData,
    run_folder: Path,
    *,
    resume: bool,
    from_epoch: int | None = None,
    on_epoch: Callable[[EpochReport], None],
) -> TrainResult:
    """`train_run` on data that is loaded already: with `training_splits` and the head's inputs."""
    config = experiment.config
    resolve_device(config.device)
    head, settings = _head(experiment, data), train_settings(config.train)
    if resume and (run_folder / HEAD_FILE).exists():
        check_same_features(experiment, run_folder)
    start_run_folder(run_folder, config, resume=resume)
    return train_head(
        run_folder,
        head,
        data.tables["train"],
        validation_table=data.tables.get("val"),
        settings=settings,
        prior=training_prior(experiment.dataset, config.evaluate.action_prior),
        device=config.device,
        provenance=_provenance(experiment),
        resume=resume,
        from_epoch=from_epoch,
        keep_every=config.train.keep_every,
        on_epoch=on_epoch,
    )


def _head(experiment: Experiment, data: HeadData) -> Head:
    """An untrained head for the rows' outputs."""
    config = experiment.config
    try:
        return create_head(
            config.head.name,
            specs=data.specs,
            num_verbs=len(experiment.dataset.verb_names),
            num_nouns=len(experiment.dataset.noun_names),
            seed=config.train.seed,
            **config.head.options,
        )
    except ValueError as error:
        raise ConfigError(f"head: {error}") from error


def evaluate_run(
    experiment: Experiment,
    run_folder: Path,
    *,
    split: str,
    skip_missing: bool,
    into: Path | None = None,
) -> Evaluated:
    """Score one split with a run's head; writes ``scores.npz`` and ``metrics.json``.

    Args:
        into: another folder to write to than the run's own for the split.

    Raises:
        RowsMissing: rows are not there, or the split has no segments.
        RunFolderError: the head was trained on other features.
        ValueError: the head does not fit the store or the classes.
    """
    check_same_features(experiment, run_folder)
    outputs = head_class(experiment.config.head.name).inputs
    with open_rows(experiment) as reader:
        data = load_data(
            experiment, reader, splits=[split], outputs=outputs, skip_missing=skip_missing
        )
        return evaluate_on(experiment, data, run_folder, split=split, into=into)


def evaluate_on(
    experiment: Experiment,
    data: HeadData,
    run_folder: Path,
    *,
    split: str,
    into: Path | None = None,
) -> Evaluated:
    """`evaluate_run` on data that is loaded already and holds the split."""
    config, dataset = experiment.config, experiment.dataset
    resolve_device(config.device)
    checkpoint = run_folder / HEAD_FILE
    head = load_head(
        checkpoint,
        name=config.head.name,
        specs=data.specs,
        num_verbs=len(dataset.verb_names),
        num_nouns=len(dataset.noun_names),
        device=config.device,
    )
    scores = score_table(head, data.tables[split], device=config.device)
    measured = measure_scores(dataset, scores, config.evaluate.action_prior)
    details = {
        "split": split,
        "action_prior": config.evaluate.action_prior,
        "checkpoint": dict(read_checkpoint(checkpoint).training),
        "skipped_segments": data.skipped[split],
        "views": int(data.tables[split].num_views.max()),
        **_provenance(experiment),
    }
    folder = into or evaluation_folder(run_folder, config, split)
    write_measured(folder, scores, measured, details)
    return Evaluated(split, measured, len(scores.segment_ids), data.skipped[split])


def check_same_features(experiment: Experiment, run_folder: Path) -> None:
    """Refuse features other than those the head was trained on.

    Raises:
        RunFolderError: naming the stages whose keys differ.
    """
    trained = read_checkpoint(run_folder / HEAD_FILE).provenance.get("stages", {})
    now = {name: stage.key for name, stage in experiment.stages.items()}
    differ = [name for name in now if trained.get(name) != now[name]]
    if differ:
        raise RunFolderError(
            f"{run_folder}: this head was trained on other features: stage {', '.join(differ)} has "
            "another key now, so its weights, boxes or versions have changed since; train it again"
        )


def _provenance(experiment: Experiment) -> dict[str, object]:
    return {
        "experiment": experiment.config.name,
        "stages": {name: stage.key for name, stage in experiment.stages.items()},
    }
