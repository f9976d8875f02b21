"""What the stages share when they write down what decides their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extractors.registry import Registry, extractor_settings
from pipeline.config_base import NetworkConfig
from pipeline.errors import ConfigError

__all__ = ["Identities", "Settings", "network_settings"]

# Content digests by video id.
Identities = Mapping[str, str]
Settings = dict[str, Any]


def network_settings(registry: Registry, network: NetworkConfig, where: str) -> Settings:
    """An extractor's part of a stage key.

    Raises:
        ConfigError: unknown name or option; ``where`` is the key of its section.
    """
    try:
        return extractor_settings(registry, network.name, network.options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
