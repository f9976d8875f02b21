"""What the stages share when they write down what decides their numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from extractors.registry import Registry, extractor_settings
from pipeline.config_base import NetworkConfig
from pipeline.errors import ConfigError
from pipeline.keys import stage_key

__all__ = ["Identities", "Keyed", "Settings", "network_settings"]

# Content digests by video id.
Identities = Mapping[str, str]
Settings = dict[str, Any]


class Keyed(ABC):
    """A stage that is named by its settings.

    Attributes:
        VERSION: raised by hand when the same settings give other numbers.
    """

    VERSION: ClassVar[int]

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """Everything that decides the numbers of a row, given what the row is made from."""

    @cached_property
    def key(self) -> str:
        """Stage key."""
        return stage_key(self.settings)


def network_settings(registry: Registry, network: NetworkConfig, where: str) -> Settings:
    """An extractor's part of a stage key.

    Raises:
        ConfigError: unknown name or option; ``where`` is the key of its section.
    """
    try:
        return extractor_settings(registry, network.name, network.options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
