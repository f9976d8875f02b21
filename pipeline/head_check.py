"""Whether the head of an experiment can be trained from what its stages store."""

from __future__ import annotations

from functools import partial

from heads.registry import head_class, head_options, list_heads
from pipeline.config import ExperimentConfig
from pipeline.errors import ConfigError
from pipeline.known import Known
from pipeline.stages import MAP_OUTPUTS
from pipeline.train_settings import train_settings

__all__ = ["check_head", "check_head_name"]


def check_head(config: ExperimentConfig, known: Known) -> None:
    """A head that cannot be trained is found out before days of extraction, not after.

    Heads need torch to be looked at, so that one that was found to be fine is remembered.

    Raises:
        ConfigError: no such head, options it does not have, an output that is not stored, or
            settings of its training that do not go together.
    """
    about = {
        "head": config.head.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "noun_roi": config.stages.aligned.noun_roi,
    }
    known.recall("head", about, partial(_look, config))


def check_head_name(config: ExperimentConfig) -> None:
    """The part of `check_head` that is about the name alone."""
    name = config.head.name
    if name not in list_heads():
        raise ConfigError(f"head.name: got {name!r}, expected one of {', '.join(list_heads())}")


def _look(config: ExperimentConfig) -> bool:
    check_head_name(config)
    name = config.head.name
    try:
        head_options(name, config.head.options)
    except ValueError as error:
        raise ConfigError(f"head: {error}") from error
    inputs, stored = head_class(name).inputs, config.stages.aligned.noun_roi
    whole_maps = [output for output in inputs if output in MAP_OUTPUTS]
    if config.train.features == "aligned" and whole_maps:
        raise ConfigError(
            f"head.name: got {name!r}, which reads {', '.join(whole_maps)}, with train.features: "
            "aligned; set it to maps"
        )
    if config.train.features == "aligned" and "noun_roi" in inputs and not stored:
        raise ConfigError(
            f"head.name: got {name!r}, which reads noun_roi, with stages.aligned.noun_roi: false; "
            "set it to true, or train from whole maps with train.features: maps"
        )
    train_settings(config.train)
    return True
