"""The section ``train`` as the training loop takes it."""

from __future__ import annotations

from heads.settings import TrainSettings
from pipeline.config_training import TrainConfig
from pipeline.errors import ConfigError

__all__ = ["train_settings"]

# Where the config comes from, where rows and states are kept: not what the loop does with them.
NOT_OF_THE_LOOP = {"preset", "features", "resident_mib", "keep_every"}


def train_settings(config: TrainConfig) -> TrainSettings:
    """How a head is trained.

    Raises:
        ConfigError: settings that do not go together.
    """
    try:
        return TrainSettings(**config.model_dump(exclude=NOT_OF_THE_LOOP))
    except ValueError as error:
        raise ConfigError(f"train: {error}") from error
