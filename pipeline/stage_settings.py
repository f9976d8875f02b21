"""What the stages share when they write down what decides their numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from extractors.geometry import Geometry
from extractors.registry import Registry, extractor_settings, parse_options
from pipeline.config_base import NetworkConfig
from pipeline.errors import ConfigError
from pipeline.keys import stage_key

__all__ = ["Keyed", "Settings", "network_settings", "published_geometry"]

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

    def take_key(self, key: str) -> None:
        """Use a key that was made of these very settings before."""
        vars(self)["key"] = key  # where `cached_property` keeps it


def network_settings(
    registry: Registry, network: NetworkConfig, where: str, precision: str = "float32"
) -> Settings:
    """An extractor's part of a stage key.

    Raises:
        ConfigError: unknown name or option; ``where`` is the key of its section.
    """
    try:
        return extractor_settings(registry, network.name, network.options, precision)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def published_geometry(registry: Registry, network: NetworkConfig, where: str) -> Geometry:
    """The resize and crop with which the publisher of an extractor's weights tests.

    Raises:
        ConfigError: unknown name or option, or no crop to a square is known.
    """
    try:
        extractor = registry.resolve(network.name)
        pixels = extractor.preprocessing(parse_options(extractor, network.options))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if pixels.geometry is None or pixels.geometry.crop_px is None:
        raise ConfigError(
            f"{where}: no published geometry is known for {network.name}; use geometry: square"
        )
    return pixels.geometry
